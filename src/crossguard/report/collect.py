"""From run folders to what a report shows."""

import shlex
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from crossguard.evaluate.examples import Example, Examples
from crossguard.evaluate.statistics import read_figure
from crossguard.report.differences import differences
from crossguard.report.groups import grouped
from crossguard.report.views import (
    Asked,
    Difference,
    ExampleView,
    GalleryView,
    Hit,
    RetrievalView,
    RunView,
    Share,
)
from crossguard.report.words import ONE_SET, flat, marked_words
from crossguard.runs import RunFolder
from crossguard.threat import ThreatModel


def open_runs(paths: Sequence[Path | str]) -> list[RunFolder]:
    """Open runs for reading, each once.

    Raises:
        ValueError: no path, or a folder that holds no run.
    """
    if not paths:
        raise ValueError("Expected at least one run folder, but got none.")
    return [RunFolder(path) for path in {Path(path).expanduser().resolve(): path for path in paths}.values()]


def run_views(runs: Sequence[RunFolder]) -> list[RunView]:
    """Return the settings of runs, as `run.json` holds them."""
    names = _distinct([_short_name(run) for run in runs], [str(run.path) for run in runs])
    views = []
    for name, run in zip(names, runs, strict=True):
        info = run.info
        facts = {
            **flat(info["settings"]),
            **flat({"seed": info["seed"], "device": info["device"], "command": _typed(info["command"])}),
            "started": _moment(info["started"]),
            "finished": _moment(info["finished"]) if info["finished"] else "not finished",
            **flat({"taken up again": [_moment(time) for time in info["resumed"]]}),
            **flat({"git revision": info["git"], "version": info["versions"]}),
        }
        views.append(RunView(name, facts))
    return views


def retrieval_views(runs: Sequence[RunFolder]) -> list[RetrievalView]:
    """Return one row per model, data set and attack of every run, single modalities and joint side by side."""
    groups = grouped(runs, "retrieval")
    found = differences("retrieval", groups)
    return [_retrieval_view(group.name, group.entries, found.get(place)) for place, group in enumerate(groups)]


def gallery_views(runs: Sequence[RunFolder]) -> list[GalleryView]:
    """Return the examples of every row under its widest threat.

    Raises:
        ValueError: a run's example pictures are missing or damaged.
    """
    galleries = []
    for group in grouped(runs, "retrieval"):
        shown = [entry for entry in group.entries if entry["examples"] is not None]
        if not shown:
            continue
        entry = max(reversed(shown), key=lambda entry: len(entry["threat"]))
        threat = ThreatModel.from_dict(entry["threat"])
        path = group.run.file("examples", entry["label"], f"{entry['part']}.npz")
        examples = Examples.load(entry["examples"], path)
        galleries.append(
            GalleryView(
                title=group.name,
                attack=f"{entry['attack']}, {threat}",
                examples=[
                    _example_view(example, examples, threat)
                    for example in sorted(examples.queries, key=lambda example: example.direction)  # pictures first
                ],
            )
        )
    return [gallery for gallery in galleries if gallery.examples]


def _retrieval_view(label: str, entries: Sequence[Mapping[str, Any]], difference: Difference | None) -> RetrievalView:
    first = entries[0]
    columns = {"clean": _shares(first, "clean")}
    success = {}
    widest: Mapping[str, Any] | None = None
    for entry in entries:
        if entry["robust"] is None:
            continue
        columns[entry["part"]] = _shares(entry, "robust")
        if entry["shared"] != entry["robust"]:
            columns[entry["part"] + ONE_SET] = _shares(entry, "shared")
        success[entry["part"]] = {
            definition: {metric: read_figure(value) for metric, value in entry["figures"][definition].items()}
            for definition in ("conditional", "drop")
        }
        if widest is None or len(entry["threat"]) > len(widest["threat"]):
            widest = entry
    return RetrievalView(
        label=label,
        data=first["data"],
        split=first["split"],
        images=first["images"],
        texts=first["texts"],
        attack=None if widest is None else widest["attack"],
        threat="" if widest is None else str(ThreatModel.from_dict(widest["threat"])),
        seed=(widest or first)["seed"],
        columns=columns,
        success=success,
        warnings=tuple(dict.fromkeys(warning for entry in entries for warning in entry.get("warnings", ()))),
        difference=difference,
    )


def _shares(entry: Mapping[str, Any], figure: str) -> dict[str, Share]:
    return {metric: Share(**value) for metric, value in entry["figures"][figure].items()}


def _example_view(example: Example, examples: Examples, threat: ThreatModel) -> ExampleView:
    asked_under_attack, gallery_under_attack = threat.target != "gallery", threat.target != "query"
    clean_asked, attacked_asked = _asked(example, examples, attacked=asked_under_attack)
    picture_under_attack = asked_under_attack if example.direction == "tr" else gallery_under_attack
    subject = example.query if example.direction == "tr" else example.right[0]
    return ExampleView(
        before=clean_asked,
        after=attacked_asked,
        found_before=[_hit(example, examples, index, attacked=False) for index in example.before],
        found_after=[_hit(example, examples, index, attacked=gallery_under_attack) for index in example.after],
        picture=examples.pictures[subject] if picture_under_attack and "image" in threat else None,
    )


def _asked(example: Example, examples: Examples, *, attacked: bool) -> tuple[Asked, Asked]:
    if example.direction == "tr":
        clean, adversarial = examples.pictures[example.query]
        return Asked(picture=clean), Asked(picture=adversarial if attacked else clean)
    clean_text, adversarial_text = examples.texts[example.query]
    before, after = marked_words(clean_text, adversarial_text if attacked else clean_text)
    return Asked(words=before), Asked(words=after)


def _hit(example: Example, examples: Examples, index: int, *, attacked: bool) -> Hit:
    right = index in example.right
    if example.direction == "ir":
        return Hit(right, picture=examples.pictures[index][int(attacked)])
    clean, adversarial = examples.texts[index]
    return Hit(right, words=marked_words(clean, adversarial if attacked else clean)[1])


def _short_name(run: RunFolder) -> str:
    return run.path.resolve().name


def _typed(command: Sequence[str]) -> str:
    """Return a command line as typed, without the folder that the program lies in."""
    return shlex.join([Path(command[0]).name, *command[1:]]) if command else ""


def _moment(time: str) -> str:
    return datetime.fromisoformat(time).astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _distinct(names: Sequence[str], longer: Sequence[str]) -> list[str]:
    """Return the names, with the longer form wherever a name comes twice."""
    return [name if names.count(name) == 1 else full for name, full in zip(names, longer, strict=True)]
