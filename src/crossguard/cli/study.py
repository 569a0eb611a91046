"""`crossguard study`: many trainings at equal cost, judged alike, over several seeds, as a recipe says."""

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from crossguard.checks import visible
from crossguard.cli.verb import Outcome, recipe_verb
from crossguard.launch import is_main
from crossguard.progress import Reporter

if TYPE_CHECKING:
    from crossguard.recipes import StudyRecipe


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""

    @recipe_verb(app, plan=_plan, apart=True)
    def study(recipe: "StudyRecipe", reporter: Reporter) -> Outcome:
        """Compare defences, data and augmentation: train every arm at equal cost for every seed, and judge all alike.

        An interrupted study goes on where it stopped. Started a second time beside itself, or several times by torchrun
        or SLURM, it shares the work: each process takes the next arm that no other one has open. What will be done and
        what it costs is told first, with --dry-run alone. RUN/study.md and RUN/report.html show what there is.
        """
        from dataclasses import asdict

        from crossguard.recipes.study import perform_study
        from crossguard.report.study import study_markdown, write_study
        from crossguard.runs import write_atomically, write_json

        # Beside what is asked for: standard output has the tables.
        announce = partial(print, file=sys.stderr, flush=True)
        found = perform_study(recipe, progress=reporter, command=sys.argv, announce=announce)
        folder = Path(recipe.run)
        if not is_main():
            return Outcome(lambda: None, lambda: None)
        text = study_markdown(found)
        write_json(folder / "tables.json", [asdict(table) for table in found.tables])
        write_atomically(folder / "study.md", text)
        page = write_study(folder / "report.html", found, title=folder.name)
        return Outcome(
            lambda: print(f"{text}\nreport: {visible(page)}"), lambda: [asdict(table) for table in found.tables]
        )


def _plan(recipe: "StudyRecipe", reporter: Reporter) -> Outcome:
    from crossguard.recipes.study import plan_study

    plan = plan_study(recipe, progress=reporter)
    return Outcome(lambda: print(plan), plan.to_dict)
