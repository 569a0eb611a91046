"""Command line of pre-training: `python -m crossguard.training.pretrain RECIPE --out FOLDER`."""

from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from crossguard.progress import Bars, Lines
from crossguard.training.pretrain import pretrain, read_settings

_SHIPPED = Path(str(files("crossguard.models"))) / "assets" / "emoji-clip" / "recipe.yaml"


def main(
    recipe: Annotated[Path, typer.Argument(help="YAML file with the settings; default: emoji-clip's.")] = _SHIPPED,
    out: Annotated[Path, typer.Option(help="Folder of checkpoints, teacher views and the model.")] = Path(
        "runs/pretrain"
    ),
    plain: Annotated[bool, typer.Option(help="Plain lines instead of bars, for logs.")] = False,
) -> None:
    """Pre-train a small CLIP; run the same command again to resume. The model is written to OUT/model."""
    pretrain(read_settings(recipe), out, progress=Lines(every=30) if plain else Bars())


if __name__ == "__main__":
    typer.run(main)
