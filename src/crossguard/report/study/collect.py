"""A study's rows, put together: means and intervals over seeds, and differences from the reference."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.stats import t

from crossguard.evaluate.retrieval import CUTS, DIRECTIONS
from crossguard.evaluate.statistics import Estimate, Ratio
from crossguard.report.study.samples import over_samples, sample_figures, sample_gains

METRICS = tuple(f"{direction}@{cut}" for cut in CUTS for direction in DIRECTIONS)
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
        recall: by column, the mean of TR@K and IR@K, in percent; K is the study's.
        gains: by column, how much more of that than the reference of the same seed, in percent points.
        measures: alignment, diversity and gap of its one source, as far as known.
        over_samples: by column and metric ("mean@K" too), the mean over the seeds with its interval over groups of test
            samples.
        gains_over_samples: the same of what it is more than the reference, paired query by query, in percent points.
        steps: training steps, mean over the seeds.
        gflop_per_step: billions of floating-point operations of a step, mean over the seeds.
        images: that it learnt from, mean over the seeds.
        texts: likewise.
        false_negatives: true pairs that a step took for negatives, mean over the seeds.
    """

    name: str
    per_sample: int | None
    sources: tuple[str, ...]
    cells: Mapping[str, Mapping[str, SeedMean]]
    recall: Mapping[str, SeedMean]
    gains: Mapping[str, SeedMean]
    measures: Mapping[str, SeedMean]
    over_samples: Mapping[str, Mapping[str, Estimate]]
    gains_over_samples: Mapping[str, Mapping[str, Estimate]]
    steps: SeedMean | None
    gflop_per_step: SeedMean | None
    images: SeedMean | None
    texts: SeedMean | None
    false_negatives: SeedMean | None


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
        columns: "clean" (on each number of images that attacks judge on), then attacks.
        rows: arms.
        passes: what judging an arm took, by column of an attack.
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
        primary: the column by which arms are compared, if the recipe fixes one.
    """

    settings: Mapping[str, Any]
    tables: tuple[StudyTable, ...]
    images: int
    texts: int
    missing: int
    primary: str | None

    @property
    def rank(self) -> int:
        """K of the recalls that arms are compared by."""
        return _rank(self.settings)


def collect_study(settings: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Study:
    """Put the rows of a study's arms together.

    Args:
        settings: the study's recipe as JSON values.
        rows: of all arms; each with `arm`, `seed` and `section`: "study" (`attack`, `part`, `clean`, `robust`,
            `passes`, of attacks on a gallery `shared`) or "training" (`steps`, `flop_per_step`, `images`, `texts`,
            `false_negatives`); `alignment`, `diversity`, `gap` where known.
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
    most = max(judged, key=lambda row: row["images"], default={"images": 0, "texts": 0})
    primary = settings.get("primary")
    if primary is not None:
        primary = _column(settings, primary["attack"], primary["part"])
    return Study(settings, tables, most["images"], most["texts"], len(wanted - found), primary)


def _rank(settings: Mapping[str, Any]) -> int:
    return (settings.get("primary") or {"rank": 1})["rank"]


def _on(settings: Mapping[str, Any], attack: str) -> str:
    """Return what the name of a column adds where its attack judges on fewer images than others."""
    count = next(
        table["attacks"][attack].get("max_samples")
        for table in settings["tables"].values()
        if attack in table["attacks"]
    )
    return "" if count is None else f" ({count} images)"


def _column(settings: Mapping[str, Any], attack: str, part: str) -> str:
    return f"{attack}, {part}{_on(settings, attack)}"


def _trials(settings: Mapping[str, Any], table: str) -> list[tuple[str, str]]:
    attacks = settings["tables"][table]["attacks"]
    return [(attack, part) for attack, judging in attacks.items() for part in judging["parts"]]


def _table(settings: Mapping[str, Any], name: str, rows: Sequence[Mapping[str, Any]]) -> StudyTable:
    table = settings["tables"][name]
    columns = _columns(settings, name, rows)
    values = {arm: _values(rows, arm, columns) for arm in settings["arms"]}
    queries = {arm: _queries(rows, arm, columns) for arm in settings["arms"]}
    found = []
    for arm, spec in settings["arms"].items():
        if name in spec["tables"] and any(values[arm].values()):
            mine = [row for row in rows if row["arm"] == arm]
            row = _row(arm, spec, mine, values[arm], values[settings["reference"]], _rank(settings))
            found.append(replace(row, **_of_queries(queries[arm], queries[settings["reference"]])))
    passes = _passes(rows, {row.name for row in found}, columns)
    return StudyTable(name, table["title"], table["figure"], tuple(columns), tuple(found), passes)


@dataclass(frozen=True)
class _Column:
    """Where the figures of a column stand: the trials, any of which has them, and the side of their rows."""

    trials: tuple[tuple[str, str], ...]
    side: str


def _columns(settings: Mapping[str, Any], name: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, _Column]:
    """Return a table's columns: clean on each number of images, then the trials, under one set for both directions too
    where there is one."""
    trials = _trials(settings, name)
    sizes = dict.fromkeys(_on(settings, attack) for attack, _ in trials)
    found = {
        f"{CLEAN}{on}": _Column(tuple(trial for trial in trials if _on(settings, trial[0]) == on), CLEAN)
        for on in sorted(sizes)
    }
    shared = {(row["attack"], row["part"]) for row in rows if row["section"] == "study" and "shared" in row}
    for attack, part in trials:
        found[_column(settings, attack, part)] = _Column(((attack, part),), "robust")
        if (attack, part) in shared:
            found[f"{_column(settings, attack, part)}, shared"] = _Column(((attack, part),), "shared")
    return found


def _rows_of(rows: Sequence[Mapping[str, Any]], arm: str, column: _Column) -> dict[int, Mapping[str, Any]]:
    """Return, by seed, a row of an arm that has a column's figures."""
    return {
        row["seed"]: row
        for row in rows
        if row["section"] == "study"
        and row["arm"] == arm
        and (row["attack"], row["part"]) in column.trials
        and column.side in row
    }


def _passes(
    rows: Sequence[Mapping[str, Any]], arms: Collection[str], columns: Mapping[str, _Column]
) -> dict[str, Passes]:
    found = {}
    for name, column in columns.items():
        taken = [row["passes"] for arm in arms for row in _rows_of(rows, arm, column).values()]
        if taken and column.side == "robust":
            per_image, per_text = (float(np.mean([each[side] for each in taken])) for side in ("image", "text"))
            found[name] = Passes(per_image, per_text)
    return found


Values = Mapping[str, Mapping[int, Mapping[str, float]]]
"""By column and seed: metrics in percent."""


def _values(rows: Sequence[Mapping[str, Any]], arm: str, columns: Mapping[str, _Column]) -> Values:
    return {
        name: {seed: row[column.side] for seed, row in _rows_of(rows, arm, column).items()}
        for name, column in columns.items()
    }


Queries = Mapping[str, Mapping[str, Ratio]]
"""By column and metric: test queries, in their groups."""


def _queries(rows: Sequence[Mapping[str, Any]], arm: str, columns: Mapping[str, _Column]) -> Queries:
    """Return, by column and metric, which test queries hit, over the seeds together."""
    return {
        name: over_samples(list(_rows_of(rows, arm, column).values()), column.side) for name, column in columns.items()
    }


def _of_queries(
    mine: Mapping[str, Mapping[str, Ratio]], reference: Mapping[str, Mapping[str, Ratio]]
) -> dict[str, Any]:
    return {
        "over_samples": {column: sample_figures(ratios) for column, ratios in mine.items()},
        "gains_over_samples": {column: sample_gains(ratios, reference[column]) for column, ratios in mine.items()},
    }


def _row(
    name: str, spec: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], values: Values, reference: Values, rank: int
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
        if found := seed_mean([_recall(mine, rank) - _recall(its, rank) for mine, its in pairs]):
            gains[column] = found
    trained = [row for row in rows if row["section"] == "training"]
    measured = {row["seed"]: row for row in rows if row.get("alignment") is not None}
    return StudyRow(
        name=name,
        per_sample=spec["per_sample"] if spec["sources"] else None,
        sources=tuple(source["name"] for source in spec["sources"]),
        cells=cells,
        recall={
            column: found
            for column, by_seed in values.items()
            if (found := seed_mean([_recall(v, rank) for v in by_seed.values()]))
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
        false_negatives=seed_mean([float(row["false_negatives"]) for row in trained]),
    )


def _recall(metrics: Mapping[str, float], rank: int) -> float:
    return (metrics[f"tr@{rank}"] + metrics[f"ir@{rank}"]) / 2
