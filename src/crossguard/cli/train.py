"""`crossguard train`: harden a model, as a recipe says."""

import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING

import typer

from crossguard.checks import visible
from crossguard.cli.verb import Outcome, recipe_verb
from crossguard.launch import is_main
from crossguard.progress import Reporter

if TYPE_CHECKING:
    from crossguard.recipes import TrainRecipe


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""

    @recipe_verb(app, images=True)
    def train(recipe: "TrainRecipe", reporter: Reporter) -> Outcome:
        """Harden a model against the recipe's threat; the model goes to RUN/model. An interrupted run resumes.

        For example: crossguard train emoji-mat steps=500 run=runs/longer

        Several GPUs: torchrun --nproc-per-node 4 --no-python -- crossguard train RECIPE batch_size=32
        """
        from crossguard.recipes import open_run, perform_train

        with open_run(recipe, command=sys.argv) if is_main() else nullcontext() as run:
            model = perform_train(recipe, run, progress=reporter)
            if run is not None:
                run.finish()
        return Outcome(
            lambda: print(f"model: {visible(model)}"),
            lambda: {"model": str(model), "defence": recipe.defence, "steps": recipe.steps},
        )
