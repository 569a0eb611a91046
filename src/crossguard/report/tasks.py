"""Other tasks than retrieval in reports: what is shown of a model, also as tables for terminals and programs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.table import Table

from crossguard.evaluate.statistics import Figure, values_of
from crossguard.report.tables import difference_record, figure_record, interval_cell, literal, model_table
from crossguard.report.views import COLUMNS, Difference, Picture, Word
from crossguard.report.words import rests_on

KINDS = {
    "grounding": "Visual grounding",
    "captioning": "Captioning",
    "classification": "Classification",
    "segmentation": "Segmentation",
}
"""The tasks, by the kind of their summaries, as they are headed."""


@dataclass(frozen=True)
class TaskExampleView:
    """One sample before and after.

    Args:
        said: what was asked or written, per line: a title and its words, changed ones marked.
        pictures: each with what it shows.
        lines: further lines of plain text (references).
    """

    said: Sequence[tuple[str, Sequence[Word]]]
    pictures: Sequence[tuple[Picture, str]]
    lines: Sequence[str] = ()


@dataclass(frozen=True)
class TaskView:
    """One model on one task.

    Args:
        kind: a key of `KINDS`.
        label: the model or defence.
        data: the data set and split.
        samples: how many, in words.
        attack: name of the attack, None when only clean figures were measured.
        threat: the threat model in words, "" without attack.
        columns: by what was attacked ("clean", a modality's name, "joint"), by metric, the figure.
        success: by what was attacked, by name of the measure, the attack's success; None where it is not defined.
        notes: what a reader must know.
        examples: a few samples, under the widest attack.
        difference: from the first row on the same data; None for that row itself.
    """

    kind: str
    label: str
    data: str
    samples: str
    attack: str | None
    threat: str
    columns: Mapping[str, Mapping[str, Figure]]
    success: Mapping[str, Mapping[str, Figure | None]]
    notes: Sequence[str] = ()
    examples: Sequence[TaskExampleView] = field(default=())
    difference: Difference | None = None

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics of the clean column, in order."""
        return tuple(self.columns["clean"])


def task_figures(view: TaskView) -> list[Figure | None]:
    """Return every figure of a model's rows."""
    return [figure for part in (*view.columns.values(), *view.success.values()) for figure in part.values()]


def task_columns(views: Sequence[TaskView]) -> tuple[str, ...]:
    """Return the columns that any of the views has: clean, single modalities, joint."""
    found = dict.fromkeys(column for view in views for column in view.columns)
    others = [column for column in found if column not in COLUMNS]
    return tuple(column for column in (*COLUMNS[:-1], *others, COLUMNS[-1]) if column in found)


def task_records(views: Sequence[TaskView]) -> list[dict[str, Any]]:
    """Return one object per model: settings, figures with intervals and attack success by column."""
    return [
        {
            "task": view.kind,
            "model": view.label,
            "data": view.data,
            "samples": view.samples,
            "attack": view.attack,
            "threat": view.threat,
            "figures": {c: {m: f.value for m, f in figures.items()} for c, figures in view.columns.items()},
            "interval": {
                c: {m: None if f.interval is None else [*f.interval] for m, f in figures.items()}
                for c, figures in view.columns.items()
            },
            "success": {c: values_of(measures) for c, measures in view.success.items()},
            "detail": {
                c: {"metrics": figure_record(figures), "success": figure_record(view.success.get(c, {}))}
                for c, figures in view.columns.items()
            },
            "difference": difference_record(view.difference),
            "notes": list(view.notes),
        }
        for view in views
    ]


def task_rich(views: Sequence[TaskView]) -> Table:
    """Return every metric of every model, clean and under attack, with 95 % intervals; then the attack's success."""
    columns = task_columns(views)
    table = model_table("metric", columns)
    for view in views:
        named = literal(view.label)
        for place, metric in enumerate(view.metrics):
            figures = [view.columns.get(column, {}).get(metric) for column in columns]
            table.add_row(named if place == 0 else "", metric, *map(interval_cell, figures), rests_on(figures))
        for name in dict.fromkeys(name for measures in view.success.values() for name in measures):
            found = [view.success.get(column, {}).get(name) for column in columns]
            table.add_row("", name, *map(interval_cell, found), rests_on(found))
    return table
