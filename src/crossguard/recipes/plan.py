"""What a recipe would cost, without carrying it out and without opening its run."""

from dataclasses import replace
from typing import Any

from crossguard.evaluate import TASKS
from crossguard.evaluate.cost import Cost, Part, estimate_cost
from crossguard.evaluate.measure import distinct_names, part_name, parts_of, without_zero
from crossguard.evaluate.pass_cost import estimate_writing, estimate_zero_shot
from crossguard.evaluate.task import make_task
from crossguard.evaluate.tasks.zero_shot import ZeroShot
from crossguard.evaluate.writing import WritingTask
from crossguard.models import load_model
from crossguard.progress import Reporter
from crossguard.recipes.load import RecipeError
from crossguard.recipes.names import check_names
from crossguard.recipes.perform import choose_device, load_checkpoint, read_data, read_pairs
from crossguard.recipes.schema import EvaluateRecipe, TableRecipe
from crossguard.recipes.table import read_sets, table_threat


def plan_evaluate(recipe: EvaluateRecipe, *, progress: Reporter) -> Cost:
    """Measure the parts of a recipe on a few samples, and count them.

    Raises:
        RecipeError: a name that no table holds.
        ValueError: a recipe of a task whose cost cannot be told, or bad data or weights.
    """
    _check(recipe)
    task = TASKS.find(recipe.task)
    if recipe.models:
        raise ValueError(f"Expected one model, whose cost can be told, but got {len(recipe.models) + 1}.")
    within = recipe.threat.build()
    asked = recipe.attacks or ([] if recipe.attack is None else [recipe.attack])
    names = distinct_names([attack.name for attack in asked])
    attacks: dict[str, Any] = {n: task.make_attack(a.name, a.options) for n, a in zip(names, asked, strict=True)}
    each = dict.fromkeys(
        (part, limits)
        for threat in map(without_zero, within)
        for part, limits in (parts_of(threat) if recipe.modalities else {part_name(threat): threat}).items()
        if limits
    )
    threats = {f"{part} ({limits})" if len(within) > 1 else part: limits for part, limits in each}
    how: dict[str, Any] = {"device": choose_device(recipe.device), "progress": progress}
    if recipe.task == "retrieval":
        return estimate_cost(
            load_model(recipe.model),
            read_pairs(recipe.data, recipe.max_samples, progress=progress),
            attacks=attacks,
            threats=threats,
            rerank=recipe.options.get("rerank"),
            seed=recipe.seed,
            **how,
        )
    if not issubclass(task, ZeroShot | WritingTask):
        raise ValueError(
            "Expected a recipe for retrieval, zero-shot, captioning or question-answering, whose cost can be told, but "
            f"got one for {recipe.task}."
        )
    model, data = load_model(recipe.model), read_data(recipe.data, recipe.max_samples, reads=task.reads)
    made = make_task(task, model, task.prepare(data), recipe.batch_size, recipe.options)
    for attack in attacks.values() or [None]:
        made.check(attack, None if attack is None or not within else within[-1])
    pictured = [one for one in threats.values() if "image" in one]
    if isinstance(made, WritingTask):
        return estimate_writing(made, attacks=attacks, threats=pictured, **how)
    assert isinstance(made, ZeroShot)
    return estimate_zero_shot(
        model,
        {data.name: data},
        attacks=attacks,
        threats=pictured,
        half_first=made.half_first,
        objective=made.objective,
        **how,
    )


def plan_table(recipe: TableRecipe, *, progress: Reporter) -> Cost:
    """Measure the parts of a table on a few pictures, model by model, and count them.

    Raises:
        RecipeError: a name that no table holds.
        ValueError: bad data or weights.
    """
    _check(recipe)
    task = TASKS.find(recipe.task)
    sets = read_sets(recipe, progress=progress)
    attack: Any = task.make_attack(recipe.attack.name, recipe.attack.options)
    parts: list[Part] = []
    found: list[Cost] = []
    for row, checkpoint in recipe.models.items():
        found.append(
            estimate_zero_shot(
                load_checkpoint(checkpoint),
                sets,
                attacks={recipe.attack.name: attack},
                threats=[table_threat(recipe, eps) for eps in recipe.eps],
                half_first=bool(recipe.options.get("half_first", False)),
                objective=recipe.options.get("objective", "strongest"),
                device=choose_device(recipe.device),
                progress=progress,
            )
        )
        parts += [replace(part, what=f"{row}: {part.what}") for part in found[-1].parts]
    return replace(found[-1], parts=tuple(parts), memory=max(cost.memory for cost in found))


def _check(recipe: EvaluateRecipe | TableRecipe) -> None:
    problems = check_names(recipe)
    if problems:
        raise RecipeError(recipe.run, problems)
