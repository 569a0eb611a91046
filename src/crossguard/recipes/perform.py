"""Carry a checked recipe out: build what it names, run it in its run folder, leave rows, summary and report there."""

import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from crossguard.checks import visible
from crossguard.data import (
    MultiModalSamples,
    OneToManyPairs,
    load_expressions,
    load_images,
    load_pairs,
    load_questions,
    load_samples,
)
from crossguard.evaluate import TASKS, Result, evaluate
from crossguard.evaluate.measure import distinct_names
from crossguard.launch import is_main
from crossguard.models import load_model
from crossguard.progress import Reporter
from crossguard.recipes.load import RecipeError
from crossguard.recipes.names import check_names
from crossguard.recipes.schema import CertifyRecipe, Checkpoint, Data, EvaluateRecipe, TableRecipe, TrainRecipe
from crossguard.runs import RunFolder, safe_name
from crossguard.training import train

Settings = EvaluateRecipe | TableRecipe | TrainRecipe | CertifyRecipe


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


def perform_evaluate(recipe: EvaluateRecipe, run: RunFolder | None, *, progress: Reporter) -> dict[str, Result]:
    """Measure a task as the recipe says; an interrupted run goes on where it stopped.

    Args:
        recipe: what to do.
        run: its run folder; None in all but the main one of several processes, which write nothing.
        progress: shows how it goes.

    Returns:
        By model, its result; the first is `recipe.model`.
    """
    task = TASKS.find(recipe.task)
    asked = recipe.attacks or ([] if recipe.attack is None else [recipe.attack])
    names = distinct_names([attack.name for attack in asked])
    attacks = {n: task.make_attack(a.name, a.options) for n, a in zip(names, asked, strict=True)}  # before the data
    data = read_data(recipe.data, recipe.max_samples, reads=task.reads, progress=progress)
    found = {}
    models: list[tuple[str | None, Checkpoint]] = [(None, Checkpoint(source=recipe.model)), *recipe.models.items()]
    for label, checkpoint in models:
        model = load_checkpoint(checkpoint)
        found[label or model.name] = evaluate(
            model,
            data,
            task=recipe.task,
            attack=attacks or None,
            threat=recipe.threat.build() if attacks else None,
            modalities=recipe.modalities,
            seed=recipe.seed,
            batch_size=recipe.batch_size,
            label=label,
            run=run,
            progress=progress,
            device=choose_device(recipe.device),
            probe=recipe.probe,
            save_to=_below(recipe.save_to, label),
            **recipe.options,
        )
    return found


def _below(folder: str | None, label: str | None) -> Path | None:
    """Return the folder of a model's adversarial set: one of its own within for further models."""
    return None if folder is None else Path(folder, *([safe_name(label)] if label else []))


def load_checkpoint(checkpoint: Checkpoint) -> Any:
    """Load a model with the parts that a recipe names."""
    return load_model(
        checkpoint.source,
        base=checkpoint.base,
        tokenizer=checkpoint.tokenizer,
        preprocessing=checkpoint.preprocessing,
    )


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
    """Load a recipe's pairs, or the first so many images of them."""
    pairs: OneToManyPairs = read_data(data, max_samples, reads="pairs", progress=progress)
    return pairs


def read_samples(data: Data, max_samples: int | None) -> MultiModalSamples:
    """Load a recipe's samples, or the first so many of them."""
    samples: MultiModalSamples = read_data(data, max_samples, reads="samples")
    return samples


def read_data(data: Data, max_samples: int | None, *, reads: str, progress: Reporter | None = None) -> Any:
    """Load a recipe's data, or the first so many of them; what the loader noticed goes to standard error.

    Args:
        data: name, split and options.
        max_samples: images, samples or expressions' images at most; None: all.
        reads: "pairs", "images", "samples", "expressions" or "questions".
        progress: where reading is shown.
    """
    more = {"progress": progress} if reads in ("pairs", "images") else {}
    found = _LOADERS[reads](data.name, split=data.split, **more, **data.options)
    tell_notes(data.name, getattr(found, "notes", ()))
    return found if max_samples is None else found.head(max_samples)


def tell_notes(name: str, notes: Iterable[str]) -> None:
    """Say on standard error what a loader noticed: what was left out, merged or taken for something."""
    for note in notes if is_main() else ():
        print(f"note: {visible(name)}: {visible(note)}", file=sys.stderr)


_LOADERS: dict[str, Callable[..., Any]] = {
    "pairs": load_pairs,
    "images": load_images,
    "samples": load_samples,
    "expressions": load_expressions,
    "questions": load_questions,
}
