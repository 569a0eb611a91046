"""Carry a study out: every arm and seed in a run folder of its own, then tables, figures and a report.

The arms are independent of each other, so several processes may work on one study: each takes the next arm that no
other one has open, and trains and judges it as a single process does.
"""

import json
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from crossguard.augment import read_measures
from crossguard.data import OneToManyPairs
from crossguard.launch import alone, is_main, launched
from crossguard.models import load_model
from crossguard.progress import Reporter
from crossguard.recipes.load import RecipeError
from crossguard.recipes.names import check_names
from crossguard.recipes.perform import choose_device
from crossguard.recipes.schema import StudyArm, StudyRecipe
from crossguard.recipes.study.arms import arranged_pairs, augmentation_folder, count_false_negatives, train_arm
from crossguard.recipes.study.judge import SECTION, judge
from crossguard.recipes.study.pairs import load_judging
from crossguard.recipes.study.plan import StudyPlan, plan_work
from crossguard.recipes.study.threads import given_threads
from crossguard.recipes.study.work import Task, Work, tasks_of
from crossguard.report.study import Study, collect_study
from crossguard.runs import RunBusy, RunFolder, differences, read_rows, write_json
from crossguard.world import own_device

_PATIENCE = 2.0  # seconds between looks at what other processes have open

_NO_PART_OF_AN_ARM = {"run", "device", "tables", "arms", "seeds", "primary", "only"}


def perform_study(
    recipe: StudyRecipe,
    *,
    progress: Reporter,
    command: Sequence[str] | None = None,
    announce: Callable[[StudyPlan], None] = lambda plan: None,
) -> Study:
    """Train and judge what is still missing of a study, and put its tables together as far as it got.

    Args:
        recipe: of the study.
        progress: counts the trainings.
        command: what was typed; default: `sys.argv`.
        announce: is told what will be done and what it costs, before the first training.

    Returns:
        The tables; arms that another process has open are not in them yet, unless all were launched together: then
        the main one waits for the others.

    Raises:
        RecipeError: a name that no table holds.
        ValueError: the folder holds a study with other settings (each difference is named), or too few images.
    """
    problems = check_names(recipe)
    if problems:
        raise RecipeError(recipe.run, problems)
    main, several = is_main(), launched() > 1
    device = str(own_device(choose_device(recipe.device)))
    with alone():
        work, test = Work(recipe, device, progress), load_judging(recipe)
        work.material(recipe.seeds[0])  # too few images are told before the folder is begun
        _take_up(recipe)
        if main:
            announce(plan_work(recipe, work))
        tasks = tasks_of(recipe)
        with given_threads(recipe, work.device), progress.task("study", total=len(tasks)) as bar:
            for task in tasks:
                _carry_out(work, task, test, command)
                bar.advance(note=f"{task.name}, seed {task.seed}")
            while several and main and (left := [task for task in tasks if task.missing(recipe)]):
                time.sleep(_PATIENCE)
                for task in left:  # those of a process that has ended meanwhile
                    _carry_out(work, task, test, command)
    return read_study(recipe)


def read_study(recipe: StudyRecipe) -> Study:
    """Put the tables of a study together from what its folder holds."""
    rows = []
    for name, arm in recipe.arms.items():
        for seed in recipe.seeds:
            folder = Task(name, arm, seed).folder(recipe)
            measures = _measures(recipe, arm, seed)
            rows += [
                {**row, "arm": name, "seed": seed, **measures}
                for row in read_rows(folder / "rows.jsonl")
                if row.get("section") in (SECTION, "training")
            ]
    settings = recipe.model_dump(mode="json", exclude={"device", "only"})
    return collect_study(settings, rows)


def _take_up(recipe: StudyRecipe) -> None:
    """Begin the study's folder, or check that it holds this one; arms, tables and seeds may have been added since."""
    path = Path(recipe.run) / "study.json"
    wanted = recipe.model_dump(mode="json", exclude={"device", "run", "only"})
    if path.exists():
        there = json.loads(path.read_text(encoding="utf-8"))
        attacks = [_attacks(study["tables"]) for study in (there, wanted)]
        both = attacks[0].keys() & attacks[1].keys()
        free = {"tables", "arms", "seeds"}
        fixed = [
            {key: value for key, value in study.items() if key not in free} | {name: known[name] for name in both}
            for study, known in zip((there, wanted), attacks, strict=True)
        ]
        changed = differences(*fixed)
        if changed:
            raise ValueError(
                f"Expected the settings of the study in {recipe.run}, but they differ: {'; '.join(changed)}."
            )
    write_json(path, wanted)


def _attacks(tables: dict[str, Any]) -> dict[str, Any]:
    """Return what the attacks of a study are: a name must not come to mean another attack."""
    return {
        f"attack {name}": {key: value for key, value in judging.items() if key != "parts"}
        for table in tables.values()
        for name, judging in table["attacks"].items()
    }


def _carry_out(work: Work, task: Task, test: OneToManyPairs, command: Sequence[str] | None) -> None:
    """Train and judge one arm and seed, as far as that is missing and no other process is at it."""
    recipe, device = work.recipe, work.device
    folder = task.folder(recipe)
    if not task.missing(recipe):
        return
    try:
        run = RunFolder.open(folder, settings=_settings(recipe, task), seed=task.seed, device=device, command=command)
    except RunBusy:
        return
    with run:
        missing = task.missing(recipe, run.read_rows())
        if task.arm.defence is not None:
            if task.untrained(recipe):
                _train(work, task, run)
            shutil.rmtree(run.file(f"checkpoint-{task.arm.defence}"), ignore_errors=True)
        if missing:
            model = load_model(recipe.model if task.arm.defence is None else run.path / "model", device=device)
            judge(recipe, model, test, missing, run=run, progress=work.progress, device=device)
        run.finish()


def _train(work: Work, task: Task, run: RunFolder) -> None:
    """Train an arm for as many steps as cost what the reference's cost."""
    recipe, material, pairs = work.recipe, work.material(task.seed), work.pairs(task)
    cost, steps = work.cost(task), work.steps(task)
    model = train_arm(
        recipe,
        task.arm,
        material,
        pairs,
        steps=steps,
        seed=task.seed,
        run=run,
        device=work.device,
        progress=work.progress,
    )
    # Before the model: an arm with a model is not trained again.
    if not any(row.get("section") == "training" for row in run.read_rows()):
        learnt = arranged_pairs(task.arm, material, pairs)
        row = {"section": "training", "flop_per_step": cost.per_step, "flop": cost.of(steps), "steps": steps}
        row |= {"images": len(learnt.pairs.images), "texts": len(learnt.pairs.texts)}
        false = count_false_negatives(recipe, task.arm, learnt, steps=steps, seed=task.seed)
        run.rows.append({**row, "false_negatives": false})
    model.save_pretrained(run.path / "model")


def _settings(recipe: StudyRecipe, task: Task) -> dict[str, Any]:
    """Return what decides an arm's outcome; in which tables it stands does not."""
    shared = recipe.model_dump(mode="json", exclude=_NO_PART_OF_AN_ARM)
    return {**shared, "arm": task.arm.model_dump(mode="json", exclude={"tables"})}


def _measures(recipe: StudyRecipe, arm: StudyArm, seed: int) -> dict[str, Any]:
    """Return the measures of an arm's source, where it has exactly one and that has been made."""
    if len(arm.sources) != 1 or not recipe.measured:
        return {}
    try:
        measured = read_measures(augmentation_folder(recipe, arm, seed))
    except ValueError:  # not made yet
        return {}
    found = next(row for row in measured if row.source == arm.sources[0].name)
    return {"alignment": found.alignment, "diversity": found.diversity, "gap": found.gap}
