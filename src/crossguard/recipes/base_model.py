"""The base model of a recipe of `certify`: loaded, or trained on ablated inputs as the recipe says."""

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from crossguard.checks import check_options, lookup
from crossguard.data import MultiModalSamples
from crossguard.models import MODELS, load_model
from crossguard.progress import Reporter
from crossguard.recipes.names import ABLATED, SET_BY_RECIPE
from crossguard.recipes.perform import read_samples
from crossguard.recipes.schema import AblatedTraining, CertifyRecipe
from crossguard.training import train_ablated
from crossguard.training.ablated import turn_sensors
from crossguard.training.ablated_segmenter import flip_and_tint, train_ablated_segmenter
from crossguard.world import join


def base_model(
    recipe: CertifyRecipe,
    home: Path,
    samples: MultiModalSamples,
    *,
    joint: bool = False,
    device: str,
    progress: Reporter,
) -> Any:
    """Return the base model, trained on ablated inputs where the recipe says how and the run has none yet.

    Args:
        recipe: says which model, and how it is trained.
        home: the folder of the run, which keeps a trained model. Of several processes the main one trains.
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
    check_options(row.fresh, recipe.train.model, what="`train.model`", own={"samples", "seed"})
    check_options(ABLATED[kind], recipe.train.options, what="`train.options`", own=SET_BY_RECIPE)
    fits = "turn-sensors" if kind == "classifier" else "flip-and-tint"
    if recipe.train.augment not in (None, fits):
        raise ValueError(f"Expected `train.augment` {fits!r} or none for a {kind}, but got {recipe.train.augment!r}.")
    folder = home / ("model-joint" if joint else "model")
    checkpoint = home / ("checkpoint-joint" if joint else "checkpoint")
    world = join(device)
    if world.main and not folder.is_dir():
        training = read_samples(recipe.train.data.completed(recipe.data), None)
        made: dict[str, Any] = {"joint": joint, "device": device, "folder": checkpoint, "progress": progress}
        trained = train_base(recipe.train, recipe, row.fresh, training, **made)
        trained.save_pretrained(folder)
    if world.main:
        shutil.rmtree(checkpoint, ignore_errors=True)
    world.wait()
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
    training, lengths = split_lengths(training, recipe.lengths)
    model = fresh(training, seed=recipe.seed, **plan.model)
    common: dict[str, Any] = {
        "keep": plan.keep or recipe.keep,
        "steps": plan.steps,
        "seed": recipe.seed,
        "device": device,
        "joint": joint,
        "folder": folder,
        **({"lengths": lengths} if lengths else {}),
        **plan.options,
    }
    if recipe.noise and not set(recipe.noise) & set(common["keep"]):
        common["noise"] = recipe.noise
    if training.labels.ndim == 3:
        augment_images = flip_and_tint if plan.augment is not None else None
        return train_ablated_segmenter(model, training, augment=augment_images, progress=progress, **common)
    augment = turn_sensors if plan.augment is not None else None
    return train_ablated(model, training, augment=augment, progress=progress, **common)


def split_lengths(
    samples: MultiModalSamples, names: Mapping[str, str]
) -> tuple[MultiModalSamples, dict[str, np.ndarray]]:
    """Take the arrays that say how many elements samples have out of their modalities.

    Args:
        samples: with such arrays among their modalities.
        names: of these arrays, by the modality that they are about.

    Raises:
        ValueError: there is no such array, or it has not one whole number per sample.
    """
    lengths = {}
    for modality, name in names.items():
        array = lookup(samples.modalities, name, what=f"array of the lengths of {modality!r}")
        numbers = array.reshape(len(array), -1)
        if numbers.shape[1] != 1 or (numbers != np.round(numbers)).any():
            raise ValueError(f"Expected one whole number per sample in {name!r}, but got {list(array.shape)}.")
        lengths[modality] = numbers[:, 0].astype(np.int64)
    left = {m: values for m, values in samples.modalities.items() if m not in names.values()}
    return (replace(samples, modalities=left) if lengths else samples), lengths
