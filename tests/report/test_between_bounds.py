"""The figure between two bounds: certified below, attacked above."""

from dataclasses import replace

import numpy as np
import pytest

from crossguard.report.certificates import _read_curve
from crossguard.report.curves import curve_charts
from crossguard.report.views import CertificateView, CurveView

CURVE = CurveView(
    radii=((0, 0), (1, 1), (2, 2), (3, 3)),
    certified={"accuracy": (0.9, 0.5, 0.2, 0.0)},
    attacked={"accuracy": (0.95, None, 0.6, None)},
)
VIEW = CertificateView(
    label="net",
    data="toy",
    split="test",
    samples=10,
    modalities=("a", "b"),
    elements=(9, 9),
    keep=(2, 2),
    kinds=("substitution", "substitution"),
    radii=((0,), (0,)),
    accuracy=np.array([[0.9]]),
    draws=100,
    alpha=0.01,
    scope="per input",
    clean_accuracy=0.95,
    abstention=0.0,
    curve=CURVE,
)


def test_the_truth_lies_between_the_lines_where_there_were_attacks():
    (chart,) = curve_charts(VIEW)
    lines = {line.name: line for line in chart.lines}
    assert list(lines) == ["certified", "attacked"]
    assert [len(line.dots) for line in lines.values()] == [4, 2]
    assert len(lines["attacked"].pieces) == 1  # radii that were not attacked do not cut the line
    corners = [tuple(map(float, point.split(","))) for point in chart.between.split()]
    above, below = corners[:2], corners[2:]
    assert [x for x, _ in above] == [lines["attacked"].dots[0].x, lines["attacked"].dots[1].x]
    assert [x for x, _ in below] == [dot.x for dot in reversed(lines["certified"].dots[:3])]
    assert max(y for _, y in above) < max(y for _, y in below)  # y grows downwards


def test_without_attacks_nothing_is_shaded():
    (chart,) = curve_charts(replace(VIEW, curve=replace(CURVE, attacked=None)))
    assert chart.between == ""
    assert [line.name for line in chart.lines] == ["certified"]


def test_attacked_figures_come_back_from_a_summary():
    assert _read_curve(vars(CURVE)) == CURVE
    older = {name: value for name, value in vars(CURVE).items() if name != "attacked"}
    assert _read_curve(older).attacked is None


def test_attacked_figures_of_another_metric_are_refused():
    with pytest.raises(ValueError, match="Expected attacked figures"):
        replace(CURVE, attacked={"recall": (0.9, 0.5, 0.2, 0.0)})
