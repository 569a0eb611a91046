"""What known links gain against the rate of false negatives, over several runs of `photos-study-links`.

    python benchmarks/photo_links.py runs/photos-study-links runs/links-128-250 ...

Each arm "..., links known" is held against "..., extra pairs" of the same run, which had the same batches: a row per
pair of arms, by how many true pairs a step of the latter took for negatives.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

from crossguard.recipes import parse_recipe
from crossguard.recipes.schema import StudyRecipe
from crossguard.recipes.study.perform import read_study
from crossguard.report.words import spread

UNKNOWN, KNOWN = ", extra pairs", ", links known"


def rows_of(run: Path) -> Iterator[tuple[float, list[str]]]:
    """Give the false negatives per image of a batch, and a row's cells, for each pair of arms."""
    settings = json.loads((run / "study.json").read_text(encoding="utf-8"))
    recipe = parse_recipe({**settings, "run": str(run)}, source=str(run))
    assert isinstance(recipe, StudyRecipe)
    for unknown in (name for name in recipe.arms if name.endswith(UNKNOWN)):
        known = unknown.removesuffix(UNKNOWN) + KNOWN
        study = read_study(recipe.model_copy(update={"reference": unknown}))
        found = {row.name: row for table in study.tables for row in table.rows}
        if study.primary is None or not {known, unknown} <= found.keys():
            continue
        row, false = found[known], found[unknown].false_negatives
        gain, figure = (
            row.gains.get(study.primary),
            row.gains_over_samples.get(study.primary, {}).get(f"mean@{study.rank}"),
        )
        if false is None or gain is None:
            continue
        rate = false.mean / recipe.batch_size
        cells = [run.name, unknown.removesuffix(UNKNOWN), str(recipe.originals or "all"), str(recipe.batch_size)]
        cells += [f"{false.mean:.2f}", f"{rate:.3f}", str(found[unknown].recall[study.primary]), str(gain)]
        yield rate, [*cells, "" if figure is None else spread(figure)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    options = parser.parse_args()
    head = ["study", "captions", "originals", "batch", "false negatives per step", "per image", "extra pairs, %"]
    head += ["links known: more, points", "over test groups"]
    print(f"| {' | '.join(head)} |\n{'|---' * len(head)}|")
    for _, cells in sorted(row for run in options.runs for row in rows_of(run)):
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
