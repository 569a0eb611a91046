"""How an arm of a study is judged: clean, and under every attack of its tables."""

from collections.abc import Iterable
from typing import Any

from crossguard.attacks import make_attack
from crossguard.data import OneToManyPairs, load_pairs
from crossguard.evaluate import Result, evaluate
from crossguard.evaluate.retrieval import DIRECTIONS
from crossguard.models import VisionLanguageModel
from crossguard.progress import Reporter
from crossguard.recipes.schema import StudyArm, StudyRecipe
from crossguard.recipes.study.passes import count_passes
from crossguard.runs import RunFolder
from crossguard.threat import ThreatModel

SECTION = "study"

Trial = tuple[str, str]
"""An attack and the part of the threat that it is run under: "image", "text" or "joint"."""


def trials(recipe: StudyRecipe, arm: StudyArm) -> list[Trial]:
    """Return what an arm goes through, each trial once, in the order of the tables."""
    wanted = [
        (attack, part)
        for table in arm.tables
        for attack, judging in recipe.tables[table].attacks.items()
        for part in judging.parts
    ]
    return list(dict.fromkeys(wanted))


def held_out(recipe: StudyRecipe) -> OneToManyPairs:
    """Load the pairs that judge: the split, or evenly spread images of it with all their texts."""
    pairs = load_pairs(recipe.test.name, split=recipe.test.split, **recipe.test.options)
    return pairs if recipe.max_samples is None else pairs.spread(recipe.max_samples)


def judge(
    recipe: StudyRecipe,
    model: VisionLanguageModel,
    test: OneToManyPairs,
    missing: list[Trial],
    *,
    run: RunFolder,
    progress: Reporter,
    device: str,
) -> None:
    """Run the missing trials and append a row of each to the arm's run."""
    threat = recipe.threat.build()
    groups = [found.tolist() for found in test.groups]
    for name, part in missing:
        asked = recipe.attacks[name]
        with count_passes(model) as passes:
            result = evaluate(
                model,
                test,
                attack=make_attack(asked.name, **asked.options),
                threat=part_of(threat, part),
                seed=recipe.seed,
                batch_size=recipe.batch_size,
                progress=progress,
                device=device,
                examples=0,
            )
        row = {"section": SECTION, "attack": name, "part": part, "images": len(test.images), "texts": len(test.texts)}
        row |= {"clean": result.clean, "robust": result.robust, "ranks": _ranks(result), "groups": groups}
        per = {"image": passes.images / len(test.images), "text": passes.texts / len(test.texts)}
        run.rows.append({**row, "passes": per})


def _ranks(result: Result) -> dict[str, dict[str, list[int]]]:
    """Return the rank of every query, by side and direction."""
    return {
        side: {d: [row[f"{side}_rank"] for row in result.rows if row["direction"] == d] for d in DIRECTIONS}
        for side in ("clean", "robust")
    }


def done_trials(rows: Iterable[dict[str, Any]]) -> set[Trial]:
    """Return the trials that have a row."""
    return {(row["attack"], row["part"]) for row in rows if row.get("section") == SECTION}


def part_of(threat: ThreatModel, part: str) -> ThreatModel:
    """Return what a part of the threat allows: "image", "text" or "joint"."""
    return threat if part == "joint" else threat.only(part)
