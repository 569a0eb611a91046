"""How rows of a table differ on the same samples: the interval of the paired difference, sample by sample."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from crossguard.evaluate.grounding_result import GroundingResult
from crossguard.evaluate.result import RetrievalResult
from crossguard.evaluate.retrieval import DIRECTIONS
from crossguard.evaluate.samples_result import SamplesResult
from crossguard.evaluate.statistics import Figure, Ratio, bootstrap_figure
from crossguard.report.groups import Group
from crossguard.report.views import Difference
from crossguard.report.words import ONE_SET
from crossguard.runs import RunFolder

Entry = Mapping[str, Any]
Rows = Sequence[Mapping[str, Any]]
Ratios = Mapping[str, Ratio]


def differences(kind: str, groups: Sequence[Group]) -> dict[int, Difference]:
    """Return, by place of a row, how it differs from the first row on the same data.

    Columns that both rows have are compared; clean figures of the same weights are the same, and are left out.

    Args:
        kind: of the results.
        groups: the rows of the table.
    """
    found: dict[int, Difference] = {}
    first: dict[str, Group] = {}
    rows = _Rows()
    for place, group in enumerate(groups):
        reference = first.setdefault(_data(group.entries[0]), group)
        if reference is group:
            continue
        mine, others = (_columns(one, kind, rows) for one in (group, reference))
        same = group.entries[0]["weights"] == reference.entries[0]["weights"]
        columns = {
            column: more
            for column, figures in mine.items()
            if column in others and not (same and column == "clean") and (more := figures(others[column]))
        }
        if columns:
            found[place] = Difference(reference.name, columns)
    return found


class _Rows:
    """The rows of runs by section, each file read once."""

    def __init__(self) -> None:
        self._known: dict[str, dict[str, list[Mapping[str, Any]]]] = {}

    def of(self, run: RunFolder, section: str) -> Rows:
        key = str(run.path)
        if key not in self._known:
            by_section: dict[str, list[Mapping[str, Any]]] = {}
            for row in run.read_rows():
                by_section.setdefault(str(row.get("section")), []).append(row)
            self._known[key] = by_section
        return self._known[key].get(section, [])


def _data(entry: Entry) -> str:
    return repr([entry.get(name) for name in ("content", "positive", "tokenizer")])


class _Scores:
    """What a column holds of one row: ratios, or scores over resamples of the groups."""

    def __init__(self, entry: Entry, side: str, ratios: Callable[[], Ratios] | None) -> None:
        self.entry, self.side, self.ratios = entry, side, ratios

    def __call__(self, other: "_Scores") -> dict[str, Figure]:
        """Return, by metric, how much more this has than another."""
        if self.ratios is not None and other.ratios is not None:
            mine, others = self.ratios(), other.ratios()
            found = {metric: ratio.minus(others[metric]) for metric, ratio in mine.items() if metric in others}
            return {metric: figure for metric, figure in found.items() if figure is not None}
        if self.entry["seed"] != other.entry["seed"]:
            return {}  # other resamples
        known = self.entry["figures"][self.side]
        return {metric: self._resampled(other, metric) for metric in known if metric in other.entry[other.side]}

    def _resampled(self, other: "_Scores", metric: str) -> Figure:
        mine, others = ((s.entry["draws"].get(s.side, {}).get(metric, [])) for s in (self, other))
        figure, before = (s.entry["figures"][s.side][metric] for s in (self, other))
        by_group = None
        if figure["by_group"] is not None:
            by_group = {name: value - before["by_group"][name] for name, value in figure["by_group"].items()}
        more = figure["value"] - before["value"]
        values = np.array(mine) - np.array(others)
        return bootstrap_figure(more, values, n=figure["n"], groups=figure["groups"], by_group=by_group)


def _columns(group: Group, kind: str, rows: _Rows) -> dict[str, _Scores]:
    found = {"clean": _scores(group, group.entries[0], "clean", kind, rows)}
    for entry in group.entries:
        if entry["robust"] is not None:
            found[entry["part"]] = _scores(group, entry, "robust", kind, rows)
        if entry.get("shared") != entry["robust"] and kind == "retrieval":
            found[entry["part"] + ONE_SET] = _scores(group, entry, "shared", kind, rows)
    return found


def _scores(group: Group, entry: Entry, side: str, kind: str, rows: _Rows) -> _Scores:
    if kind == "captioning":
        return _Scores(entry, side, None)
    return _Scores(entry, side, lambda: _ratios(group.run, entry, side, kind, rows))


def _ratios(run: RunFolder, entry: Entry, side: str, kind: str, rows: _Rows) -> Ratios:
    name = f"{entry['label']}/{entry['part']}"
    found = rows.of(run, name if kind == "retrieval" else f"{kind}/{name}")
    if kind == "retrieval":
        known = {(row["direction"], row["index"]): row for row in found}
        ordered = [known[key] for direction in DIRECTIONS for key in sorted(k for k in known if k[0] == direction)]
        return RetrievalResult(ordered, entry).ratios(side)
    if kind == "grounding":
        return GroundingResult(sorted(found, key=lambda row: int(row["index"])), entry).ratios(side)
    return SamplesResult(sorted(found, key=lambda row: int(row["sample"])), entry).ratios(side)
