"""`crossguard evaluate`: a task of image-text models or of samples, clean and under attack, as a recipe says."""

from typing import TYPE_CHECKING

import typer

from crossguard.cli.verb import Outcome, recipe_verb, report_run
from crossguard.progress import Reporter

if TYPE_CHECKING:
    from crossguard.recipes import EvaluateRecipe


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""

    @recipe_verb(app, plan=_plan, images=True)
    def evaluate(recipe: "EvaluateRecipe", reporter: Reporter) -> Outcome:
        """Measure retrieval, grounding, captioning, a classifier or a segmenter, clean and robust.

        Rows, summary and report go to the run folder.

        For example: crossguard evaluate emoji-sga model=runs/emoji-mat/model run=runs/emoji-mat-sga

        Several GPUs: torchrun --nproc-per-node 4 --no-python -- crossguard evaluate RECIPE
        """
        from crossguard.recipes import perform_evaluate
        from crossguard.report import print_results, result_table

        page = report_run(recipe, lambda run: perform_evaluate(recipe, run, progress=reporter))

        def show() -> None:
            print_results([recipe.run])
            print(f"report: {page}")

        return Outcome(show, lambda: result_table([recipe.run]))


def _plan(recipe: "EvaluateRecipe", reporter: Reporter) -> Outcome:
    from crossguard.recipes.plan import plan_evaluate

    cost = plan_evaluate(recipe, progress=reporter)
    return Outcome(lambda: print(cost), cost.to_dict)
