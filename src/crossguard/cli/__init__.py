"""The command line: one file per verb; each parses, builds, calls and prints."""

from typing import Annotated

import typer

from crossguard import __version__
from crossguard.cli import (
    augment,
    card,
    certify,
    demo,
    doctor,
    evaluate,
    listing,
    models,
    predict,
    report,
    study,
    table,
    train,
    validate,
)

app = typer.Typer(
    name="crossguard",
    help="Attack, harden and certify models that read several modalities at once.\n\n"
    "Start with [bold]crossguard demo[/bold]: the whole story on built-in data in a few minutes. "
    "Everything else takes a recipe, a YAML file that says all about a run; "
    "[bold]crossguard list recipes[/bold] shows those that come along, and any setting can be replaced on the "
    "command line: [bold]crossguard evaluate emoji-sga threat.text.words=2 seed=1[/bold].",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,
)


def _print_version(wanted: bool) -> bool:
    if wanted:
        print(f"crossguard {__version__}")
        raise typer.Exit
    return wanted


@app.callback()
def _top(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    pass


_VERBS = (demo, evaluate, table, train, certify, predict, augment, study, report, card)
for _verb in (*_VERBS, listing, models, validate, doctor):
    _verb.register(app)

__all__ = ["app"]
