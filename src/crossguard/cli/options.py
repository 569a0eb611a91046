"""Options that several verbs share, and how they become settings of a recipe."""

import json
from pathlib import Path
from typing import Annotated

import typer

RecipeSource = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A recipe file, or the name of a shipped one (crossguard list recipes).")
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Settings to replace, as key.sub=value; read as YAML."),
]
Run = Annotated[Path | None, typer.Option("--run", help="Run folder; the same run in it resumes.")]
Seed = Annotated[int | None, typer.Option("--seed", help="Seed of everything random.", min=0)]
Device = Annotated[str | None, typer.Option("--device", help="Torch device, e.g. cpu, cuda:0; default: a GPU if any.")]
MaxSamples = Annotated[
    int | None, typer.Option("--max-samples", help="Take only the first so many images or samples.", min=1)
]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="No progress bars; only the result.")]
SkipBad = Annotated[
    bool, typer.Option("--skip-bad", help="Leave out bad rows, missing files and images that do not decode; say which.")
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run", help="Print what it would cost (certify: what other `keep` would do); carry nothing out."
    ),
]
Imports = Annotated[
    list[str] | None,
    typer.Option("--import", metavar="FILE.py|MODULE", help="Import parts of your own first; may be given again."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def as_overrides(
    overrides: list[str] | None, *, run: Path | None, seed: int | None, device: str | None, max_samples: int | None
) -> list[str]:
    """Return the overrides with the shared options added as overrides of their own; options win."""
    options = {"run": None if run is None else str(run), "seed": seed, "device": device, "max_samples": max_samples}
    # As JSON, which YAML reads as it is: a folder `2024` or `on` stays a name.
    written = {key: json.dumps(value, ensure_ascii=False) for key, value in options.items() if value is not None}
    return [*(overrides or []), *(f"{key}={value}" for key, value in written.items())]
