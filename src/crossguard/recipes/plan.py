"""What a recipe would cost, without carrying it out and without opening its run."""

from crossguard.attacks import make_attack
from crossguard.evaluate.cost import Cost, estimate_cost
from crossguard.evaluate.measure import part_name, parts_of
from crossguard.models import load_model
from crossguard.progress import Reporter
from crossguard.recipes.load import RecipeError
from crossguard.recipes.names import check_names
from crossguard.recipes.perform import choose_device, read_pairs
from crossguard.recipes.schema import EvaluateRecipe


def plan_evaluate(recipe: EvaluateRecipe, *, progress: Reporter) -> Cost:
    """Measure the parts of a retrieval recipe on a few samples, and count them.

    Raises:
        RecipeError: a name that no table holds.
        ValueError: a recipe of another task, or bad data or weights.
    """
    problems = check_names(recipe)
    if problems:
        raise RecipeError(recipe.run, problems)
    if recipe.task != "retrieval":
        raise ValueError(f"Expected a recipe for retrieval, whose cost can be told, but got one for {recipe.task}.")
    threat = recipe.threat.build()
    asked = recipe.attacks or ([] if recipe.attack is None else [recipe.attack])
    return estimate_cost(
        load_model(recipe.model),
        read_pairs(recipe.data, recipe.max_samples, progress=progress),
        attacks={attack.name: make_attack(attack.name, **attack.options) for attack in asked},
        threats=parts_of(threat) if recipe.modalities else {part_name(threat): threat} if threat else {},
        **recipe.options,
        seed=recipe.seed,
        device=choose_device(recipe.device),
        progress=progress,
    )
