"""`write_study`: one self-contained HTML file of a study."""

from pathlib import Path

from crossguard import __version__
from crossguard.report.study.collect import SeedMean, Study
from crossguard.report.study.figures import planes
from crossguard.report.templates import get_template
from crossguard.report.words import spread
from crossguard.runs import write_atomically


def write_study(path: Path | str, study: Study, *, title: str) -> Path:
    """Write a study's tables and figures as a page that needs no other file.

    Returns:
        The path.
    """
    page = get_template("study.html.j2", filters={"estimate": _estimate, "spread": spread})
    content = page.render(
        title=title,
        study=study,
        tables=[(table, planes(table)) for table in study.tables],
        metrics=("tr@1", "ir@1", "tr@5", "ir@5", "tr@10", "ir@10"),
        version=__version__,
    )
    write_atomically(Path(path), content)
    return Path(path)


def _estimate(value: SeedMean | None) -> str:
    return "" if value is None else str(value)
