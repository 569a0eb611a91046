"""Recipes: YAML files that say everything about a run, the ones shipped with the package among them."""

from crossguard.recipes.load import RecipeError, apply_overrides, find_recipe, parse_recipe, read_recipe, shipped_recipes
from crossguard.recipes.schema import CertifyRecipe, EvaluateRecipe, Recipe, TrainRecipe

__all__ = [
    "CertifyRecipe",
    "EvaluateRecipe",
    "Recipe",
    "RecipeError",
    "TrainRecipe",
    "apply_overrides",
    "find_recipe",
    "parse_recipe",
    "read_recipe",
    "shipped_recipes",
]
