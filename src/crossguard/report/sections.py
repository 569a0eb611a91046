"""The results of a report by section, and their tables: the same lines for the page and the terminal."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from crossguard.evaluate.statistics import Estimate
from crossguard.report.groups import differing
from crossguard.report.views import ResultView
from crossguard.report.words import SUCCESS, columns_of, measure_title, metric_title, missing_intervals, rests_on

Cells = Mapping[str, Estimate | None]


@dataclass(frozen=True)
class Line:
    """One line of a table: a figure of one model, by what was attacked.

    Args:
        name: the metric or measure; "" where it is that of the line above.
        label: the row's name.
        row: the model, and the row's values of the facts that differ among rows.
        less: the row that it is compared with; "" where it is not.
        figures: one per column of the table; None where one is not defined or was not measured.
    """

    name: str
    label: str
    row: tuple[str, ...]
    less: str
    figures: tuple[Estimate | None, ...]

    @property
    def rests_on(self) -> str:
        """Numbers of samples and groups."""
        return rests_on(self.figures)


@dataclass(frozen=True)
class FigureTable:
    """Figures of all models of a section, a block of lines for each metric or measure.

    Args:
        columns: what was attacked.
        lines: one per metric and model.
        facts: what tells rows apart beside the model ("attack", "image", ...).
        signed: whether they are differences.
    """

    columns: tuple[str, ...]
    lines: tuple[Line, ...]
    facts: tuple[str, ...] = ()
    signed: bool = False


@dataclass(frozen=True)
class OverviewLine:
    """One row with all figures of the headline: the model and what differs, the figures, and the threat in words."""

    row: tuple[str, ...]
    figures: tuple[Estimate | None, ...]
    threat: str


@dataclass(frozen=True)
class Overview:
    """A line per row of a section; `columns` holds (metric, what was attacked)."""

    facts: tuple[str, ...]
    columns: tuple[tuple[str, str], ...]
    lines: tuple[OverviewLine, ...]

    @property
    def threats(self) -> tuple[str, ...]:
        """The threats of the lines, each once."""
        return tuple(dict.fromkeys(line.threat for line in self.lines))


@dataclass(frozen=True)
class Section:
    """Everything that is shown under one heading.

    Args:
        heading: of the task.
        views: its models; at least one.
    """

    heading: str
    views: tuple[ResultView, ...]

    @cached_property
    def facts(self) -> tuple[str, ...]:
        """What tells the rows apart beside the model."""
        return differing([view.facts for view in self.views])

    @cached_property
    def under(self) -> str:
        """The attack and the budgets, where all rows have them in common, in words; "" without attack."""
        attacked = [view for view in self.views if view.attack]
        threats = {view.threat for view in attacked}
        attacks = {view.facts.get("attack", view.attack) for view in attacked}
        told = [f"attack {attack}" for attack in attacks if len(attacks) == 1]
        return "; ".join([*told, *(threat for threat in threats if len(threats) == 1)])

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """What was attacked, of any of the models."""
        return columns_of(self.views)

    @cached_property
    def headline(self) -> tuple[str, ...]:
        """The metrics that are shown first."""
        known = {metric for view in self.views for metric in view.columns["clean"]}
        return tuple(dict.fromkeys(m for view in self.views for m in view.headline if m in known)) or self.metrics

    @cached_property
    def metrics(self) -> tuple[str, ...]:
        """All metrics."""
        return tuple(dict.fromkeys(m for view in self.views for found in view.columns.values() for m in found))

    def figures(self, *, more: bool = False) -> FigureTable:
        """Return the headline's figures; with `more`, those of all other metrics."""
        wanted = self._wanted(more)
        return self._table([(metric_title(m), [_cells(v.columns, m) for v in self.views]) for m in wanted])

    def success(self, *, more: bool = False) -> FigureTable:
        """Return the attack's success in the headline, and measures of the task's own; with `more`, the rest."""
        found = dict.fromkeys(
            (measure, metric)
            for view in self.views
            for measures in view.success.values()
            for measure, metrics in measures.items()
            for metric in metrics
        )
        first = [
            (measure, metric)
            for measure, metric in found
            if (measure in SUCCESS and metric in self.headline) or metric not in self.metrics
        ]
        blocks = []
        for measure, metric in [pair for pair in found if pair not in first] if more else first:
            rows = [_cells({c: s.get(measure, {}) for c, s in view.success.items()}, metric) for view in self.views]
            blocks.append((measure_title(measure, metric), rows))
        return self._table(blocks)

    def differences(self, *, more: bool = False) -> FigureTable:
        """Return how models differ from the first one in the headline; with `more`, in all other metrics."""
        columns = [{} if view.difference is None else view.difference.columns for view in self.views]
        blocks = [(metric_title(m), [_cells(found, m) for found in columns]) for m in self._wanted(more)]
        return self._table(blocks, signed=True)

    @property
    def explained(self) -> list[str]:
        """What the metrics say."""
        return [said for said in dict.fromkeys(view.explained for view in self.views) if said]

    @property
    def missing(self) -> list[str]:
        """Why there are figures without an interval."""
        return missing_intervals(figure for view in self.views for figure in view.every_figure)

    @property
    def notes(self) -> list[tuple[str, str]]:
        """What a reader must know, each note once, with the models that it is about; "" where it is about all."""
        found: dict[str, list[str]] = {}
        for view in self.views:
            for note in dict.fromkeys(view.notes):
                found.setdefault(note, []).append(view.label)
        return [("" if len(labels) == len(self.views) else ", ".join(labels), note) for note, labels in found.items()]

    @property
    def warnings(self) -> list[tuple[str, str]]:
        """Signs that figures say less than they seem to, with the models that they are about."""
        return [(view.label, warning) for view in self.views for warning in view.warnings]

    def _wanted(self, more: bool) -> Sequence[str]:
        return [metric for metric in self.metrics if metric not in self.headline] if more else self.headline

    def _table(self, blocks: Iterable[tuple[str, Sequence[Cells]]], *, signed: bool = False) -> FigureTable:
        """Return the lines of those models that have a figure, and the columns that hold any."""
        kept = [
            (name, [(view, row) for view, row in zip(self.views, rows, strict=True) if row]) for name, rows in blocks
        ]
        used = {column for _, rows in kept for _, row in rows for column in row}
        columns = tuple(column for column in self.columns if column in used)
        lines = tuple(
            Line(
                name if place == 0 else "",
                view.label,
                (view.model, *(view.facts.get(fact, "") for fact in self.facts)),
                view.difference.reference if signed and view.difference is not None else "",
                tuple(row.get(column) for column in columns),
            )
            for name, rows in kept
            for place, (view, row) in enumerate(rows)
        )
        return FigureTable(columns, lines, self.facts, signed)

    def overview(self) -> "Overview":
        """Return every headline figure of a row in one line, to be sorted and filtered."""
        pairs = [(metric, column) for metric in self.headline for column in self.columns]
        used = [(m, c) for m, c in pairs if any(m in view.columns.get(c, {}) for view in self.views)]
        lines = tuple(
            OverviewLine(
                (view.model, *(view.facts.get(fact, "") for fact in self.facts)),
                tuple(view.columns.get(column, {}).get(metric) for metric, column in used),
                view.threat,
            )
            for view in self.views
        )
        return Overview(("model", *self.facts), tuple(used), lines)


def sections(views: Sequence[ResultView]) -> list[Section]:
    """Return views by heading, in the order of their first appearance, retrieval first."""
    ordered = sorted(views, key=lambda view: view.task != "retrieval")
    headings = dict.fromkeys(view.heading for view in ordered)
    return [Section(heading, tuple(view for view in ordered if view.heading == heading)) for heading in headings]


def _cells(columns: Mapping[str, Cells], metric: str) -> Cells:
    return {column: figures[metric] for column, figures in columns.items() if metric in figures}
