"""Carry a checked recipe out: build what it names, run it in its run folder, leave rows, summary and report there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from crossguard.certify import Certificate, certify
from crossguard.checks import lookup
from crossguard.data import MultiModalSamples, OneToManyPairs, load_pairs, load_samples
from crossguard.evaluate import RetrievalResult, evaluate, evaluate_modalities
from crossguard.models import MODELS, load_model
from crossguard.progress import Reporter
from crossguard.recipes.load import RecipeError
from crossguard.recipes.names import check_names
from crossguard.recipes.schema import CertifyRecipe, Data, EvaluateRecipe, TrainRecipe
from crossguard.report import certificate_entry, certificate_view
from crossguard.runs import RunFolder
from crossguard.training import train, train_ablated
from crossguard.training.ablated import turn_sensors

Settings = EvaluateRecipe | TrainRecipe | CertifyRecipe


def open_run(recipe: Settings, *, command: Sequence[str] | None = None) -> RunFolder:
    """Open the recipe's run folder, new or begun with the same settings.

    Raises:
        RecipeError: a name that no table holds.
        ValueError: the folder holds another run.
    """
    problems = check_names(recipe)
    if problems:
        raise RecipeError(recipe.run, problems)
    settings = recipe.model_dump(mode="json", exclude={"run", "device", "seed"})
    return RunFolder.open(
        Path(recipe.run), settings=settings, seed=recipe.seed, device=choose_device(recipe.device), command=command
    )


def choose_device(wanted: str | None) -> str:
    """Return the wanted device, or a GPU if there is one, or the CPU.

    Raises:
        ValueError: PyTorch does not know the device or has none of the kind.
    """
    if wanted is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=wanted)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"Expected a torch device that is here, but got {wanted!r}: {error}") from error
    return wanted


def perform_evaluate(recipe: EvaluateRecipe, run: RunFolder, *, progress: Reporter) -> dict[str, RetrievalResult]:
    """Measure retrieval as the recipe says; an interrupted run goes on where it stopped.

    Returns:
        By what is attacked ("image", "text", "joint", or "clean" without attack).
    """
    model = load_model(recipe.model)
    pairs = read_pairs(recipe.data, recipe.max_samples)
    common: dict[str, Any] = {
        "seed": recipe.seed,
        "batch_size": recipe.batch_size,
        "run": run,
        "progress": progress,
        "device": choose_device(recipe.device),
    }
    if recipe.attack is None:
        return {"clean": evaluate(model, pairs, **common)}
    common |= {"attack": recipe.attack.name, "attack_options": recipe.attack.options}
    threat = recipe.threat.build()
    if recipe.modalities and len(threat) > 1:
        return evaluate_modalities(model, pairs, threat=threat, **common)
    return {
        "joint" if len(threat) > 1 else next(iter(threat), "clean"): evaluate(model, pairs, threat=threat, **common)
    }


def perform_train(recipe: TrainRecipe, run: RunFolder, *, progress: Reporter) -> Path:
    """Harden a model as the recipe says; an interrupted run goes on from its last checkpoint.

    Returns:
        The folder of the trained model.
    """
    target = run.path / "model"
    if target.is_dir():
        return target
    model = load_model(recipe.model)
    validation = read_pairs(recipe.validation, recipe.max_samples) if recipe.validation is not None else None
    trained = train(
        model,
        read_pairs(recipe.data, recipe.max_samples),
        defence=recipe.defence,
        threat=recipe.threat.build(),
        steps=recipe.steps,
        seed=recipe.seed,
        batch_size=recipe.batch_size,
        learning_rate=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        new_originals=None if recipe.new_originals is None else read_pairs(recipe.new_originals, None),
        validation=validation,
        run=run,
        progress=progress,
        device=choose_device(recipe.device),
        **recipe.options,
    )
    trained.save_pretrained(target)
    return target


@dataclass(frozen=True)
class Certified:
    """What a certify recipe gave: the certificate and the samples it is about."""

    certificate: Certificate
    samples: MultiModalSamples


def perform_certify(recipe: CertifyRecipe, run: RunFolder, *, progress: Reporter) -> Certified:
    """Certify a classifier as the recipe says, training it first if the recipe says how.

    Counts are kept in the run folder; an interrupted run draws only what is missing. Rows and summary go there too.
    """
    samples = read_samples(recipe.data, recipe.max_samples)
    device = choose_device(recipe.device)
    certificate = certify(
        _classifier(recipe, run, device=device, progress=progress),
        samples,
        keep=recipe.keep,
        draws=recipe.draws,
        alpha=recipe.alpha,
        seed=recipe.seed,
        kind=recipe.kind,
        device=device,
        folder=run.path / "counts",
        progress=progress,
    )
    radii = {modality: range(largest + 1) for modality, largest in recipe.radii.items()}
    keep_certificate(run, certificate, label=certificate.model, radii=radii)
    return Certified(certificate, samples)


def keep_certificate(
    run: RunFolder, certificate: Certificate, *, label: str, radii: Mapping[str, Sequence[int]] | None = None
) -> None:
    """Put a certificate into a run: one row per sample that has none yet, and its grid into the summary."""
    known = {row["sample"] for row in run.rows if row.get("section") == f"certificate/{label}"}
    new = [row for row in certificate.rows() if row["sample"] not in known]
    run.rows.append(*({"section": f"certificate/{label}", **row} for row in new))
    run.summarise("certificates", label, certificate_entry(certificate_view(certificate, label=label, radii=radii)))


def _classifier(recipe: CertifyRecipe, run: RunFolder, *, device: str, progress: Reporter) -> Any:
    if recipe.train is None:
        return load_model(recipe.model, device=device)
    folder = run.path / "model"
    if not folder.is_dir():
        row = lookup(MODELS, recipe.model, what="model")
        if row.fresh is None:
            raise ValueError(f"Expected a family that can be trained from nothing, but got {recipe.model!r}.")
        training = read_samples(recipe.train.data, None)
        model = row.fresh(training, seed=recipe.seed)
        train_ablated(
            model,
            training,
            keep=recipe.train.keep or recipe.keep,
            steps=recipe.train.steps,
            seed=recipe.seed,
            device=device,
            progress=progress,
            augment=turn_sensors if recipe.train.turn else None,
            **recipe.train.options,
        )
        model.save_pretrained(folder)
    return load_model(folder, device=device)


def read_pairs(data: Data, max_samples: int | None) -> OneToManyPairs:
    """Load a recipe's pairs, or the first so many images of them."""
    pairs = load_pairs(data.name, split=data.split, **data.options)
    return pairs if max_samples is None else pairs.head(max_samples)


def read_samples(data: Data, max_samples: int | None) -> MultiModalSamples:
    """Load a recipe's samples, or the first so many of them."""
    samples = load_samples(data.name, split=data.split, **data.options)
    return samples if max_samples is None else samples.head(max_samples)
