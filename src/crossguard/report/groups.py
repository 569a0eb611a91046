"""Which results of runs stand in one row: those of one model, on the same data, under the same attack."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from crossguard.checks import visible
from crossguard.evaluate.measure import RESULTS, distinct_names
from crossguard.report.words import ONE_SET, flat
from crossguard.runs import RunFolder
from crossguard.threat import ThreatModel

Entry = Mapping[str, Any]

EARLIER = ("retrieval", "grounding", "captioning", "classification", "segmentation")
"""Where summaries of earlier versions held what was measured."""
_FREE = ("part", "threat", "batch_size", "crossguard", "about", "estimates", "examples", "warnings", "notes")
"""What may differ between the results of a row; budgets and target of the threats are compared apart."""


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

    @property
    def widest(self) -> Entry:
        """The result under the most modalities."""
        return max(self.entries, key=lambda entry: len(entry["threat"] or ()))

    @property
    def columns(self) -> dict[str, tuple[Entry, str]]:
        """By column, the result that holds it and which of its estimates it is.

        What is left under one set for both directions of retrieval is a column of its own where it differs.
        """
        found = {"clean": (self.entries[0], "clean")}
        for entry in self.entries:
            estimates = entry["estimates"]
            if "robust" in estimates:
                found[entry["part"]] = entry, "robust"
            if estimates.get("shared", {}) not in ({}, estimates.get("robust")):
                found[entry["part"] + ONE_SET] = entry, "shared"
        return found


def grouped(runs: Sequence[RunFolder]) -> list[Group]:
    """Return the rows of all results, in the order of the runs.

    Raises:
        ValueError: an earlier version measured a run.
    """
    found = [(run, entries) for run in runs for entries in _rows(_results(run))]
    names = _names(found)
    return [Group(run, name, entries) for (run, entries), name in zip(found, names, strict=True)]


def _results(run: RunFolder) -> list[Entry]:
    summary = run.summary
    if summary.keys() & set(EARLIER):
        raise ValueError(
            f"Expected results of this version of crossguard in {visible(run.path)}, but an earlier one measured that "
            "run: make its tables with that version, or measure again in a new run folder."
        )
    return list(summary.get(RESULTS, {}).values())


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
            joined = [group for group in groups if _clean_of(entries[group[-1]], entry)]
            for group in joined:
                group.insert(0, place)
            if not joined:
                groups.append([place])
    return [[entries[place] for place in group] for group in sorted(groups, key=min)]


def _fit(one: Entry, other: Entry) -> bool:
    """Whether two results under attack are of one row: image alone, text alone and joint of one threat."""
    both = one["threat"].keys() & other["threat"].keys()
    return _settings(one) == _settings(other) and all(one["threat"][name] == other["threat"][name] for name in both)


def _clean_of(attacked: Entry, clean: Entry) -> bool:
    """Whether a result is that of another one without its attack: it lacks what only attacks have."""
    there, here = _settings(attacked), _settings(clean)
    return all(
        name == "seed" or here.get(name, "null") in (there.get(name, "null"), "null", "{}")
        for name in there.keys() | here.keys()
    )


def _settings(entry: Entry) -> dict[str, str]:
    return {name: json.dumps(value, sort_keys=True) for name, value in entry.items() if name not in _FREE}


def _names(found: Sequence[tuple[RunFolder, Sequence[Entry]]]) -> list[str]:
    """Return the label of every row; where several rows of a section have one, with the first facts that tell them
    apart."""
    labels = [(entries[-1]["about"]["heading"], entries[-1]["label"]) for _, entries in found]
    names = [label for _, label in labels]
    for heading, label in dict.fromkeys(labels):
        places = [place for place, other in enumerate(labels) if other == (heading, label)]
        told: list[tuple[str, ...]] = [()] * len(places)
        for fact in _FACTS:
            longer = [(*before, fact(*found[place])) for before, place in zip(told, places, strict=True)]
            if len(set(longer)) > len(set(told)):
                told = longer
        shown = [", ".join(filter(None, facts)) for facts in told]
        apart = distinct_names([f"{label} ({facts})" if facts else label for facts in shown])
        for place, name in zip(places, apart, strict=True):
            names[place] = name
    return names


_FACTS: tuple[Callable[[RunFolder, Sequence[Entry]], str], ...] = (
    lambda run, _: run.path.resolve().name,
    lambda _, entries: f"{entries[-1]['data']} {entries[-1]['split']}",
    lambda _, entries: entries[-1]["attack"] or "clean",
    lambda _, entries: ", ".join(f"{name} {value}" for name, value in flat(entries[-1]["attack_options"]).items()),
    lambda _, entries: f"seed {entries[-1]['seed']}",
    lambda _, entries: "" if entries[-1]["threat"] is None else str(ThreatModel.from_dict(entries[-1]["threat"])),
)
