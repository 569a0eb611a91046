"""`write_study`: one self-contained HTML file of a study."""

from pathlib import Path

from crossguard import __version__
from crossguard.report.study.collect import METRICS, SeedMean, Study
from crossguard.report.study.figures import planes, ways
from crossguard.report.study.markdown import judging, originals, primary_rows
from crossguard.report.templates import get_template
from crossguard.report.words import spread
from crossguard.runs import write_atomically


def write_study(path: Path | str, study: Study, *, title: str) -> Path:
    """Write a study's tables and figures as a page that needs no other file.

    Returns:
        The path.
    """
    page = get_template("study.html.j2", filters={"estimate": _estimate, "spread": spread})
    first = [f"tr@{study.rank}", f"ir@{study.rank}"]
    content = page.render(
        title=title,
        study=study,
        originals=originals(study),
        judging=judging(study),
        primary=list(primary_rows(study).values()),
        tables=[(table, planes(table, rank=study.rank), ways(table, rank=study.rank)) for table in study.tables],
        metrics=[*first, *(metric for metric in METRICS if metric not in first)],
        version=__version__,
    )
    write_atomically(Path(path), content)
    return Path(path)


def _estimate(value: SeedMean | None) -> str:
    return "" if value is None else str(value)
