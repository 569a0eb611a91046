"""`crossguard report`: one page, and the tables, of one or several runs side by side."""

from pathlib import Path
from typing import Annotated

import typer

from crossguard.cli.console import by_one_process, print_json
from crossguard.cli.options import AsJson, Imports
from crossguard.imports import import_parts


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""

    @app.command()
    def report(
        runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders.")],
        out: Annotated[
            Path | None, typer.Option(help="Where the page goes; default: report.html in the first.")
        ] = None,
        figures: Annotated[
            Path | None, typer.Option(help="Also write every certified curve here, an SVG each.")
        ] = None,
        tables: Annotated[
            Path | None, typer.Option(help="A folder for every table of the page as CSV and as JSON.")
        ] = None,
        imports: Imports = None,
        as_json: AsJson = False,
    ) -> None:
        """Write one self-contained page that compares runs, and print their tables.

        For example: crossguard report runs/undefended runs/mat --out comparison.html --tables comparison
        """
        with by_one_process():
            import_parts(imports or ())
            from crossguard.report import export_runs, report_runs, write_figures

            page = report_runs(runs, out or runs[0] / "report.html")
            drawn = [] if figures is None else write_figures(runs, figures)
            if tables is not None:
                export_runs(runs, tables)
            print_tables(runs, as_json=as_json)
            if not as_json:
                for path in (page, *drawn):
                    print(f"report: {path}" if path == page else f"figure: {path}")


def print_tables(runs: list[Path], *, as_json: bool) -> None:
    """Print what the runs hold: results of all tasks, and certificates."""
    from crossguard.report import certificate_table, print_certificates, print_results, result_table

    if as_json:
        print_json({"results": result_table(runs), "certificates": certificate_table(runs)})
        return
    print_results(runs)
    print_certificates(runs)
