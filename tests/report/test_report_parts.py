"""Geometry, words, pictures and checks of the views."""

import base64
import io
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from report_helpers import make_certificate, make_row
from rich.console import Console

from crossguard.evaluate import Estimate
from crossguard.report.figures import bar_chart, heat_map
from crossguard.report.pictures import amplified_difference, data_uri
from crossguard.report.tables import certificate_rich
from crossguard.report.words import columns_of, flat, marked_words


def test_bars_are_as_high_as_their_values():
    views = [make_row("a"), make_row("b")]
    chart = bar_chart(views, "ir@1")
    ticks = {int(tick.lines[0]): tick.y for tick in chart.ticks}
    unit = (ticks[0] - ticks[100]) / 100
    assert ticks[0] == chart.base
    values = [view.columns[c]["ir@1"] for view in views for c in ("clean", "image", "text", "joint")]
    for bar, share in zip(chart.bars, values, strict=True):
        assert bar.height == pytest.approx(max(share.value * unit, 0.75), abs=0.02)
        assert bar.y + bar.height == pytest.approx(chart.base, abs=0.8)
        _, top, bottom = bar.whisker
        assert (chart.base - top) / unit == pytest.approx(share.high, abs=0.02)
        assert (chart.base - bottom) / unit == pytest.approx(share.low, abs=0.02)


@given(st.floats(0, 900), st.floats(0, 50))
def test_scores_above_100_stay_inside(value, reach):
    figure = Estimate(value, max(0.0, value - reach), value + reach)
    chart = bar_chart([replace(make_row(), columns={"clean": {"CIDEr": figure}})], "CIDEr")
    (bar,) = chart.bars
    assert min(bar.y, *bar.whisker[1:]) >= chart.ticks[-1].y - 0.02
    assert int(chart.ticks[-1].lines[0]) - 100 < max(100, value + reach)
    assert chart.ticks[0].lines == ("0",)


@given(st.integers(1, 12), st.sets(st.sampled_from(["image", "text", "joint", "depth"])))
def test_bars_do_not_overlap_and_stay_inside(count, extra):
    columns = {column: {"tr@1": Estimate(50.0, 40.0, 60.0)} for column in ("clean", *extra)}
    view = replace(make_row("a long name of a model"), columns=columns)
    chart = bar_chart([view] * count, "tr@1")
    bars = sorted(chart.bars, key=lambda bar: bar.x)
    assert len(bars) == count * len(columns)
    assert bars[0].x >= chart.left
    assert bars[-1].x + bars[-1].width <= chart.width
    for one, other in pairwise(bars):
        assert one.width > 0
        assert one.x + one.width <= other.x + 0.02


def test_cells_lie_where_their_radii_are():
    view = make_certificate()
    drawn = heat_map(view, view.accuracy, title="t")
    assert len(drawn.cells) == 12
    by_tip = {cell.tip.split(":")[0]: cell for cell in drawn.cells}
    origin, right, up = by_tip["r = (0, 0)"], by_tip["r = (0, 5)"], by_tip["r = (2, 0)"]
    assert right.x > origin.x
    assert right.y == origin.y
    assert up.y < origin.y
    assert up.x == origin.x
    for i, r1 in enumerate((0, 1, 2)):
        for j, r2 in enumerate((0, 1, 2, 5)):
            assert by_tip[f"r = ({r1}, {r2})"].strength == pytest.approx(view.accuracy[i, j], abs=1e-4)


@pytest.mark.parametrize("shape", [(1, 1), (5, 200), (300, 2), (41, 41)])
def test_long_axes_are_thinned_with_both_ends(shape):
    view = make_certificate(radii=tuple(tuple(range(size)) for size in shape), accuracy=np.zeros(shape))
    drawn = heat_map(view, view.accuracy, title="t")
    rows, columns = (min(size, 40) for size in shape)
    assert len(drawn.cells) == rows * columns
    tips = {cell.tip.split(":")[0] for cell in drawn.cells}
    assert {"r = (0, 0)", f"r = ({shape[0] - 1}, {shape[1] - 1})"} <= tips
    for cell in drawn.cells:
        assert cell.x + drawn.size[0] <= drawn.width
        assert cell.y + drawn.size[1] <= drawn.height
    for labels in (drawn.across, drawn.up):
        spots = sorted((label.x, label.y) for label in labels)
        assert len(spots) == len(set(spots))


def test_one_modality_is_one_row():
    view = make_certificate(
        modalities=("words",),
        elements=(12,),
        keep=(4,),
        kinds=("substitution",),
        radii=((0, 1, 2),),
        accuracy=np.array([0.9, 0.5, 0.0]),
    )
    drawn = heat_map(view, view.accuracy, title="t")
    assert [cell.tip for cell in drawn.cells] == [
        "r = 0: 90.0 % right and certified",
        "r = 1: 50.0 % right and certified",
        "r = 2: 0.0 % right and certified",
    ]
    assert len({cell.y for cell in drawn.cells}) == 1
    console = Console(file=io.StringIO(), width=100)
    console.print(certificate_rich(view))
    assert "90.0" in console.file.getvalue()


def test_long_grids_fit_the_terminal():
    view = make_certificate(radii=(tuple(range(100)), tuple(range(50))), accuracy=np.zeros((100, 50)))
    table = certificate_rich(view, most=7)
    assert table.row_count == 7
    assert [column.header for column in table.columns][1:] == ["0", "8", "16", "24", "33", "41", "49"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"modalities": ("a", "b", "c")}, "one or two modalities"),
        ({"keep": (1,)}, "of all 2 modalities"),
        ({"accuracy": np.zeros((3, 3))}, r"shape \(3, 4\)"),
        ({"accuracy": np.full((3, 4), 95.0)}, r"in \[0, 1\]"),
        ({"accuracy": np.full((3, 4), np.nan)}, r"in \[0, 1\]"),
        ({"baseline": np.full((3, 4), 1.5)}, r"`baseline` in \[0, 1\]"),
        ({"radii": ((), (0,)), "accuracy": np.zeros((0, 1))}, "shape"),
    ],
)
def test_wrong_certificates_are_refused(change, said):
    with pytest.raises(ValueError, match=said):
        make_certificate(**change)


@pytest.mark.parametrize("values", [(50.0, 60.0, 70.0), (50.0, 40.0, 45.0), (float("nan"), 40.0, 60.0)])
def test_figures_outside_their_intervals_are_refused(values):
    with pytest.raises(ValueError, match="low <= value <= high"):
        replace(make_row(), columns={"clean": {"tr@1": Estimate(*values)}})


def test_a_row_without_clean_figures_is_refused():
    with pytest.raises(ValueError, match="'clean' column"):
        replace(make_row(), columns={"joint": {}})


def test_columns_come_in_their_order():
    assert columns_of([make_row(columns=("joint", "depth", "clean")), make_row(columns=("clean", "text"))]) == (
        "clean",
        "text",
        "depth",
        "joint",
    )


WORDS = st.lists(st.sampled_from(["a", "red", "car", "on", "the", "road"]), min_size=1, max_size=8).map(" ".join)


@given(WORDS, WORDS)
def test_unmarked_words_are_common_to_both(clean, adversarial):
    before, after = marked_words(clean, adversarial)
    assert [word.text for word in before] == clean.split()
    assert [word.text for word in after] == adversarial.split()
    kept = [word.text for word in before if not word.changed]
    assert kept == [word.text for word in after if not word.changed]
    assert (clean.split() == adversarial.split()) == (not any(word.changed for word in before + after))


def test_settings_are_told_plainly():
    assert flat({"a": {"b": {"c": 0.1 + 0.2}}, "d": [], "e": "", "f": False, "g": (1, "x"), "h": 0}) == {
        "a.b.c": "0.3",
        "f": "False",
        "g": "1, x",
        "h": "0",
    }


@given(st.integers(0, 255), st.integers(0, 255))
def test_differences_are_amplified_as_far_as_they_go(clean, adversarial):
    one, other = (np.full((2, 2, 3), value, np.uint8) for value in (clean, adversarial))
    shown, factor = amplified_difference(one, other)
    change = adversarial - clean
    assert int(shown[0, 0, 0]) == min(255, max(0, 128 + factor * change))
    assert factor & (factor - 1) == 0
    if 0 < abs(change) <= 127:
        assert factor * abs(change) <= 127 < 2 * factor * abs(change)
    else:
        assert factor == 1


def test_small_pictures_are_kept_bit_by_bit():
    picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    uri = data_uri(picture, longest=30)
    body = base64.b64decode(uri.split(",")[1])
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(body))), picture)
    shrunk = Image.open(io.BytesIO(base64.b64decode(data_uri(picture, longest=15).split(",")[1])))
    assert shrunk.size == (15, 10)
