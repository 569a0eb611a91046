"""A study's rows, put together: means and intervals over seeds, and differences from the reference."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.stats import t

from crossguard.evaluate.statistics import Estimate, Ratio
from crossguard.report.study.samples import over_samples, sample_figures, sample_gains

METRICS = ("tr@1", "ir@1", "tr@5", "ir@5", "tr@10", "ir@10")
CLEAN = "clean"


@dataclass(frozen=True)
class SeedMean:
    """A mean over seeds and half the width of its 95 % interval (Student's t); no width from fewer than two seeds."""

    mean: float
    half: float | None
    seeds: int

    def __str__(self) -> str:
        return f"{self.mean:.1f}" if self.half is None else f"{self.mean:.1f} ± {self.half:.1f}"


def seed_mean(values: Sequence[float]) -> SeedMean | None:
    """Return the mean of independent values and half of its 95 % interval; None without values.

    Example:
        >>> str(seed_mean([1.0, 2.0, 3.0]))
        '2.0 ± 2.5'
    """
    if not values:
        return None
    count = len(values)
    half = None
    if count > 1:
        half = float(t.ppf(0.975, count - 1) * np.std(values, ddof=1) / np.sqrt(count))
    return SeedMean(float(np.mean(values)), half, count)


@dataclass(frozen=True)
class StudyRow:
    """One arm in a table.

    Args:
        name: the arm.
        per_sample: samples of each augmentation source per item; None without sources.
        sources: its augmentation sources.
        cells: by column ("clean", "sga, joint", ...) and metric, in percent.
        robust_at_1: by column, the mean of TR@1 and IR@1, in percent.
        gains: by column, how much more of that than the reference of the same seed, in percent points.
        measures: alignment, diversity and gap of its one source, as far as known.
        over_samples: by column and metric, the mean over the seeds with its interval over groups of test samples.
        gains_over_samples: the same of what it is more than the reference, paired query by query, in percent points.
        steps: training steps, mean over the seeds.
        gflop_per_step: billions of floating-point operations of a step, mean over the seeds.
        images: that it learnt from, mean over the seeds.
        texts: likewise.
    """

    name: str
    per_sample: int | None
    sources: tuple[str, ...]
    cells: Mapping[str, Mapping[str, SeedMean]]
    robust_at_1: Mapping[str, SeedMean]
    gains: Mapping[str, SeedMean]
    measures: Mapping[str, SeedMean]
    over_samples: Mapping[str, Mapping[str, Estimate]]
    gains_over_samples: Mapping[str, Mapping[str, Estimate]]
    steps: SeedMean | None
    gflop_per_step: SeedMean | None
    images: SeedMean | None
    texts: SeedMean | None


@dataclass(frozen=True)
class Passes:
    """What judging took: how often an image and a text went through the model, ways back included, mean over arms."""

    per_image: float
    per_text: float


@dataclass(frozen=True)
class StudyTable:
    """One table: its arms, in order, by what they were judged by.

    Args:
        name: of the table.
        title: for people.
        figure: what its figure shows, if it has one.
        columns: "clean", then attacks.
        rows: arms.
        passes: what judging an arm took, by column; without "clean".
    """

    name: str
    title: str
    figure: str | None
    columns: tuple[str, ...]
    rows: tuple[StudyRow, ...]
    passes: Mapping[str, Passes]


@dataclass(frozen=True)
class Study:
    """All tables of a study, as far as it has got.

    Args:
        settings: of the study.
        tables: in order.
        images: images that judge.
        texts: texts that judge.
        missing: trainings and trials of the recipe that have no result yet.
    """

    settings: Mapping[str, Any]
    tables: tuple[StudyTable, ...]
    images: int
    texts: int
    missing: int


def collect_study(settings: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Study:
    """Put the rows of a study's arms together.

    Args:
        settings: the study's recipe as JSON values.
        rows: of all arms; each with `arm`, `seed` and `section`: "study" (`attack`, `part`, `clean`, `robust`,
            `passes`) or "training" (`steps`, `flop_per_step`, `images`, `texts`); `alignment`, `diversity`, `gap`
            where known.
    """
    judged = [row for row in rows if row["section"] == "study"]
    tables = tuple(_table(settings, name, rows) for name in settings["tables"])
    wanted = {
        (name, seed, *trial)
        for name, arm in settings["arms"].items()
        for seed in (settings["seeds"] if arm["defence"] else settings["seeds"][:1])
        for table in arm["tables"]
        for trial in _trials(settings, table)
    }
    found = {(row["arm"], row["seed"], row["attack"], row["part"]) for row in judged}
    last = judged[-1] if judged else {"images": 0, "texts": 0}
    return Study(settings, tables, last["images"], last["texts"], len(wanted - found))


def _trials(settings: Mapping[str, Any], table: str) -> list[tuple[str, str]]:
    attacks = settings["tables"][table]["attacks"]
    return [(attack, part) for attack, judging in attacks.items() for part in judging["parts"]]


def _table(settings: Mapping[str, Any], name: str, rows: Sequence[Mapping[str, Any]]) -> StudyTable:
    table = settings["tables"][name]
    trials = _trials(settings, name)
    columns = (CLEAN, *(f"{attack}, {part}" for attack, part in trials))
    values = {arm: _values(rows, arm, trials) for arm in settings["arms"]}
    queries = {arm: _queries(rows, arm, trials) for arm in settings["arms"]}
    found = []
    for arm, spec in settings["arms"].items():
        if name in spec["tables"] and values[arm][CLEAN]:
            mine = [row for row in rows if row["arm"] == arm]
            row = _row(arm, spec, mine, values[arm], values[settings["reference"]])
            found.append(replace(row, **_of_queries(queries[arm], queries[settings["reference"]])))
    passes = _passes(rows, {row.name for row in found}, trials)
    return StudyTable(name, table["title"], table["figure"], columns, tuple(found), passes)


def _passes(
    rows: Sequence[Mapping[str, Any]], arms: Collection[str], trials: Sequence[tuple[str, str]]
) -> dict[str, Passes]:
    found = {}
    for trial in trials:
        taken = [
            row["passes"]
            for row in rows
            if row["section"] == "study" and row["arm"] in arms and (row["attack"], row["part"]) == trial
        ]
        if taken:
            per_image, per_text = (float(np.mean([each[side] for each in taken])) for side in ("image", "text"))
            found[", ".join(trial)] = Passes(per_image, per_text)
    return found


Values = Mapping[str, Mapping[int, Mapping[str, float]]]
"""By column and seed: metrics in percent."""


def _values(rows: Sequence[Mapping[str, Any]], arm: str, trials: Sequence[tuple[str, str]]) -> Values:
    values: dict[str, dict[int, Mapping[str, float]]] = {CLEAN: {}}
    values |= {f"{attack}, {part}": {} for attack, part in trials}
    for row in rows:
        if row["arm"] == arm and row["section"] == "study":
            values[CLEAN][row["seed"]] = row["clean"]
            if (row["attack"], row["part"]) in trials:
                values[f"{row['attack']}, {row['part']}"][row["seed"]] = row["robust"]
    return values


Queries = Mapping[str, Mapping[str, Ratio]]
"""By column and metric: test queries, in their groups."""


def _queries(rows: Sequence[Mapping[str, Any]], arm: str, trials: Sequence[tuple[str, str]]) -> Queries:
    """Return, by column and metric, which test queries hit, over the seeds together."""
    mine = [row for row in rows if row["arm"] == arm and row["section"] == "study"]
    clean = {row["seed"]: row for row in mine}
    found = {CLEAN: over_samples(list(clean.values()), "clean")}
    for attack, part in trials:
        chosen = [row for row in mine if (row["attack"], row["part"]) == (attack, part)]
        found[f"{attack}, {part}"] = over_samples(chosen, "robust")
    return found


def _of_queries(
    mine: Mapping[str, Mapping[str, Ratio]], reference: Mapping[str, Mapping[str, Ratio]]
) -> dict[str, Any]:
    return {
        "over_samples": {column: sample_figures(ratios) for column, ratios in mine.items()},
        "gains_over_samples": {column: sample_gains(ratios, reference[column]) for column, ratios in mine.items()},
    }


def _row(
    name: str, spec: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], values: Values, reference: Values
) -> StudyRow:
    cells = {
        column: {metric: found for metric in METRICS if (found := seed_mean([v[metric] for v in by_seed.values()]))}
        for column, by_seed in values.items()
    }
    gains = {}
    for column, by_seed in values.items():
        # The model as it came has one result, which is compared with every seed of the reference.
        other = reference[column]
        pairs = [
            (by_seed[seed] if seed in by_seed else next(iter(by_seed.values())), other[seed])
            for seed in other
            if by_seed and (seed in by_seed or spec["defence"] is None)
        ]
        if found := seed_mean([_at_1(mine) - _at_1(its) for mine, its in pairs]):
            gains[column] = found
    trained = [row for row in rows if row["section"] == "training"]
    measured = {row["seed"]: row for row in rows if row.get("alignment") is not None}
    return StudyRow(
        name=name,
        per_sample=spec["per_sample"] if spec["sources"] else None,
        sources=tuple(spec["sources"]),
        cells=cells,
        robust_at_1={
            column: found
            for column, by_seed in values.items()
            if (found := seed_mean([_at_1(v) for v in by_seed.values()]))
        },
        gains=gains,
        measures={
            key: found
            for key in ("alignment", "diversity", "gap")
            if (found := seed_mean([row[key] for row in measured.values() if row[key] is not None]))
        },
        over_samples={},
        gains_over_samples={},
        steps=seed_mean([float(row["steps"]) for row in trained]),
        gflop_per_step=seed_mean([row["flop_per_step"] / 1e9 for row in trained]),
        images=seed_mean([float(row["images"]) for row in trained]),
        texts=seed_mean([float(row["texts"]) for row in trained]),
    )


def _at_1(metrics: Mapping[str, float]) -> float:
    return (metrics["tr@1"] + metrics["ir@1"]) / 2
