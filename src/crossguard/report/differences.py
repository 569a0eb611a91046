"""How rows of a table differ on the same samples: the interval of the paired difference, sample by sample."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from crossguard.evaluate.statistics import Estimate, bootstrap_figure
from crossguard.evaluate.tasks import TASKS
from crossguard.report.groups import Entry, Group, beside
from crossguard.report.views import Difference
from crossguard.runs import RunFolder


def differences(groups: Sequence[Group]) -> dict[int, Difference]:
    """Return, by place of a row, how it differs from another row of the same task on the same data.

    That is the first row under the same attack within the same budgets, or else the first within the same budgets; of a
    row without attack the first row of all. Columns that both rows have are compared; clean figures of the same weights
    are the same, and are left out. Of a task that is not in the table (one of somebody's own that was not imported)
    nothing is compared.

    Args:
        groups: the rows of the tables.
    """
    found: dict[int, Difference] = {}
    first: dict[str, Group] = {}
    rows = _Rows()
    for place, group in enumerate(groups):
        entry = group.entries[0]
        if entry["task"] not in TASKS:
            continue
        reference = next((other for key in _alike(group) if (other := first.setdefault(key, group)) is not group), None)
        first.setdefault(_judged(entry), group)
        if reference is None:
            continue
        mine, others = group.columns, reference.columns
        if _weights(entry) == _weights(reference.entries[0]):
            del mine["clean"]
        columns = {
            column: more
            for column, (result, side) in mine.items()
            if column in others and (more := rows.more((group.run, result), (reference.run, others[column][0]), side))
        }
        if columns:
            found[place] = Difference(beside(group, reference), columns)
    return found


def _alike(group: Group) -> list[str]:
    """Return what a row and the one that it is compared with have in common, the most first."""
    widest = group.widest
    within = dict(widest["threat"] or {})
    attack = [widest["attack"], widest.get("attack_label"), widest["attack_options"]]
    judged = _judged(group.entries[0])
    anywhere = [judged] if widest["threat"] is None else []
    return [repr([judged, within, attack]), repr([judged, within]), *anywhere]


def _weights(entry: Entry) -> str:
    return str(entry.get("weights", entry["label"]))


def _judged(entry: Entry) -> str:
    """Return what decides which answers are right; results are compared where it is the same."""
    task, told = TASKS[entry["task"]], {**entry["about"], **entry}
    return repr([task.name, *(told.get(name) for name in task.judged_by)])


class _Rows:
    """The rows of runs by section, each file read once."""

    def __init__(self) -> None:
        self._known: dict[str, dict[str, list[Mapping[str, Any]]]] = {}

    def more(
        self, mine: tuple[RunFolder | None, Entry], other: tuple[RunFolder | None, Entry], side: str
    ) -> dict[str, Estimate]:
        """Return, by metric, how much more one result has on a side than another."""
        if "draws" in mine[1]["about"]:
            return _resampled(mine[1], other[1], side)
        task = TASKS[mine[1]["task"]]
        own, others = (task.ratios(self._of(*result), side) for result in (mine, other))
        found = {metric: ratio.minus(others[metric]) for metric, ratio in own.items() if metric in others}
        return {metric: figure for metric, figure in found.items() if figure is not None}

    def _of(self, run: RunFolder | None, entry: Entry) -> list[Mapping[str, Any]]:
        assert run is not None
        key = str(run.path)
        if key not in self._known:
            by_section: dict[str, list[Mapping[str, Any]]] = {}
            for row in run.read_rows():
                by_section.setdefault(str(row.get("section")), []).append(row)
            self._known[key] = by_section
        task, section = TASKS[entry["task"]], "/".join(str(entry[name]) for name in ("task", "label", "part"))
        by_key = {task.key(row): row for row in self._known[key].get(section, [])}
        return [by_key[name] for name in sorted(by_key)]


def _resampled(mine: Entry, other: Entry, side: str) -> dict[str, Estimate]:
    """Return differences of scores over the same resamples of groups; none where the resamples differ."""
    if mine["seed"] != other["seed"]:
        return {}
    found = {}
    for metric, figure in mine["estimates"][side].items():
        before = other["estimates"][side].get(metric)
        if figure is None or before is None:
            continue
        by_group = None
        if figure["by_group"] is not None:
            by_group = {name: value - before["by_group"][name] for name, value in figure["by_group"].items()}
        own, others = (np.array(entry["about"]["draws"].get(side, {}).get(metric, [])) for entry in (mine, other))
        more = figure["value"] - before["value"]
        counts = {name: figure[name] for name in ("n", "groups")}
        found[metric] = bootstrap_figure(more, own - others, **counts, by_group=by_group)
    return found
