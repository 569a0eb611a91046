"""`crossguard card`: a model card in the hub's format, and publishing a model with it."""

from pathlib import Path
from typing import Annotated

import typer

from crossguard.cli.console import told_clearly
from crossguard.cli.options import Imports
from crossguard.imports import import_parts


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""

    @app.command()
    def card(
        runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders.")],
        model: Annotated[str | None, typer.Option(help="Which model, by its name in tables, of several.")] = None,
        name: Annotated[str | None, typer.Option(help="What the card calls it; default: the same.")] = None,
        licence: Annotated[str | None, typer.Option(help="Of the weights, as the hub spells it: apache-2.0.")] = None,
        base_model: Annotated[str | None, typer.Option(help="Hub id of the model that it was made from.")] = None,
        out: Annotated[Path | None, typer.Option(help="Where the card goes; default: standard output.")] = None,
        push: Annotated[
            str | None, typer.Option(metavar="OWNER/NAME", help="Upload --folder and the card to this hub repository.")
        ] = None,
        folder: Annotated[Path | None, typer.Option(help="The model's folder, for --push.")] = None,
        private: Annotated[bool, typer.Option(help="Make a new repository private.")] = False,
        imports: Imports = None,
    ) -> None:
        """Write a model card: clean, robust and certified figures with intervals, as text and as hub metadata.

        For example: crossguard card runs/mat-sga --licence apache-2.0 --out runs/mat/model/README.md
        """
        with told_clearly():
            if (push is None) != (folder is None):
                raise ValueError("Expected `--push` and `--folder` together, or neither.")
            import_parts(imports or ())
            from crossguard.report.card import model_card
            from crossguard.runs import write_atomically

            text = model_card(runs, model=model, name=name, licence=licence, base_model=base_model)
            if out is not None:
                write_atomically(out.expanduser(), text)
                print(f"card: {out}")
            if push is not None and folder is not None:
                from crossguard.models.publish import push_to_hub

                print(f"published: {push_to_hub(folder, push, card=text, private=private)}")
            elif out is None:
                print(text, end="")
