"""A study's tables as Markdown."""

from collections.abc import Iterator, Mapping, Sequence

from crossguard.evaluate.retrieval import CUTS
from crossguard.evaluate.statistics import Estimate
from crossguard.report.study.collect import SeedMean, Study, StudyRow, StudyTable
from crossguard.report.words import rests_on, spread


def study_markdown(study: Study) -> str:
    """Return every table: recalls at 1, 5 and 10 by attack, differences from the reference, cost, and measures."""
    settings = study.settings
    seeds = ", ".join(str(seed) for seed in settings["seeds"])
    lines = [
        f"Model {settings['model']}; {originals(study)}, a text drawn for each; judged on {study.images} images and "
        f"{study.texts} texts {judging(study)}. Seeds {seeds}: mean ± half of the 95 % interval over seeds (Student's "
        "t); the images that judge are the same for all.",
    ]
    if study.missing:
        lines += ["", f"{study.missing} trials are still missing."]
    lines += _primary(study)
    for table in study.tables:
        lines += ["", f"## {table.title}", *_table(table, settings["reference"], settings["batch_size"], study.rank)]
    return "\n".join(lines) + "\n"


def originals(study: Study) -> str:
    """Return what a study trains on, in words."""
    count, data = study.settings["originals"], study.settings["data"]
    return f"{'all' if count is None else f'{count:,}'} originals of {data['name']} ({data['split']})"


def judging(study: Study) -> str:
    """Return where the images that judge are from, in words."""
    test = study.settings["test"]
    return f"held out of {study.settings['data']['name']}" if test is None else f"of {test['name']} ({test['split']})"


def primary_rows(study: Study) -> dict[str, StudyRow]:
    """Return the arms that have the figure that a study compares by, by name."""
    rows = (row for table in study.tables for row in table.rows)
    return {row.name: row for row in rows if study.primary in row.recall}


def _primary(study: Study) -> Iterator[str]:
    column = study.primary
    if column is None:
        return
    yield from (
        "",
        f"## The figure that was fixed beforehand: mean of TR@{study.rank} and IR@{study.rank} under {column}",
        "",
    )
    mean, reference = f"mean@{study.rank}", study.settings["reference"]
    yield from _grid(
        ("", "%", "over test groups", f"more than {reference!r}, points", "over test groups"),
        [
            [
                row.name,
                str(row.recall[column]),
                _spread(row.over_samples, column, mean),
                _signed(row.gains.get(column)) if row.name != reference else "",
                _spread(row.gains_over_samples, column, mean) if row.name != reference else "",
            ]
            for row in primary_rows(study).values()
        ],
    )


def _spread(figures: Mapping[str, Mapping[str, Estimate]], column: str, metric: str) -> str:
    found = figures.get(column, {}).get(metric)
    return "" if found is None else spread(found)


def _signed(gain: SeedMean | None) -> str:
    if gain is None:
        return ""
    return f"{gain.mean:+.1f}" + ("" if gain.half is None else f" ± {gain.half:.1f}")


def _table(table: StudyTable, reference: str, batch_size: int, rank: int) -> Iterator[str]:
    if not table.rows:
        yield from ("", "No result yet.")
        return
    for cut in CUTS:
        yield from ("", f"TR@{cut} / IR@{cut}, %", "")
        yield from _grid(
            ("", *table.columns),
            [[row.name, *(_both(row, column, cut) for column in table.columns)] for row in table.rows],
        )
    yield from (
        "",
        f"Mean of TR@{rank} and IR@{rank}, and what it is more than {reference!r} of the same seed, points",
        "",
    )
    yield from _grid(
        ("", *table.columns),
        [
            [row.name, *(_gain(row.recall.get(column), row.gains.get(column)) for column in table.columns)]
            for row in table.rows
        ],
    )
    if told := [row for row in table.rows if any(row.over_samples.values())]:
        title = (
            f"TR@{rank} / IR@{rank} over the seeds together, with 95 % intervals over groups of test images and texts"
        )
        yield from ("", f"{title}{_rests_on(told[0])}, %", "")
        yield from _grid(
            ("", *table.columns),
            [[row.name, *(_pair(row.over_samples.get(c, {}), rank, "") for c in table.columns)] for row in told],
        )
        yield from ("", f"What they are more than {reference!r}, paired query by query, points", "")
        yield from _grid(
            ("", *table.columns),
            [
                [row.name, *(_pair(row.gains_over_samples.get(c, {}), rank, "+") for c in table.columns)]
                for row in told
                if row.name != reference
            ],
        )
    if trained := [row for row in table.rows if row.steps is not None]:
        yield from ("", "What was learnt from, and cost", "")
        yield from _grid(
            ("", "images", "texts", "false negatives per step", "GFLOP per step", "steps", "visits of an image"),
            [
                [
                    row.name,
                    *(f"{_mean(count):,.0f}" for count in (row.images, row.texts)),
                    f"{_mean(row.false_negatives):.2f}",
                    f"{_mean(row.gflop_per_step):.1f}",
                    f"{_mean(row.steps):.0f}",
                    f"{_mean(row.steps) * batch_size / _mean(row.images):.1f}",
                ]
                for row in trained
            ],
        )
    if table.passes:
        yield from ("", "Passes of the attacks through the encoders, ways back included, mean over arms", "")
        yield from _grid(
            ("", *table.passes),
            [
                ["per image", *(f"{passes.per_image:,.0f}" for passes in table.passes.values())],
                ["per text", *(f"{passes.per_text:,.0f}" for passes in table.passes.values())],
            ],
        )
    if measured := [row for row in table.rows if row.measures]:
        keys = ("alignment", "diversity", "gap")
        yield from ("", "Measures of the sources", "")
        yield from _grid(("", *keys), [[row.name, *(_measure(row.measures, key) for key in keys)] for row in measured])


def _grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield "| " + " | ".join(head) + " |"
    yield "|---" * len(head) + "|"
    for row in rows:
        yield "| " + " | ".join(row) + " |"


def _both(row: StudyRow, column: str, cut: int) -> str:
    cells = row.cells.get(column)
    return f"{cells[f'tr@{cut}']} / {cells[f'ir@{cut}']}" if cells else ""


def _gain(value: SeedMean | None, gain: SeedMean | None) -> str:
    if value is None:
        return ""
    return f"{value}" if gain is None else f"{value.mean:.1f} ({_signed(gain)})"


def _pair(figures: Mapping[str, Estimate], rank: int, sign: str) -> str:
    """Return both directions with their intervals, or values by group."""
    shown = [figures[metric] for metric in (f"tr@{rank}", f"ir@{rank}") if metric in figures]
    return " / ".join(f"{figure.value:{sign}.1f} ({spread(figure)})" for figure in shown)


def _rests_on(row: StudyRow) -> str:
    """Return how many queries and groups the figures of a row rest on."""
    figures = next(figures for figures in row.over_samples.values() if figures)
    return f" (n / groups: {rests_on([figures['tr@1']])} images, {rests_on([figures['ir@1']])} texts)"


def _mean(value: SeedMean | None) -> float:
    return float("nan") if value is None else value.mean


def _measure(measures: Mapping[str, SeedMean], key: str) -> str:
    return f"{measures[key].mean:.3f}" if key in measures else ""
