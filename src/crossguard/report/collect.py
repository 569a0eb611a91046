"""From run folders to what a report shows."""

import shlex
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from crossguard.checks import expanded
from crossguard.evaluate.examples import Example, load_examples
from crossguard.evaluate.statistics import read_estimates, read_figure
from crossguard.report.differences import differences
from crossguard.report.groups import Group, grouped, rows_of
from crossguard.report.views import ONE_SET, Difference, ResultView, RunView
from crossguard.report.words import OWN_SETS, flat
from crossguard.runs import RunFolder
from crossguard.threat import ThreatModel


def open_runs(paths: Sequence[Path | str]) -> list[RunFolder]:
    """Open runs for reading, each once.

    Raises:
        ValueError: no path, or a folder that holds no run.
    """
    if not paths:
        raise ValueError("Expected at least one run folder, but got none.")
    return [RunFolder(path) for path in {expanded(path).resolve(): path for path in paths}.values()]


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


def result_views(runs: Sequence[RunFolder]) -> list[ResultView]:
    """Return one row per task, model, data set and attack of every run, single modalities and joint side by side.

    Raises:
        ValueError: an earlier version measured a run, or its example pictures are missing or damaged.
    """
    groups = grouped(runs)
    found = differences(groups)
    return [_result_view(group, found.get(place)) for place, group in enumerate(groups)]


def views_of(entries: Sequence[Mapping[str, Any]]) -> list[ResultView]:
    """Return rows of results that no run holds, without examples and comparisons."""
    return [_result_view(group, None) for group in rows_of([(None, entries)])]


def _result_view(group: Group, difference: Difference | None) -> ResultView:
    widest = group.widest
    about, settings = widest["about"], {name: widest[name] for name in ("task", "data", "split", "attack", "seed")}
    columns = {
        column: {metric: read_figure(value) for metric, value in entry["estimates"][what].items()}
        for column, (entry, what) in group.columns.items()
    }
    return ResultView(
        **settings,
        facts=group.facts,
        budgets=ThreatModel.from_dict(widest["threat"] or {}),
        heading=about["heading"],
        label=group.name,
        samples=about["samples"],
        threat=_threat(widest),
        headline=tuple(about["headline"]),
        columns={c: {m: figure for m, figure in metrics.items() if figure} for c, metrics in columns.items()},
        success={
            entry["part"]: {
                what: metrics
                for what, metrics in read_estimates(entry["estimates"]).items()
                if what not in ("clean", "robust", "shared")
            }
            for entry in group.entries
            if "robust" in entry["estimates"]
        },
        explained=about["explained"],
        notes=(
            *widest.get("data_notes", ()),
            *widest["notes"],
            *[OWN_SETS for column in columns if column.endswith(ONE_SET)][:1],
        ),
        warnings=tuple(dict.fromkeys(warning for entry in group.entries for warning in entry["warnings"])),
        examples=_examples(group),
        difference=difference,
    )


def _threat(entry: Mapping[str, Any]) -> str:
    """Return a threat in words; which sides are attacked is told where there are queries and a gallery."""
    if entry["threat"] is None:
        return ""
    threat = ThreatModel.from_dict(entry["threat"])
    if "shared" in entry["estimates"] or threat.target != "both":
        return str(threat)
    return ", ".join(f"{modality}: {budget}" for modality, budget in threat.items())


def _examples(group: Group) -> tuple[Example, ...]:
    """Return the examples of the last result under the most modalities that has any."""
    shown = [entry for entry in group.entries if entry["examples"]]
    if not shown or group.run is None:
        return ()
    entry = max(reversed(shown), key=lambda entry: len(entry["threat"] or ()))
    path = group.run.file("examples", entry["task"], entry["label"], f"{entry['part']}.npz")
    return load_examples(entry["examples"], path)


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
