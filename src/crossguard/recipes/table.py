"""Carry a table out: several models on several sets of pictures, clean and at several budgets, cell by cell."""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import hypot
from typing import Any

from crossguard.evaluate import TASKS, evaluate
from crossguard.evaluate.statistics import Estimate
from crossguard.progress import Reporter
from crossguard.recipes.perform import choose_device, load_checkpoint, read_data
from crossguard.recipes.schema import TableRecipe
from crossguard.runs import RunFolder
from crossguard.threat import LInf, ThreatModel

CLEAN, MEAN = "clean", "mean"


@dataclass(frozen=True)
class Cell:
    """One figure of a table.

    Args:
        model: row.
        data: a set's name, or "mean".
        budget: "clean", "2/255", ...
        value: accuracy in percent.
        low: lower end of its 95 % interval; None where there is none.
        high: upper end.
        samples: pictures.
    """

    model: str
    data: str
    budget: str
    value: float
    low: float | None
    high: float | None
    samples: int


def perform_table(recipe: TableRecipe, run: RunFolder | None, *, progress: Reporter) -> list[Cell]:
    """Measure every model on every set at every budget; what the run holds already is not measured again.

    A mean over sets weighs them equally; its interval takes their errors as independent.

    Returns:
        The cells, row by row; the last ones of a row are its means.
    """
    task = TASKS.find(recipe.task)
    metric = task.headline[0]
    sets = read_sets(recipe, progress=progress)
    threats = {spell_budget(eps): table_threat(recipe, eps) for eps in recipe.eps}
    cells: list[Cell] = []
    for row, checkpoint in recipe.models.items():
        model = load_checkpoint(checkpoint)
        for column, data in sets.items():
            result = evaluate(
                model,
                data,
                task=recipe.task,
                attack={recipe.attack.name: task.make_attack(recipe.attack.name, recipe.attack.options)},
                threat=list(threats.values()),
                label=row if len(sets) == 1 else f"{row} on {column}",
                seed=recipe.seed,
                batch_size=recipe.batch_size,
                run=run,
                progress=progress,
                device=choose_device(recipe.device),
                **recipe.options,
            )
            cells.append(_cell(row, column, CLEAN, _defined(result.figure("clean", metric), column)))
            for budget, threat in threats.items():
                figure = result.of(threat=threat).figure("robust", metric)
                cells.append(_cell(row, column, budget, _defined(figure, column)))
        cells += _means(row, [cell for cell in cells if cell.model == row])
    if run is not None:
        run.summarise("table", recipe.task, {"metric": metric, "cells": [vars(cell) for cell in cells]})
    return cells


def read_sets(recipe: TableRecipe, *, progress: Reporter) -> dict[str, Any]:
    """Load a table's sets, or `max_samples` pictures of each."""
    reads = TASKS.find(recipe.task).reads
    sets = {name: read_data(data, None, reads=reads, progress=progress) for name, data in recipe.sets.items()}
    if recipe.max_samples is None:
        return sets
    return {name: data.draw(recipe.max_samples, seed=recipe.seed) for name, data in sets.items()}


def table_threat(recipe: TableRecipe, eps: float) -> ThreatModel:
    """Return what a table's attack may do at one budget."""
    budgets: dict[str, Any] = {"image": LInf(eps)}
    if recipe.text is not None:
        budgets["text"] = recipe.text.build()
    return ThreatModel(**budgets)


def spell_budget(eps: float) -> str:
    """Return an L-inf budget as the field writes it.

    Example:
        >>> spell_budget(2 / 255), spell_budget(0.5 / 255), spell_budget(0.1)
        ('2/255', '0.5/255', '0.1')
    """
    levels = eps * 255
    nice = Fraction(levels).limit_denominator(8)
    return f"{float(nice):g}/255" if abs(float(nice) - levels) < 1e-9 else f"{eps:g}"


def _defined(figure: Estimate | None, column: str) -> Estimate:
    if figure is None:
        raise ValueError(f"Expected pictures with a class in {column!r}, but got none.")
    return figure


def _cell(model: str, data: str, budget: str, figure: Estimate) -> Cell:
    return Cell(model, data, budget, figure.value, figure.low, figure.high, figure.n)


def _means(model: str, row: list[Cell]) -> list[Cell]:
    means = []
    for budget in dict.fromkeys(cell.budget for cell in row):
        cells = [cell for cell in row if cell.budget == budget]
        value = sum(cell.value for cell in cells) / len(cells)
        low: float | None = None
        high: float | None = None
        ends = [(cell.value - cell.low, cell.high - cell.value) for cell in cells if None not in (cell.low, cell.high)]  # type: ignore[operator]
        if len(ends) == len(cells):
            low = max(0.0, value - hypot(*(down for down, _ in ends)) / len(cells))
            high = min(100.0, value + hypot(*(up for _, up in ends)) / len(cells))
        means.append(Cell(model, MEAN, budget, value, low, high, sum(cell.samples for cell in cells)))
    return means


def as_grid(cells: list[Cell]) -> tuple[list[str], list[list[str]]]:
    """Return headings and lines: a line per model, and per set "clean / 2/255 / 4/255"."""
    found: Mapping[tuple[str, str, str], Cell] = {(cell.model, cell.data, cell.budget): cell for cell in cells}
    columns = list(dict.fromkeys(cell.data for cell in cells))
    budgets = list(dict.fromkeys(cell.budget for cell in cells))
    lines = [
        [model, *(" / ".join(f"{found[model, column, budget].value:.1f}" for budget in budgets) for column in columns)]
        for model in dict.fromkeys(cell.model for cell in cells)
    ]
    return [" / ".join(budgets), *columns], lines
