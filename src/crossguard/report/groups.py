"""Which results of runs stand in one row: those of one model, on the same data, under the same attack."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from crossguard.checks import visible
from crossguard.evaluate.measure import RESULTS, distinct_names
from crossguard.report.views import ONE_SET
from crossguard.report.words import flat
from crossguard.runs import RunFolder
from crossguard.threat import ThreatModel

Entry = Mapping[str, Any]

EARLIER = ("retrieval", "grounding", "captioning", "classification", "segmentation")
"""Where summaries of earlier versions held what was measured."""
_FREE = ("label", "part", "threat", "batch_size", "crossguard", "about", "estimates", "examples", "warnings", "notes")
"""What may differ between the results of a row; budgets and target of the threats are compared apart."""


@dataclass(frozen=True)
class Group:
    """Results of one row.

    Args:
        run: the run that holds them; None of results that no run holds.
        name: the model, with whatever else tells the row from others of its section.
        entries: their summaries; a clean one stands in every row of its model and data.
        facts: what may tell rows apart, by what it is; the budgets are those of the widest result.
    """

    run: RunFolder | None
    name: str
    entries: Sequence[Entry]
    facts: Mapping[str, str]

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
    return rows_of([(run, _results(run)) for run in runs])


def rows_of(results: Sequence[tuple[RunFolder | None, Sequence[Entry]]]) -> list[Group]:
    """Return the rows of results, given run by run."""
    found = [(run, entries) for run, every in results for entries in _rows(every)]
    facts, names = _told_apart(found)
    return [Group(run, name, entries, told) for (run, entries), name, told in zip(found, names, facts, strict=True)]


def _results(run: RunFolder) -> list[Entry]:
    summary = run.summary
    if summary.keys() & set(EARLIER):
        raise ValueError(
            f"Expected results of this version of crossguard in {visible(run.path)}, but an earlier one measured that "
            "run: make its tables with that version, or measure again in a new run folder."
        )
    return list(summary.get(RESULTS, {}).values())


def _rows(entries: Sequence[Entry]) -> list[list[Entry]]:
    """Group the results of one run by row.

    A result within the most modalities joins the first row that it fits to; one within fewer of the same budgets
    stands in every row that they are a part of, and a clean one in all rows of its model and data.
    """
    attacked = [place for place, entry in enumerate(entries) if entry["threat"] is not None]
    parts = {p: [w for w in attacked if _part_of(entries[p], entries[w])] for p in attacked}
    groups: list[list[int]] = []
    for place in (place for place in attacked if not parts[place]):
        group = next((g for g in groups if all(_fit(entries[other], entries[place]) for other in g)), None)
        groups.append([place]) if group is None else group.append(place)
    for place, wider in parts.items():
        for group in groups:
            if any(other in group for other in wider):
                group.append(place)
    rows = [(group[0], sorted(group)) for group in groups]
    for place, entry in enumerate(entries):
        if entry["threat"] is None:
            joined = [group for _, group in rows if _clean_of(entries[group[-1]], entry)]
            for group in joined:
                group.insert(0, place)
            if not joined:
                rows.append((place, [place]))
    return [[entries[place] for place in group] for _, group in sorted(rows, key=lambda row: row[0])]


def _part_of(one: Entry, other: Entry) -> bool:
    """Whether a result is within some of another's budgets, of the same model and attack."""
    return _fit(one, other) and one["threat"].keys() < other["threat"].keys()


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
    found = {name: json.dumps(value, sort_keys=True) for name, value in entry.items() if name not in _FREE}
    return {**found, "subject": json.dumps(_model(entry))}


def _model(entry: Entry) -> str:
    return str(entry.get("subject", entry["label"]))


def _told_apart(found: Sequence[tuple[RunFolder | None, Sequence[Entry]]]) -> tuple[list[dict[str, str]], list[str]]:
    """Return what tells each row from the others of its section, and its name: the model and what differs."""
    facts = [_facts(entries) for _, entries in found]
    headings = [entries[-1]["about"]["heading"] for _, entries in found]
    names = [told["model"] for told in facts]
    for heading in dict.fromkeys(headings):
        places = [place for place, other in enumerate(headings) if other == heading]
        for place, options in zip(places, _options([found[place][1] for place in places]), strict=True):
            facts[place]["options"] = options
        shown = differing([facts[place] for place in places])
        found_names = [", ".join(_spelled(facts[place], ("model", *shown))) for place in places]
        runs = [_folder(found[place][0]) for place in places]
        for place, name, run in zip(places, found_names, runs, strict=True):
            names[place] = name
            if found_names.count(name) > 1 and len(set(runs)) > 1:
                facts[place]["run"] = run
                names[place] = f"{name} ({run})"
        for place, name in zip(places, distinct_names([names[place] for place in places]), strict=True):
            names[place] = name
    return facts, names


def _folder(run: RunFolder | None) -> str:
    return "" if run is None else run.path.resolve().name


_FIRST, _LAST = ("data", "attack", "options", "image", "text"), ("attacked", "seed", "run")
"""The order in which facts are told; budgets of other modalities come between."""


def _place(fact: str) -> int:
    if fact in _LAST:
        return len(_FIRST) + 1 + _LAST.index(fact)
    return _FIRST.index(fact) if fact in _FIRST else len(_FIRST)


def differing(facts: Sequence[Mapping[str, str]]) -> tuple[str, ...]:
    """Return the facts, beside the model, that have several values among rows; rows without one are passed over.

    Example:
        >>> differing([{"model": "a", "attack": "sga", "seed": "0"}, {"model": "a", "attack": "pgd", "seed": "0"}])
        ('attack',)
    """
    names = sorted({name: 0 for told in facts for name in told if name != "model"}, key=_place)
    return tuple(name for name in names if len({told[name] for told in facts if told.get(name)}) > 1)


_PLAIN = ("model", "data", "attack", "attacked", "options", "image", "text")
"""Facts whose value says by itself what it is."""


def _spelled(facts: Mapping[str, str], names: Sequence[str]) -> list[str]:
    return [facts[name] if name in _PLAIN else f"{name} {facts[name]}" for name in names if facts.get(name)]


def _facts(entries: Sequence[Entry]) -> dict[str, str]:
    told = {"model": _model(entries[-1]), "data": f"{entries[-1]['data']} {entries[-1]['split']}"}
    threats = [ThreatModel.from_dict(entry["threat"]) for entry in entries if entry["threat"] is not None]
    if not threats:
        return told
    entry = entries[-1]
    budgets = {modality: str(budget) for threat in threats for modality, budget in threat.items()}
    ordered = sorted(budgets, key=lambda modality: (modality != "image", modality != "text"))
    sides = {"both": "both sides", "query": "queries only", "gallery": "gallery only"}
    return {
        **told,
        "attack": str(entry.get("attack_label") or entry["attack"]),
        **{modality: budgets[modality] for modality in ordered},
        "attacked": sides[threats[0].target],
        "seed": str(entry["seed"]),
    }


def _options(found: Sequence[Sequence[Entry]]) -> list[str]:
    """Return, by row, the options of its attack that other rows have otherwise under the same attack."""
    flats = [flat(entries[-1]["attack_options"]) for entries in found]
    attacks = [entries[-1]["attack"] for entries in found]
    told = []
    for attack, own in zip(attacks, flats, strict=True):
        alike = [other for name, other in zip(attacks, flats, strict=True) if name == attack]
        keys = [key for key in own if any(other.get(key) != own[key] for other in alike)]
        told.append(", ".join(f"{key} {own[key]}" for key in keys))
    return told


def beside(group: Group, other: Group) -> str:
    """Return what a row is called beside one that it is compared with: the model, where that alone is another."""
    same = all(group.facts.get(name) == value for name, value in other.facts.items() if name not in ("model", "run"))
    return other.facts["model"] if same and group.facts["model"] != other.facts["model"] else other.name
