"""Whether what a run keeps of a measurement is of the very measurement that is asked for."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crossguard.evaluate.asked import row_facts
from crossguard.runs import RunFolder, as_read_back, differences


def check_kept(run: RunFolder | None, *, kind: str, name: str, section: str, settings: Mapping[str, Any]) -> None:
    """Refuse a measurement that the run holds with other settings, in its summary or its rows.

    Adversarial samples have settings beside them, but they may have been deleted to free space.

    Args:
        run: the run; None: nothing is kept.
        kind: of the measurement's summary.
        name: of its summary within the kind.
        section: of its rows.
        settings: everything that decides the outcome.

    Raises:
        ValueError: each difference is named.
    """
    if run is None:
        return
    wanted = as_read_back(settings)
    summary = run.summary.get(kind, {}).get(name)
    if summary is not None:
        refuse_differences({key: summary[key] for key in wanted if key in summary}, wanted, where=run.path)
    facts = row_facts(wanted)
    for row in run.rows:
        if row.get("section") == section:
            refuse_differences({key: row[key] for key in facts if key in row}, facts, where=run.path)


def refuse_differences(there: Mapping[str, Any], now: Mapping[str, Any], *, where: Path) -> None:
    """Refuse settings, as they are read back, that differ from those kept at a place.

    Raises:
        ValueError: each difference is named.
    """
    found = differences(there, now)
    if found:
        raise ValueError(
            f"Expected the settings of the evaluation begun in {where}, but they differ: {'; '.join(found)}. "
            "Use another run folder, or another `label`."
        )
