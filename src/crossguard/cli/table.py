"""`crossguard table`: several models on several sets of pictures, in one table."""

from typing import TYPE_CHECKING

import typer

from crossguard.cli.verb import Outcome, recipe_verb, report_run
from crossguard.progress import Reporter, cell

if TYPE_CHECKING:
    from crossguard.recipes import TableRecipe
    from crossguard.recipes.table import Cell


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""

    @recipe_verb(app, plan=_plan)
    def table(recipe: "TableRecipe", reporter: Reporter) -> Outcome:
        """Measure several models on several sets of pictures, clean and at several budgets: one table.

        Rows, summary and report go to the run folder; an interrupted table goes on where it stopped.

        For example: crossguard table emoji-table models.mat=runs/emoji-mat/model
        """
        from crossguard.recipes.table import perform_table

        cells: list[Cell] = []
        page = report_run(recipe, lambda run: cells.extend(perform_table(recipe, run, progress=reporter)))

        def show() -> None:
            _print(cells)
            print(f"report: {page}")

        return Outcome(show, lambda: [vars(one) for one in cells])


def _plan(recipe: "TableRecipe", reporter: Reporter) -> Outcome:
    from crossguard.recipes.plan import plan_table

    cost = plan_table(recipe, progress=reporter)
    return Outcome(lambda: print(cost), cost.to_dict)


def _print(cells: "list[Cell]") -> None:
    from rich.console import Console
    from rich.table import Table

    from crossguard.recipes.table import as_grid

    headings, lines = as_grid(cells)
    grid = Table(box=None, header_style="bold")
    for heading in headings:
        grid.add_column(cell(heading))
    for line in lines:
        grid.add_row(*map(cell, line))
    Console().print(grid)
