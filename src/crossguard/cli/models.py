"""`crossguard models`: what a checkpoint is and lacks; one that others wrote, saved in this package's layout."""

from pathlib import Path
from typing import Annotated

import typer

from crossguard.checks import visible
from crossguard.cli.console import BAD_INPUT, print_json, told_clearly
from crossguard.cli.options import AsJson, Imports
from crossguard.imports import import_parts

Source = Annotated[str, typer.Argument(metavar="SOURCE", help="A folder, a file of weights, or a hub id.")]
Offline = Annotated[bool, typer.Option("--offline", help="Never ask a hub.")]


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    models = typer.Typer(no_args_is_help=True, help="Look at checkpoints, and convert them.")
    app.add_typer(models, name="models")

    @models.command()
    def check(source: Source, offline: Offline = False, as_json: AsJson = False) -> None:
        """Say what a checkpoint is, what it lacks and which option supplies that, and whether its parts fit."""
        from crossguard.models.described import describe

        with told_clearly():
            found = describe(source, offline=offline)
            if as_json:
                print_json(found.to_dict())
            else:
                sizes = ", ".join(f"{name} {value}" for name, value in found.sizes.items())
                stored = f"{found.weights}: {found.parameters:,} numbers, {', '.join(found.dtypes)}"
                told = {
                    "is": found.is_a,
                    "weights": stored if found.weights else "none",
                    "memory": found.memory if found.parameters else None,
                    "sizes": sizes,
                    "tokenizer": found.tokenizer,
                    "preprocessing": found.preprocessing,
                }
                for name, value in told.items():
                    if value:
                        print(f"{name}: {visible(value)}")
                for lack in found.lacks:
                    print(f"lacks {lack}")
                for problem in found.problems:
                    print(f"problem: {visible(problem)}")
                print("loads as it is" if found.loads else "does not load as it is")
            if not found.loads:
                raise typer.Exit(BAD_INPUT)

    @models.command()
    def convert(
        source: Source,
        folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where the whole model goes; recipes take it.")],
        base: Annotated[str | None, typer.Option(help="The model it was made from, for what the files lack.")] = None,
        tokenizer: Annotated[str | None, typer.Option(help="A folder, a hub id, or clip.")] = None,
        preprocessing: Annotated[str | None, typer.Option(help="A folder, a hub id, or clip.")] = None,
        offline: Offline = False,
        imports: Imports = None,
    ) -> None:
        """Load a checkpoint and save it whole, so that recipes and `load_model` take the folder by itself.

        For example: crossguard models convert fare_eps_2.pt models/fare2 --base openai/clip-vit-large-patch14
        """
        from crossguard.models import load_model

        with told_clearly():
            import_parts(imports or ())
            model = load_model(source, base=base, tokenizer=tokenizer, preprocessing=preprocessing, offline=offline)
            model.save_pretrained(folder)
            print(f"{type(model).__name__} {visible(model.name)!r} in {visible(folder)}")
