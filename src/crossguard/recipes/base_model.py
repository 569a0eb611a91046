"""The base model of a recipe of `certify`: loaded, or trained on ablated inputs as the recipe says."""

import shutil
from pathlib import Path
from typing import Any

from crossguard.checks import check_options
from crossguard.data import MultiModalSamples
from crossguard.models import MODELS, load_model
from crossguard.progress import Reporter
from crossguard.recipes.names import SET_BY_RECIPE
from crossguard.recipes.perform import read_samples
from crossguard.recipes.schema import AblatedTraining, CertifyRecipe
from crossguard.runs import RunFolder
from crossguard.training import train_ablated
from crossguard.training.ablated import turn_sensors
from crossguard.training.ablated_segmenter import flip_and_tint, train_ablated_segmenter


def base_model(
    recipe: CertifyRecipe,
    run: RunFolder,
    samples: MultiModalSamples,
    *,
    joint: bool = False,
    device: str,
    progress: Reporter,
) -> Any:
    """Return the base model, trained on ablated inputs where the recipe says how and the run has none yet.

    Args:
        recipe: says which model, and how it is trained.
        run: keeps a trained model.
        samples: what will be certified; tells a classifier from a segmenter.
        joint: train for the baseline, on joint sub-samples.
        device: where to train, and where the model is afterwards.
        progress: shows the training.

    Raises:
        ValueError: a model that is not trained from nothing or not of this kind, or options that it does not take.
    """
    if recipe.train is None:
        return load_model(recipe.model, device=device)
    row = MODELS.find(recipe.model)
    kind = "classifier" if samples.labels.ndim == 1 else "segmenter"
    if row.fresh is None or row.kind != kind:
        known = ", ".join(name for name, other in MODELS.items() if other.fresh is not None and other.kind == kind)
        raise ValueError(f"Expected a {kind} that can be trained from nothing ({known}), but got {recipe.model!r}.")
    loop = train_ablated if kind == "classifier" else train_ablated_segmenter
    check_options(row.fresh, recipe.train.model, what="`train.model`", own={"samples", "seed"})
    check_options(loop, recipe.train.options, what="`train.options`", own=SET_BY_RECIPE)
    fits = "turn-sensors" if kind == "classifier" else "flip-and-tint"
    if recipe.train.augment not in (None, fits):
        raise ValueError(f"Expected `train.augment` {fits!r} or none for a {kind}, but got {recipe.train.augment!r}.")
    folder = run.path / ("model-joint" if joint else "model")
    checkpoint = run.path / ("checkpoint-joint" if joint else "checkpoint")
    if not folder.is_dir():
        training = read_samples(recipe.train.data.completed(recipe.data), None)
        made: dict[str, Any] = {"joint": joint, "device": device, "folder": checkpoint, "progress": progress}
        trained = train_base(recipe.train, recipe, row.fresh, training, **made)
        trained.save_pretrained(folder)
    shutil.rmtree(checkpoint, ignore_errors=True)
    return load_model(folder, device=device)


def train_base(
    plan: AblatedTraining,
    recipe: CertifyRecipe,
    fresh: Any,
    training: MultiModalSamples,
    *,
    joint: bool = False,
    device: str,
    folder: Path | None = None,
    progress: Reporter | None = None,
) -> Any:
    """Return a model that is trained on ablated inputs as a plan says.

    Args:
        plan: the recipe's, or a changed one.
        recipe: what is certified.
        fresh: makes an untrained model of the training data.
        training: samples of one label each, or of masks.
        joint: train for the baseline, on joint sub-samples.
        device: where to train.
        folder: where a training that is interrupted goes on.
        progress: shows the training.
    """
    model = fresh(training, seed=recipe.seed, **plan.model)
    common: dict[str, Any] = {
        "keep": plan.keep or recipe.keep,
        "steps": plan.steps,
        "seed": recipe.seed,
        "device": device,
        "joint": joint,
        "folder": folder,
        **plan.options,
    }
    if recipe.noise and not set(recipe.noise) & set(common["keep"]):
        common["noise"] = recipe.noise
    if training.labels.ndim == 3:
        augment_images = flip_and_tint if plan.augment is not None else None
        return train_ablated_segmenter(model, training, augment=augment_images, progress=progress, **common)
    augment = turn_sensors if plan.augment is not None else None
    return train_ablated(model, training, augment=augment, progress=progress, **common)
