"""`crossguard list`: the tables of attacks, defences, models, data sets, tasks, sources, augmentations, recipes."""

from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, Any

import typer

from crossguard.cli.console import print_json, told_clearly
from crossguard.cli.options import AsJson, Imports
from crossguard.imports import import_parts
from crossguard.progress import cell


class Table(StrEnum):
    """What can be listed."""

    attacks = "attacks"
    defences = "defences"
    models = "models"
    datasets = "datasets"
    tasks = "tasks"
    sources = "sources"
    augmentations = "augmentations"
    recipes = "recipes"


def rows(table: Table) -> list[dict[str, Any]]:
    """Return a table as plain rows, each with at least `name` and `summary`."""
    return _ROWS[table]()


def _attacks() -> list[dict[str, Any]]:
    from crossguard.attacks import ATTACKS

    return [
        {
            "name": row.name,
            "summary": row.summary,
            "uses": [*sorted(row.uses), *(["samples"] if row.samples else [])],
            "takes": [kind.__name__ for kind in row.takes],
        }
        for row in ATTACKS.values()
    ]


def _defences() -> list[dict[str, Any]]:
    from crossguard.training import DEFENCES

    return [{"name": row.name, "summary": row.summary} for row in DEFENCES.values()]


def _models() -> list[dict[str, Any]]:
    from crossguard.models import MODELS

    return [{"name": row.name, "summary": row.summary, "kind": row.kind, "ships": row.ships} for row in MODELS.values()]


def _datasets() -> list[dict[str, Any]]:
    from crossguard.data import DATASETS

    return [{"name": row.name, "summary": row.summary, "gives": row.gives} for row in DATASETS.values()]


def _tasks() -> list[dict[str, Any]]:
    from crossguard.evaluate import TASKS, task_options

    return [
        {
            "name": task.name,
            "summary": (task.__doc__ or task.heading).strip().splitlines()[0],
            "reads": task.reads,
            "options": task_options(task),
        }
        for task in TASKS.values()
    ]


def _sources() -> list[dict[str, Any]]:
    from crossguard.attacks import SOURCES

    return [{"name": row.name, "summary": row.summary} for row in SOURCES.values()]


def _augmentations() -> list[dict[str, Any]]:
    from crossguard.augment import AUGMENTATIONS

    return [{"name": row.name, "summary": row.summary, "gives": row.gives} for row in AUGMENTATIONS.values()]


def _recipes() -> list[dict[str, Any]]:
    from crossguard.recipes import shipped_recipes

    return [
        {"name": name, "summary": _second_line(path.read_text(encoding="utf-8")), "path": str(path)}
        for name, path in shipped_recipes().items()
    ]


def _second_line(text: str) -> str:
    """Return what a recipe says about itself: the comment line below its launch command."""
    return text.splitlines()[1].lstrip("# ").strip()


_ROWS: dict[Table, Callable[[], list[dict[str, Any]]]] = {
    Table.attacks: _attacks,
    Table.defences: _defences,
    Table.models: _models,
    Table.datasets: _datasets,
    Table.tasks: _tasks,
    Table.sources: _sources,
    Table.augmentations: _augmentations,
    Table.recipes: _recipes,
}


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""

    @app.command("list")
    def list_(
        table: Annotated[Table, typer.Argument(help="Which table.")],
        imports: Imports = None,
        as_json: AsJson = False,
    ) -> None:
        """List what there is: attacks, defences, models, data sets, tasks, sources, augmentations or recipes."""
        with told_clearly():
            import_parts(imports or ())
            found = rows(table)
            if as_json:
                print_json(found)
                return
            from rich.console import Console
            from rich.table import Table as Grid

            grid = Grid("name", "summary", box=None, header_style="bold")
            for row in found:
                grid.add_row(cell(row["name"]), cell(row["summary"]))
            Console().print(grid)
