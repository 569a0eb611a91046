"""`crossguard evaluate`: retrieval clean and under attack, as a recipe says."""

import sys

import typer

from crossguard.cli.console import print_json, progress, told_clearly
from crossguard.cli.options import AsJson, Device, MaxSamples, Overrides, Quiet, RecipeSource, Run, Seed, as_overrides


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""

    @app.command()
    def evaluate(
        recipe: RecipeSource,
        overrides: Overrides = None,
        run: Run = None,
        seed: Seed = None,
        device: Device = None,
        max_samples: MaxSamples = None,
        quiet: Quiet = False,
        as_json: AsJson = False,
    ) -> None:
        """Measure retrieval clean and robust: rows, summary and report go to the run folder.

        For example: crossguard evaluate emoji-sga model=runs/emoji-mat/model run=runs/emoji-mat-sga
        """
        with told_clearly():
            from crossguard.recipes import EvaluateRecipe, open_run, perform_evaluate, read_recipe, the_recipe
            from crossguard.report import print_retrieval, report_runs, retrieval_table

            changes = as_overrides(overrides, run=run, seed=seed, device=device, max_samples=max_samples)
            settings = the_recipe(read_recipe(recipe, changes), EvaluateRecipe)
            with open_run(settings, command=sys.argv) as folder:
                perform_evaluate(settings, folder, progress=progress(quiet=quiet))
                page = report_runs([folder.path], folder.path / "report.html")
                folder.finish()
            if as_json:
                print_json(retrieval_table([folder.path]))
            else:
                print_retrieval([folder.path])
                print(f"report: {page}")
