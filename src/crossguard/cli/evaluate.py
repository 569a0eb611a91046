"""`crossguard evaluate`: retrieval clean and under attack, as a recipe says."""

from typing import TYPE_CHECKING

import typer

from crossguard.cli.verb import Outcome, recipe_verb, report_run
from crossguard.progress import Reporter

if TYPE_CHECKING:
    from crossguard.recipes import EvaluateRecipe


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""

    @recipe_verb(app)
    def evaluate(recipe: "EvaluateRecipe", reporter: Reporter) -> Outcome:
        """Measure retrieval clean and robust: rows, summary and report go to the run folder.

        For example: crossguard evaluate emoji-sga model=runs/emoji-mat/model run=runs/emoji-mat-sga
        """
        from crossguard.recipes import perform_evaluate
        from crossguard.report import print_retrieval, retrieval_table

        page = report_run(recipe, lambda run: perform_evaluate(recipe, run, progress=reporter))

        def show() -> None:
            print_retrieval([recipe.run])
            print(f"report: {page}")

        return Outcome(show, lambda: retrieval_table([recipe.run]))
