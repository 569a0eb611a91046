"""Results, certificates and data sets as notebooks show them, and plots as SVG files."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from crossguard.certify.certificate import SampleCertificate
from crossguard.certify.segment import SegmentationCertificate
from crossguard.data import LabelledImages, MultiModalSamples, OneToManyPairs
from crossguard.evaluate.result import Outcome, Result
from crossguard.report.certificates import certificate_view
from crossguard.report.collect import views_of
from crossguard.report.colours import LIGHT
from crossguard.report.pictures import data_uri
from crossguard.report.plots import Forest, Plot, forest, scatter_plots, security_plots
from crossguard.report.sections import Section, sections
from crossguard.report.templates import get_template
from crossguard.report.words import column_name, metric_title, spread
from crossguard.runs import write_atomically

_SHOWN = 8
_SIDE = 72


@dataclass(frozen=True)
class Svg:
    """A plot as one SVG text, which notebooks show; `save` writes it to a file."""

    title: str
    text: str

    def __repr__(self) -> str:
        return f"Svg({self.title!r}, {len(self.text):,} characters)"

    def _repr_svg_(self) -> str:
        return self.text

    def save(self, path: Path | str) -> Path:
        """Write the plot to a file, as a whole or not at all.

        Returns:
            The path.
        """
        path = Path(path).expanduser()
        write_atomically(path, self.text)
        return path


def result_plots(result: Result) -> list[Svg]:
    """Return the plots of a result: security curves where it has several budgets, else its figures with intervals."""
    drawn: list[Svg] = []
    for section in _sections(result):
        curves = [*security_plots(section), *scatter_plots(section)]
        drawn += [_svg(plot) for plot in curves] or [_svg(_figures(section))]
    return drawn


def as_html(value: Any) -> str:
    """Return a value as notebooks show it.

    Raises:
        TypeError: nothing that crossguard shows.
    """
    if isinstance(value, Outcome):
        value = Result((value,))
    if isinstance(value, Result):
        body = "".join(map(_section_html, _sections(value))) + "".join(svg.text for svg in result_plots(value))
    elif isinstance(value, SampleCertificate):
        body = _certificate_html(value)
    elif isinstance(value, SegmentationCertificate | OneToManyPairs | LabelledImages | MultiModalSamples):
        body = f"<p>{escape(repr(value))}</p>{_pictures_html(value)}"
    else:
        raise TypeError(f"Expected a result, a certificate or data, but got {type(value).__name__}.")
    return f'<div class="crossguard">{body}</div>'


def _sections(result: Result) -> list[Section]:
    return sections(views_of([outcome.summary() for outcome in result]))


def _section_html(section: Section) -> str:
    table = section.figures()
    columns = [*table.facts, *map(column_name, table.columns), "n / groups"]
    lines = []
    for line in table.lines:
        cells = [
            "–" if figure is None else f"<b>{figure.value:.1f}</b> <small>{escape(spread(figure))}</small>"
            for figure in line.figures
        ]
        lines.append([escape(line.name), *map(escape, line.row), *cells, escape(line.rests_on)])
    under = f" ({section.under})" if section.under else ""
    return _table(f"{section.heading}{under}, in percent with 95 % intervals", ["metric", "model", *columns], lines)


def _table(caption: str, columns: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return a table; cells of `lines` are HTML already."""
    heads = "".join(f'<th scope="col" style="text-align:left">{escape(column)}</th>' for column in columns)
    rows = "".join(
        "<tr>" + "".join(f'<td style="text-align:left">{cell}</td>' for cell in line) + "</tr>" for line in lines
    )
    return f"<table><caption>{escape(caption)}</caption><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"


def _certificate_html(certificate: SampleCertificate) -> str:
    view = certificate_view(certificate)
    radii = [radii[: min(len(radii), 9)] for radii in view.radii]
    down = [("",)] if len(radii) == 1 else [(f"{view.modalities[0]} {r}",) for r in radii[0]]
    grid = view.accuracy.reshape(-1, view.accuracy.shape[-1])
    lines = [
        [escape(name), *(f"{100 * grid[row, column]:.1f}" for column in range(len(radii[-1])))]
        for row, (name,) in enumerate(down)
    ]
    columns = ["", *(f"{view.modalities[-1]} {r}" for r in radii[-1])]
    caption = f"{certificate!r}: right and certified at radii, in percent"
    return _table(caption, columns, lines)


def _pictures_html(value: Any) -> str:
    if not isinstance(value, OneToManyPairs | LabelledImages):
        return ""
    said = []
    for index in range(min(_SHOWN, len(value.images))):
        text = value.texts[value.texts_of(index)[0]] if isinstance(value, OneToManyPairs) else _class_of(value, index)
        picture = data_uri(np.asarray(value.image(index).convert("RGB")), longest=_SIDE)
        said.append(
            f'<figure style="display:inline-block;width:{_SIDE + 40}px;margin:4px;vertical-align:top">'
            f'<img src="{picture}" alt=""><figcaption><small>{escape(text)}</small></figcaption></figure>'
        )
    return "".join(said)


def _class_of(images: LabelledImages, index: int) -> str:
    label = int(images.labels[index])
    return "not judged" if label < 0 else images.classes[label]


def _figures(section: Section) -> Forest:
    rows = [
        (f"{metric_title(metric)} {view.label}, {column_name(column)}", figures[metric])
        for metric in section.headline
        for view in section.views
        for column, figures in view.columns.items()
        if metric in figures
    ]
    return forest(section.heading, "percent", rows)


def _svg(drawn: Plot | Forest) -> Svg:
    template = get_template("plot.svg.j2", filters={})
    return Svg(drawn.title, template.render(chart=drawn, colours=LIGHT, forest=isinstance(drawn, Forest)))
