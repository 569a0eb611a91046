"""`crossguard train`: harden a model, as a recipe says."""

import sys
from typing import TYPE_CHECKING

import typer

from crossguard.cli.verb import Outcome, recipe_verb
from crossguard.progress import Reporter

if TYPE_CHECKING:
    from crossguard.recipes import TrainRecipe


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""

    @recipe_verb(app)
    def train(recipe: "TrainRecipe", reporter: Reporter) -> Outcome:
        """Harden a model against the recipe's threat; the model goes to RUN/model. An interrupted run resumes.

        For example: crossguard train emoji-mat steps=500 run=runs/longer
        """
        from crossguard.recipes import open_run, perform_train

        with open_run(recipe, command=sys.argv) as run:
            model = perform_train(recipe, run, progress=reporter)
            run.finish()
        return Outcome(
            lambda: print(f"model: {model}"),
            lambda: {"model": str(model), "defence": recipe.defence, "steps": recipe.steps},
        )
