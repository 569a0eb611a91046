"""`crossguard certify`: provable robustness by sub-sampling, as a recipe says."""

import sys

import typer

from crossguard.cli.console import print_json, progress, told_clearly
from crossguard.cli.options import AsJson, Device, MaxSamples, Overrides, Quiet, RecipeSource, Run, Seed, as_overrides


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""

    @app.command()
    def certify(
        recipe: RecipeSource,
        overrides: Overrides = None,
        run: Run = None,
        seed: Seed = None,
        device: Device = None,
        max_samples: MaxSamples = None,
        quiet: Quiet = False,
        as_json: AsJson = False,
    ) -> None:
        """Certify a classifier by sub-sampling: how many elements an attacker may change without changing the answer.

        For example: crossguard certify watch-certify draws=10000 run=runs/watch-10k
        """
        with told_clearly():
            from crossguard.recipes import CertifyRecipe, open_run, perform_certify, read_recipe, the_recipe
            from crossguard.report import certificate_table, print_certificates, report_runs

            changes = as_overrides(overrides, run=run, seed=seed, device=device, max_samples=max_samples)
            settings = the_recipe(read_recipe(recipe, changes), CertifyRecipe)
            with open_run(settings, command=sys.argv) as folder:
                perform_certify(settings, folder, progress=progress(quiet=quiet))
                page = report_runs([folder.path], folder.path / "report.html")
                folder.finish()
            if as_json:
                print_json(certificate_table([folder.path]))
            else:
                print_certificates([folder.path])
                print(f"report: {page}")
