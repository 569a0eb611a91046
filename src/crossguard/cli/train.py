"""`crossguard train`: harden a model, as a recipe says."""

import sys

import typer

from crossguard.cli.console import print_json, progress, told_clearly
from crossguard.cli.options import AsJson, Device, MaxSamples, Overrides, Quiet, RecipeSource, Run, Seed, as_overrides


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""

    @app.command()
    def train(
        recipe: RecipeSource,
        overrides: Overrides = None,
        run: Run = None,
        seed: Seed = None,
        device: Device = None,
        max_samples: MaxSamples = None,
        quiet: Quiet = False,
        as_json: AsJson = False,
    ) -> None:
        """Harden a model against the recipe's threat; the model goes to RUN/model. An interrupted run resumes.

        For example: crossguard train emoji-mat steps=500 run=runs/longer
        """
        with told_clearly():
            from crossguard.recipes import TrainRecipe, open_run, perform_train, read_recipe, the_recipe

            changes = as_overrides(overrides, run=run, seed=seed, device=device, max_samples=max_samples)
            settings = the_recipe(read_recipe(recipe, changes), TrainRecipe)
            with open_run(settings, command=sys.argv) as folder:
                model = perform_train(settings, folder, progress=progress(quiet=quiet))
                folder.finish()
            if as_json:
                print_json({"model": str(model), "defence": settings.defence, "steps": settings.steps})
            else:
                print(f"model: {model}")
