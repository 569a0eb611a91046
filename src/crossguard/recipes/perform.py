"""Carry a checked recipe out: build what it names, run it in its run folder, leave rows, summary and report there."""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from crossguard.attacks import make_attack
from crossguard.checks import visible
from crossguard.data import MultiModalSamples, OneToManyPairs, load_pairs, load_samples
from crossguard.evaluate import CaptioningResult, GroundingResult, RetrievalResult, SamplesResult, evaluate
from crossguard.evaluate.several import distinct_names, evaluate_attacks
from crossguard.models import load_model
from crossguard.progress import Reporter
from crossguard.recipes.load import RecipeError
from crossguard.recipes.names import check_names
from crossguard.recipes.perform_tasks import perform_captioning, perform_grounding, perform_samples
from crossguard.recipes.schema import CertifyRecipe, Data, EvaluateRecipe, TrainRecipe
from crossguard.runs import RunFolder
from crossguard.training import train

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


def perform_evaluate(
    recipe: EvaluateRecipe, run: RunFolder, *, progress: Reporter
) -> dict[str, RetrievalResult] | dict[str, GroundingResult] | dict[str, CaptioningResult] | dict[str, SamplesResult]:
    """Measure a task as the recipe says; an interrupted run goes on where it stopped.

    Returns:
        By what is attacked (a modality, "joint", or "clean" without attack); of several attacks, by the attack's
        name and that ("pgd image").
    """
    if recipe.task == "grounding":
        return perform_grounding(recipe, run, device=choose_device(recipe.device), progress=progress)
    if recipe.task == "samples":
        samples = read_samples(recipe.data, recipe.max_samples)
        return perform_samples(recipe, run, samples, device=choose_device(recipe.device), progress=progress)
    pairs = read_pairs(recipe.data, recipe.max_samples, progress=progress)
    if recipe.task == "captioning":
        return perform_captioning(recipe, run, pairs, device=choose_device(recipe.device), progress=progress)
    model = load_model(recipe.model)
    common: dict[str, Any] = {
        "seed": recipe.seed,
        "batch_size": recipe.batch_size,
        "rerank": recipe.rerank,
        "run": run,
        "progress": progress,
        "device": choose_device(recipe.device),
    }
    asked = recipe.attacks or ([] if recipe.attack is None else [recipe.attack])
    if not asked:
        return {"clean": evaluate(model, pairs, **common)}
    names = distinct_names([attack.name for attack in asked])
    results = evaluate_attacks(
        model,
        pairs,
        attacks={n: make_attack(a.name, **a.options) for n, a in zip(names, asked, strict=True)},
        threat=recipe.threat.build() or None,
        modalities=recipe.modalities,
        probe=recipe.probe,
        save_to=recipe.save_to,
        **common,
    )
    if len(results) == 1:
        return next(iter(results.values()))
    return {f"{name} {part}": result for name, parts in results.items() for part, result in parts.items()}


def perform_train(recipe: TrainRecipe, run: RunFolder | None, *, progress: Reporter) -> Path:
    """Harden a model as the recipe says; an interrupted run goes on from its last checkpoint.

    Args:
        recipe: what to do.
        run: its run folder; None in all but the main one of several processes, which write nothing.
        progress: shows how it goes.

    Returns:
        The folder of the trained model.
    """
    target = (Path(recipe.run) if run is None else run.path) / "model"
    if target.is_dir():
        return target
    model = load_model(recipe.model)
    validation = None
    if recipe.validation is not None:
        validation = read_pairs(recipe.validation, recipe.max_samples, progress=progress)
    trained = train(
        model,
        read_pairs(recipe.data, recipe.max_samples, progress=progress),
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
    if run is not None:
        trained.save_pretrained(target)
    return target


def read_pairs(data: Data, max_samples: int | None, *, progress: Reporter | None = None) -> OneToManyPairs:
    """Load a recipe's pairs, or the first so many images of them; what the loader noticed goes to standard error."""
    pairs = load_pairs(data.name, split=data.split, progress=progress, **data.options)
    tell_notes(data.name, pairs.notes)
    return pairs if max_samples is None else pairs.head(max_samples)


def read_samples(data: Data, max_samples: int | None) -> MultiModalSamples:
    """Load a recipe's samples, or the first so many of them; what the loader noticed goes to standard error."""
    samples = load_samples(data.name, split=data.split, **data.options)
    tell_notes(data.name, samples.notes)
    return samples if max_samples is None else samples.head(max_samples)


def tell_notes(name: str, notes: Iterable[str]) -> None:
    """Say on standard error what a loader noticed: what was left out, merged or taken for something."""
    for note in notes:
        print(f"note: {visible(name)}: {visible(note)}", file=sys.stderr)
