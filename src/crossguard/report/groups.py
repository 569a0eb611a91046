"""Which results of runs stand in one row: those of one model, on the same data, under the same attack."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from crossguard.evaluate.several import distinct_names
from crossguard.report.words import flat
from crossguard.runs import RunFolder
from crossguard.threat import ThreatModel

Entry = Mapping[str, Any]

_MEASURED = (
    *("label", "weights", "content"),
    *("rerank", "layer", "beams", "min_length", "max_length", "prompt", "positive"),
)
"""Settings that clean results have in common, by the tasks that have them."""
_ATTACKED = ("attack", "attack_options", "objective", "storage", "seed")
"""Settings that results under attack have in common besides, with the target and the budgets of their threats."""


@dataclass(frozen=True)
class Group:
    """Results of one row.

    Args:
        run: the run that holds them.
        name: the label, with what tells the row from others of the same label.
        entries: their summaries; a clean one stands in every row of its model and data.
    """

    run: RunFolder
    name: str
    entries: Sequence[Entry]


def grouped(runs: Sequence[RunFolder], kind: str) -> list[Group]:
    """Return the rows of a kind of results, in the order of the runs."""
    found = [(run, entries) for run in runs for entries in _rows(list(run.summary.get(kind, {}).values()))]
    names = _names(found)
    return [Group(run, name, entries) for (run, entries), name in zip(found, names, strict=True)]


def _rows(entries: Sequence[Entry]) -> list[list[Entry]]:
    """Group the results of one run: each under attack joins the first that it fits to, each clean one all of these."""
    groups: list[list[int]] = []
    for place, entry in enumerate(entries):
        fitting = (group for group in groups if all(_fit(entries[other], entry) for other in group))
        if entry["threat"] is not None:
            group = next(fitting, None)
            groups.append([place]) if group is None else group.append(place)
    for place, entry in enumerate(entries):
        if entry["threat"] is None:
            joined = [group for group in groups if _key(entries[group[-1]], _MEASURED) == _key(entry, _MEASURED)]
            for group in joined:
                group.insert(0, place)
            if not joined:
                groups.append([place])
    return [[entries[place] for place in group] for group in sorted(groups, key=min)]


def _fit(one: Entry, other: Entry) -> bool:
    """Whether two results under attack are of one row: image alone, text alone and joint of one threat."""
    both = one["threat"].keys() & other["threat"].keys()
    return _key(one, (*_MEASURED, *_ATTACKED)) == _key(other, (*_MEASURED, *_ATTACKED)) and all(
        one["threat"][name] == other["threat"][name] for name in both
    )


def _key(entry: Entry, names: Sequence[str]) -> str:
    return json.dumps([entry.get(name) for name in names], sort_keys=True)


def _names(found: Sequence[tuple[RunFolder, Sequence[Entry]]]) -> list[str]:
    """Return the label of every row; where several rows have one, with the first facts that tell them apart."""
    labels = [entries[-1]["label"] for _, entries in found]
    names = list(labels)
    for label in dict.fromkeys(labels):
        places = [place for place, other in enumerate(labels) if other == label]
        told: list[tuple[str, ...]] = [()] * len(places)
        for fact in _FACTS:
            longer = [(*before, fact(*found[place])) for before, place in zip(told, places, strict=True)]
            if len(set(longer)) > len(set(told)):
                told = longer
        for place, facts in zip(places, told, strict=True):
            shown = ", ".join(filter(None, facts))
            names[place] = f"{label} ({shown})" if shown else label
    return distinct_names(names)


_FACTS: tuple[Callable[[RunFolder, Sequence[Entry]], str], ...] = (
    lambda run, _: run.path.resolve().name,
    lambda _, entries: f"{entries[-1]['data']} {entries[-1]['split']}",
    lambda _, entries: entries[-1]["attack"] or "clean",
    lambda _, entries: ", ".join(f"{name} {value}" for name, value in flat(entries[-1]["attack_options"]).items()),
    lambda _, entries: f"seed {entries[-1]['seed']}",
    lambda _, entries: "" if entries[-1]["threat"] is None else str(ThreatModel.from_dict(entries[-1]["threat"])),
)
