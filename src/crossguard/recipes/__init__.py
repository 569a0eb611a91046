"""Recipes: YAML files that say everything about a run, the ones shipped with the package, and how they are run."""

from crossguard.recipes.certify import Certified, perform_certify
from crossguard.recipes.load import (
    VERBS,
    RecipeError,
    apply_overrides,
    find_recipe,
    parse_recipe,
    read_recipe,
    shipped_recipes,
    the_recipe,
)
from crossguard.recipes.names import check_names
from crossguard.recipes.perform import (
    choose_device,
    open_run,
    perform_evaluate,
    perform_train,
)
from crossguard.recipes.schema import (
    AugmentRecipe,
    CertifyRecipe,
    EvaluateRecipe,
    Recipe,
    StudyRecipe,
    TableRecipe,
    TrainRecipe,
)

__all__ = [
    "VERBS",
    "AugmentRecipe",
    "Certified",
    "CertifyRecipe",
    "EvaluateRecipe",
    "Recipe",
    "RecipeError",
    "StudyRecipe",
    "TableRecipe",
    "TrainRecipe",
    "apply_overrides",
    "check_names",
    "choose_device",
    "find_recipe",
    "open_run",
    "parse_recipe",
    "perform_certify",
    "perform_evaluate",
    "perform_train",
    "read_recipe",
    "shipped_recipes",
    "the_recipe",
]
