"""Carry a study out: every arm and seed in a run folder of its own, then tables, figures and a report.

The arms are independent of each other, so several processes may work on one study: each takes the next arm that no
other one has open.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crossguard.augment import read_measures
from crossguard.data import OneToManyPairs
from crossguard.models import load_model
from crossguard.progress import Reporter
from crossguard.recipes.load import RecipeError
from crossguard.recipes.names import check_names
from crossguard.recipes.perform import choose_device
from crossguard.recipes.schema import StudyArm, StudyRecipe
from crossguard.recipes.study.arms import Material, arm_pairs, augmentation_folder, draw_material, step_cost, train_arm
from crossguard.recipes.study.judge import SECTION, Trial, done_trials, held_out, judge, trials
from crossguard.report.study import Study, collect_study
from crossguard.runs import RunBusy, RunFolder, differences, read_rows, write_json


@dataclass(frozen=True)
class _Task:
    name: str
    arm: StudyArm
    seed: int

    def folder(self, recipe: StudyRecipe) -> Path:
        return Path(recipe.run) / "arms" / self.name.replace("/", "-") / f"seed-{self.seed}"


@dataclass(frozen=True)
class _Study:
    """What all tasks of a study have in common; what depends on the seed is made once for each."""

    recipe: StudyRecipe
    test: OneToManyPairs
    device: str
    progress: Reporter
    command: Sequence[str] | None
    materials: dict[int, Material] = field(default_factory=dict)
    reference_costs: dict[int, float] = field(default_factory=dict)

    def material(self, seed: int) -> Material:
        if seed not in self.materials:
            self.materials[seed] = draw_material(self.recipe, seed)
        return self.materials[seed]


def perform_study(recipe: StudyRecipe, *, progress: Reporter, command: Sequence[str] | None = None) -> Study:
    """Train and judge what is still missing of a study, and put its tables together as far as it got.

    Returns:
        The tables; arms that another process has open are not in them yet.

    Raises:
        RecipeError: a name that no table holds.
        ValueError: the folder holds a study with other settings (each difference is named), or too few images.
    """
    problems = check_names(recipe)
    if problems:
        raise RecipeError(recipe.run, problems)
    study = _Study(recipe, held_out(recipe), choose_device(recipe.device), progress, command)
    study.material(recipe.seeds[0])  # too few images are told before the folder is begun
    _take_up(recipe)
    tasks = [
        _Task(name, arm, seed)
        for seed in recipe.seeds
        for name, arm in recipe.arms.items()
        # The model as it came is the same for every seed.
        if arm.defence is not None or seed == recipe.seeds[0]
    ]
    with progress.task("study", total=len(tasks)) as bar:
        for task in tasks:
            _carry_out(study, task)
            bar.advance(note=f"{task.name}, seed {task.seed}")
    return read_study(recipe)


def read_study(recipe: StudyRecipe) -> Study:
    """Put the tables of a study together from what its folder holds."""
    rows = []
    for name, arm in recipe.arms.items():
        for seed in recipe.seeds:
            folder = _Task(name, arm, seed).folder(recipe)
            measures = _measures(recipe, arm, seed)
            rows += [
                {**row, "arm": name, "seed": seed, **measures}
                for row in read_rows(folder / "rows.jsonl")
                if row.get("section") in (SECTION, "training")
            ]
    settings = recipe.model_dump(mode="json", exclude={"device"})
    return collect_study(settings, rows)


def _take_up(recipe: StudyRecipe) -> None:
    """Begin the study's folder, or check that it holds this one; arms and tables may have been added since."""
    path = Path(recipe.run) / "study.json"
    wanted = recipe.model_dump(mode="json", exclude={"device", "run"})
    if path.exists():
        there = json.loads(path.read_text(encoding="utf-8"))
        free = {"tables", "arms", "seeds"}
        changed = differences(
            {key: value for key, value in there.items() if key not in free},
            {key: value for key, value in wanted.items() if key not in free},
        )
        if changed:
            raise ValueError(
                f"Expected the settings of the study in {recipe.run}, but they differ: {'; '.join(changed)}."
            )
    write_json(path, wanted)


def _carry_out(study: _Study, task: _Task) -> None:
    """Train and judge one arm and seed, as far as that is missing and no other process is at it."""
    recipe, device = study.recipe, study.device
    folder = task.folder(recipe)
    if not _missing(recipe, task, read_rows(folder / "rows.jsonl")):
        return
    try:
        run = RunFolder.open(
            folder, settings=_settings(recipe, task), seed=task.seed, device=device, command=study.command
        )
    except RunBusy:
        return
    with run:
        missing = _missing(recipe, task, run.read_rows())
        if task.arm.defence is not None:
            if not (run.path / "model").is_dir():
                _train(study, task, run)
            shutil.rmtree(run.file(f"checkpoint-{task.arm.defence}"), ignore_errors=True)
        if missing:
            model = load_model(recipe.model if task.arm.defence is None else run.path / "model", device=device)
            judge(recipe, model, study.test, missing, run=run, progress=study.progress, device=device)
        run.finish()


def _missing(recipe: StudyRecipe, task: _Task, rows: list[dict[str, Any]]) -> list[Trial]:
    done = done_trials(rows)
    return [trial for trial in trials(recipe, task.arm) if trial not in done]


def _train(study: _Study, task: _Task, run: RunFolder) -> None:
    """Train an arm for as many steps as cost what the reference's cost."""
    recipe, seed = study.recipe, task.seed
    material = study.material(seed)
    common: dict[str, Any] = {"seed": seed, "device": study.device, "progress": study.progress}
    reference = recipe.arms[recipe.reference]
    if seed not in study.reference_costs:
        pairs = arm_pairs(recipe, reference, material, **common)
        study.reference_costs[seed] = step_cost(recipe, reference, material, pairs, device=study.device)
    allowed = study.reference_costs[seed]
    pairs = arm_pairs(recipe, task.arm, material, **common)
    cost = allowed if task.arm == reference else step_cost(recipe, task.arm, material, pairs, device=study.device)
    steps = max(1, round(recipe.steps * allowed / cost))
    model = train_arm(recipe, task.arm, material, pairs, steps=steps, run=run, **common)
    # Before the model: an arm with a model is not trained again.
    if not any(row.get("section") == "training" for row in run.read_rows()):
        row = {"section": "training", "flop_per_step": cost, "steps": steps}
        run.rows.append({**row, "images": len(pairs.images), "texts": len(pairs.texts)})
    model.save_pretrained(run.path / "model")


def _settings(recipe: StudyRecipe, task: _Task) -> dict[str, Any]:
    """Return what decides an arm's outcome; in which tables it stands does not."""
    shared = recipe.model_dump(mode="json", exclude={"run", "device", "tables", "arms", "seeds"})
    return {**shared, "arm": task.arm.model_dump(mode="json", exclude={"tables"})}


def _measures(recipe: StudyRecipe, arm: StudyArm, seed: int) -> dict[str, Any]:
    """Return the measures of an arm's source, where it has exactly one and that has been made."""
    if len(arm.sources) != 1:
        return {}
    try:
        measured = read_measures(augmentation_folder(recipe, arm, seed))
    except ValueError:  # not made yet
        return {}
    found = next(row for row in measured if row.source == arm.sources[0])
    return {"alignment": found.alignment, "diversity": found.diversity, "gap": found.gap}
