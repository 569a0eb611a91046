"""How an arm of a study is judged: clean, and under every attack of its tables."""

from collections.abc import Collection, Iterable
from typing import Any

from crossguard.attacks import make_attack
from crossguard.attacks.gallery import GalleryAttack
from crossguard.data import OneToManyPairs
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


def judged_by(recipe: StudyRecipe, attack: str, test: OneToManyPairs) -> OneToManyPairs:
    """Return the pairs that an attack judges on: all that judge, or evenly spread images of them."""
    most = recipe.judging[attack].max_samples
    return test if most is None else test.spread(most)


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
    for name, part in missing:
        asked, pairs = recipe.attacks[name], judged_by(recipe, name, test)
        attack = make_attack(asked.name, **asked.options)
        with count_passes(model) as passes:
            result = evaluate(
                model,
                pairs,
                attack=attack,
                threat=part_of(threat, part),
                seed=recipe.seed,
                batch_size=recipe.batch_size,
                progress=progress,
                device=device,
                examples=0,
            )
        row: dict[str, Any] = {"section": SECTION, "attack": name, "part": part}
        row |= {"images": len(pairs.images), "texts": len(pairs.texts)}
        row |= {"clean": result.clean, "robust": result.robust}
        if isinstance(attack, GalleryAttack):  # another set for each direction, and one for both
            row["shared"] = result.shared
        row |= {"ranks": _ranks(result, row.keys()), "groups": [found.tolist() for found in pairs.groups]}
        per = {"image": passes.images / len(pairs.images), "text": passes.texts / len(pairs.texts)}
        run.rows.append({**row, "passes": per})


def _ranks(result: Result, known: Collection[str]) -> dict[str, dict[str, list[int]]]:
    """Return the rank of every query, by side and direction."""
    return {
        side: {d: [row[f"{side}_rank"] for row in result.rows if row["direction"] == d] for d in DIRECTIONS}
        for side in ("clean", "robust", "shared")
        if side in known
    }


def done_trials(rows: Iterable[dict[str, Any]]) -> set[Trial]:
    """Return the trials that have a row."""
    return {(row["attack"], row["part"]) for row in rows if row.get("section") == SECTION}


def part_of(threat: ThreatModel, part: str) -> ThreatModel:
    """Return what a part of the threat allows: "image", "text" or "joint"."""
    return threat if part == "joint" else threat.only(part)
