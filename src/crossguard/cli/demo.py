"""`crossguard demo`: the whole story on built-in data."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from crossguard.cli.console import by_one_process, progress
from crossguard.cli.options import AsJson, Quiet
from crossguard.cli.report import print_tables


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""

    @app.command()
    def demo(
        run: Annotated[Path, typer.Option(help="Run folder; the same demo in it resumes.")] = Path("runs/demo"),
        seed: Annotated[int, typer.Option(help="Seed of everything random.", min=0)] = 0,
        steps: Annotated[int | None, typer.Option(help="Training steps of each defence.", min=1)] = None,
        pictures: Annotated[int | None, typer.Option(help="Test pictures that are attacked.", min=4)] = None,
        draws: Annotated[int | None, typer.Option(help="Sub-samples per certified window.", min=1)] = None,
        sensor_steps: Annotated[
            int | None, typer.Option(help="Training steps of the sensor classifier.", min=1)
        ] = None,
        quiet: Quiet = False,
        as_json: AsJson = False,
    ) -> None:
        """Attack, harden, certify, report: the whole story on built-in data, a few minutes on two CPU cores.

        A small CLIP of emoji is attacked on pictures, on captions and on both, and along a security curve; it is
        hardened with tecoa, mat and mat+ and attacked again. A classifier of watch sensors is certified, by random
        draws and by a design that holds without any chance of error, beside a sparse attack. One page shows it all.
        """
        with by_one_process():
            from crossguard.recipes.demo import DemoSettings, perform_demo

            given = {"steps": steps, "pictures": pictures, "draws": draws, "sensor_steps": sensor_steps}
            settings = DemoSettings(seed=seed, **{name: value for name, value in given.items() if value is not None})
            page = perform_demo(settings, run, progress=progress(quiet=quiet), command=sys.argv)
            print_tables([run], as_json=as_json)
            if not as_json:
                print(f"report: {page}")
