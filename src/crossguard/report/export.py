"""Every table of a report as plain records, and records as CSV or JSON."""

import base64
import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from crossguard.evaluate.statistics import Estimate
from crossguard.report.sections import FigureTable, Overview, Section
from crossguard.report.views import CertificateView
from crossguard.report.words import column_name, metric_title
from crossguard.runs import safe_name, write_atomically

Record = dict[str, Any]
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def figure_records(table: FigureTable) -> list[Record]:
    """Return one record per figure of a table."""
    records = []
    name = ""
    for line in table.lines:
        name = line.name or name
        facts = dict(zip(("model", *table.facts), line.row, strict=True))
        if table.signed:
            facts["less"] = line.less
        for column, figure in zip(table.columns, line.figures, strict=True):
            if figure is not None:
                records.append({"metric": name, **facts, "attacked": column_name(column), **_figure(figure)})
    return records


def overview_records(table: Overview) -> list[Record]:
    """Return one record per row of an overview."""
    return [
        {
            **dict(zip(table.facts, line.row, strict=True)),
            "threat": line.threat,
            **{
                f"{metric_title(metric)}, {column_name(column)}{end}": value
                for (metric, column), figure in zip(table.columns, line.figures, strict=True)
                if figure is not None
                for end, value in {"": figure.value, ", low": figure.low, ", high": figure.high}.items()
            },
        }
        for line in table.lines
    ]


def curve_records(view: CertificateView) -> list[Record]:
    """Return one record per radius vector and metric of a certificate's curve."""
    if view.curve is None:
        return []
    records = []
    for metric, values in view.curve.certified.items():
        for place, vector in enumerate(view.curve.radii):
            certified, baseline = (view.figure(what, metric, place) for what in ("certified", "baseline"))
            records.append(
                {
                    "model": view.label,
                    "metric": metric,
                    **{f"r {name}": r for name, r in zip(view.modalities, vector, strict=True)},
                    "certified": values[place],
                    "low": None if certified is None or certified.low is None else certified.low / 100,
                    "high": None if certified is None or certified.high is None else certified.high / 100,
                    "baseline": None if baseline is None else baseline.value / 100,
                    **{name: other[metric][place] for name, other in view.curve.designs.items() if metric in other},
                    "attacked": None if view.curve.attacked is None else view.curve.attacked[metric][place],
                }
            )
    return records


def grid_records(view: CertificateView) -> list[Record]:
    """Return one record per cell of a certificate's grid."""
    shape = view.accuracy.shape
    records = []
    for flat, share in enumerate(view.accuracy.ravel().tolist()):
        places, rest = [], flat
        for size in reversed(shape):
            rest, place = divmod(rest, size)
            places.append(place)
        vector = [radii[place] for radii, place in zip(view.radii, reversed(places), strict=True)]
        radii = {f"r {name}": r for name, r in zip(view.modalities, vector, strict=True)}
        figure = view.figure("grid", at=flat)
        low, high = (None, None) if figure is None or figure.interval is None else figure.interval
        ends = {"low": None if low is None else low / 100, "high": None if high is None else high / 100}
        records.append({"model": view.label, "metric": view.metric, **radii, "certified": share, **ends})
    return records


def every_table(found: Sequence[Section], certificates: Sequence[CertificateView]) -> dict[str, list[Record]]:
    """Return every table of a report by its name; empty ones are left out."""
    tables: dict[str, list[Record]] = {}
    for section in found:
        name = section.heading
        tables[f"{name}"] = [*figure_records(section.figures()), *figure_records(section.figures(more=True))]
        tables[f"{name}, overview"] = overview_records(section.overview())
        tables[f"{name}, success"] = [r for more in (False, True) for r in figure_records(section.success(more=more))]
        tables[f"{name}, differences"] = [
            r for more in (False, True) for r in figure_records(section.differences(more=more))
        ]
    for view in certificates:
        tables[f"certified, {view.label}, curve"] = curve_records(view)
        tables[f"certified, {view.label}, grid"] = grid_records(view)
    return {name: records for name, records in tables.items() if records}


def write_tables(folder: Path | str, tables: Mapping[str, Sequence[Record]]) -> list[Path]:
    """Write every table as `NAME.csv` and `NAME.json`.

    Returns:
        The files.
    """
    folder = Path(folder).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for name, records in tables.items():
        for ending, text in (("csv", as_csv(records)), ("json", as_json(records))):
            path = folder / f"{safe_name(name)}.{ending}"
            write_atomically(path, text)
            files.append(path)
    return files


def as_csv(records: Sequence[Record]) -> str:
    """Return records as CSV (RFC 4180), the keys of all of them as columns; a text that a spreadsheet would take for a
    formula gets an apostrophe in front.

    Example:
        >>> as_csv([{"a": 1, "b": "=x"}])
        'a,b\\r\\n1,\\'=x\\r\\n'
    """
    names = list(dict.fromkeys(name for record in records for name in record))
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(map(_cell, names))
    writer.writerows([_cell(record.get(name)) for name in names] for record in records)
    return buffer.getvalue()


def as_json(records: Sequence[Record]) -> str:
    """Return records as a JSON list."""
    return json.dumps(list(records), indent=1, ensure_ascii=False, allow_nan=False)


def as_link(records: Sequence[Record], ending: str) -> str:
    """Return records as the address of a file that lies in the address itself; `ending` is "csv" or "json"."""
    text = as_csv(records) if ending == "csv" else as_json(records)
    kind = "text/csv" if ending == "csv" else "application/json"
    return f"data:{kind};charset=utf-8;base64,{base64.b64encode(text.encode()).decode()}"


def _cell(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _figure(figure: Estimate) -> dict[str, Any]:
    return {"value": figure.value, "low": figure.low, "high": figure.high, "n": figure.n, "groups": figure.groups}
