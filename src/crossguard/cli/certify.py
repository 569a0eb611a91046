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

    def plan(recipe: "CertifyRecipe", reporter: Reporter) -> Outcome:
        from crossguard.recipes.choose_keep import try_keeps

        trials = try_keeps(recipe, progress=reporter)

        def show() -> None:
            for trial in trials:
                kept = ", ".join(f"{m} {k}" for m, k in trial.keep.items())
                right = "" if trial.right is None else f"; a short training labels {100 * trial.right:.1f} % right"
                would = "".join(f", {100 * share:.1f} % at {at}" for at, share in trial.certified.items())
                reach = ", ".join(map(str, trial.reach))
                print(f"keep {kept}: unanimous votes reach {reach}{right}{'; certified' + would[1:] if would else ''}")

        return Outcome(show, lambda: [vars(trial) for trial in trials])

    @recipe_verb(app, plan=plan)
    def certify(recipe: "CertifyRecipe", reporter: Reporter) -> Outcome:
        """Certify a classifier by sub-sampling: how many elements an attacker may change without changing the answer.

        With --dry-run it tries other numbers of kept elements, by margin arithmetic and a short training on a part of
        the training data, and certifies nothing.

        For example: crossguard certify watch-certify draws=10000 run=runs/watch-10k

        Several GPUs: torchrun --nproc-per-node 4 --no-python -- crossguard certify RECIPE
        """
        from crossguard.recipes import perform_certify
        from crossguard.report import certificate_table, print_certificates

        page = report_run(recipe, lambda run: perform_certify(recipe, run, progress=reporter))

        def show() -> None:
            print_certificates([recipe.run])
            print(f"report: {visible(page)}")

        return Outcome(show, lambda: certificate_table([recipe.run]))
