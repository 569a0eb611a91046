"""`crossguard certify`: provable robustness by sub-sampling, as a recipe says."""

from typing import TYPE_CHECKING

import typer

from crossguard.checks import visible
from crossguard.cli.verb import Outcome, recipe_verb, report_run
from crossguard.progress import Reporter

if TYPE_CHECKING:
    from crossguard.recipes import CertifyRecipe


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""

    @recipe_verb(app)
    def certify(recipe: "CertifyRecipe", reporter: Reporter) -> Outcome:
        """Certify a classifier by sub-sampling: how many elements an attacker may change without changing the answer.

        For example: crossguard certify watch-certify draws=10000 run=runs/watch-10k
        """
        from crossguard.recipes import perform_certify
        from crossguard.report import certificate_table, print_certificates

        page = report_run(recipe, lambda run: perform_certify(recipe, run, progress=reporter))

        def show() -> None:
            print_certificates([recipe.run])
            print(f"report: {visible(page)}")

        return Outcome(show, lambda: certificate_table([recipe.run]))
