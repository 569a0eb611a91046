"""`crossguard validate`: the mistakes of a recipe, before any work."""

from typing import Any

import typer

from crossguard.cli.console import BAD_INPUT, print_json, told_clearly
from crossguard.cli.options import AsJson, Imports, Overrides, RecipeSource
from crossguard.imports import import_parts


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""

    @app.command()
    def validate(
        recipe: RecipeSource, overrides: Overrides = None, imports: Imports = None, as_json: AsJson = False
    ) -> None:
        """Check a recipe and list its mistakes together: of its form first, then of its names. Nothing is run."""
        from crossguard.recipes import RecipeError, check_names, read_recipe

        with told_clearly():
            import_parts(imports or ())
            problems: tuple[str, ...] = ()
            resolved: dict[str, Any] = {}
            try:
                settings = read_recipe(recipe, overrides or [])
                problems = tuple(check_names(settings))
                resolved = settings.model_dump(mode="json")
            except RecipeError as error:
                if not as_json:
                    raise
                problems = error.problems
            if as_json:
                print_json({"recipe": recipe, "valid": not problems, "problems": list(problems), "settings": resolved})
            elif problems:
                raise RecipeError(recipe, problems)
            else:
                print(f"{recipe}: valid")
            if problems:
                raise typer.Exit(BAD_INPUT)
