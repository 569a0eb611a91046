"""Curves, maps and tables of certificates: what is drawn is what was measured."""

import io
import json
import re
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_helpers import Page, make_certificate
from rich.console import Console

from crossguard.report import (
    CurveView,
    MapsView,
    certificate_entry,
    print_certificates,
    render_report,
    report_runs,
    write_figures,
)
from crossguard.report.certificates import certificate_views, save_maps
from crossguard.report.collect import open_runs
from crossguard.report.curves import along, curve_charts
from crossguard.report.maps import ABSTAIN, NOT_JUDGED, label_map, legend
from crossguard.runs import RunFolder

VECTORS = ((0, 0), (1, 2), (2, 4), (3, 6))
METRICS = ("accuracy", "recall", "precision", "f_score", "iou")


def pixels(**changes):
    """A certificate of a segmentation with a curve of five metrics, the third value of the last not defined."""
    own = {m: (0.9 - i / 10, 0.7 - i / 10, 0.5, 0.0) for i, m in enumerate(METRICS)} | {"iou": (0.5, 0.4, None, 0.1)}
    baseline = dict.fromkeys(METRICS, (0.8, 0.4, 0.2, 0.0))
    picture = np.zeros((4, 6, 3), dtype=np.uint8)
    maps = MapsView(
        "rgb r = 1", (("road", "#56b4e9"),), ("truth", "certified"), (("image-00003", (picture, picture + 9)),)
    )
    return make_certificate(
        **{
            "curve": CurveView(VECTORS, own, baseline),
            "positive": "road",
            "maps": maps,
            "whole_accuracy": 0.875,
            "baseline": np.full((3, 4), 0.25),
            **changes,
        }
    )


def test_points_lie_where_their_values_are():
    view = pixels()
    charts = curve_charts(view)
    assert len(charts) == len(METRICS)
    for chart, metric in zip(charts, METRICS, strict=True):
        heights = {int(tick.lines[0]): tick.y for tick in chart.ticks}
        baseline, certified = chart.lines
        assert (baseline.name, certified.name) == ("baseline", "certified")
        values = [value for value in view.curve.certified[metric] if value is not None]
        for dot, value in zip(certified.dots, values, strict=True):
            assert dot.y == pytest.approx(heights[0] + value * (heights[100] - heights[0]), abs=0.02)
            assert f"{100 * value:.1f} %" in dot.tip
    # The line of IoU is cut where it is not defined.
    assert [len(piece.split()) for piece in charts[-1].lines[1].pieces] == [2, 1]


def test_no_curve_draws_no_chart():
    assert curve_charts(make_certificate()) == []


@given(st.tuples(st.integers(0, 5), st.integers(0, 5)), st.integers(1, 6))
def test_a_line_of_radii_is_named_by_its_direction(direction, steps):
    vectors = tuple(tuple(step * r for r in direction) for step in range(steps + 1))
    name, texts = along(CurveView(vectors, {"accuracy": (1.0,) * (steps + 1)}), ("a", "b"), ("element", "element"))
    if not any(direction):
        assert texts == ("(0, 0)",) * (steps + 1)
        return
    unit = np.array(direction) // np.gcd(*direction)
    for text, vector in zip(texts, vectors, strict=True):
        assert tuple(int(text) * unit) == vector
    assert ("of a" in name, "of b" in name) == (direction[0] > 0, direction[1] > 0)


def test_radii_on_no_line_are_written_out():
    curve = CurveView(((0, 0), (1, 2), (2, 2)), {"accuracy": (1.0, 0.5, 0.1)})
    assert along(curve, ("a", "b"), ("element", "element")) == (
        "edited elements of a, b",
        ("(0, 0)", "(1, 2)", "(2, 2)"),
    )


def test_a_run_keeps_curve_and_maps(tmp_path):
    view = pixels()
    with RunFolder.open(tmp_path / "run", settings={}) as run:
        save_maps(run, view.label, view.maps)
        run.summarise("certificates", view.label, certificate_entry(view))
    (again,) = certificate_views(open_runs([tmp_path / "run"]))
    assert certificate_entry(again) == json.loads(json.dumps(certificate_entry(again))) | {
        name: certificate_entry(again)[name]
        for name in ("modalities", "elements", "keep", "kinds", "units", "curve", "maps")
    }
    assert again.curve == view.curve
    (name, pictures), (expected, originals) = again.maps.rows[0], view.maps.rows[0]
    assert name == expected
    assert all((one == two).all() for one, two in zip(pictures, originals, strict=True))
    page = Page(report_runs([tmp_path / "run"], tmp_path / "report.html").read_text())
    assert page.count("polyline", class_="curve certified") == 6
    assert page.count("polyline", class_="curve baseline") == 5
    assert page.count("img") == 2
    assert "What no attacker can change within rgb r = 1" in page.text
    assert "right for 87.5 %" in page.text
    (tmp_path / "run/maps/watch-net/image-00003-truth.png").unlink()
    with pytest.raises(ValueError, match=r"Expected a map at .*truth\.png"):
        report_runs([tmp_path / "run"], tmp_path / "report.html")


def test_every_curve_is_a_file_of_its_own(tmp_path):
    view = pixels(maps=None)
    beside = {"published, balanced": view.curve.certified, "published, product": view.curve.certified}
    attacked = dict.fromkeys(METRICS, (0.9, 0.8, 0.7, 0.6))
    with RunFolder.open(tmp_path / "run", settings={}) as run:
        view = replace(view, curve=replace(view.curve, designs=beside, attacked=attacked))
        run.summarise("certificates", "net", certificate_entry(view))
    files = write_figures([tmp_path / "run"], tmp_path / "figures")
    assert [path.name for path in files] == [f"run-{metric}.svg" for metric in METRICS]
    space = "{http://www.w3.org/2000/svg}"
    picture = ElementTree.fromstring(files[0].read_text())  # well-formed
    lines = {found.get("class") for found in picture.iter(f"{space}polyline")}
    assert lines == {f"curve {name}" for name in ("certified", "baseline", "design-0", "design-1", "attacked")}
    said = [found.text for found in picture.iter(f"{space}text")]
    assert {"published, balanced", "published, product", "the truth lies here"} <= set(said)
    style = picture.find(f"{space}style").text
    for name in lines:
        assert f".{name.replace(' ', '.')} {{ stroke: var" in style, name
    with RunFolder.open(tmp_path / "none", settings={}) as run:
        run.summarise("certificates", "net", certificate_entry(make_certificate()))
    with pytest.raises(ValueError, match="a run with a certified curve"):
        write_figures([tmp_path / "none"], tmp_path / "figures")


def test_every_colour_that_is_used_is_defined():
    page = render_report(title="t", certificates=[pixels()])
    for part in (page.split("prefers-color-scheme: dark")[0], page.split("prefers-color-scheme: dark")[1]):
        defined = set(re.findall(r"(--[\w-]+):", part))
        assert set(re.findall(r"var\((--[\w-]+)\)", page)) - {"--serif", "--sans"} <= defined


def test_the_table_of_a_curve_has_the_baseline_beside(tmp_path):
    with RunFolder.open(tmp_path / "run", settings={}) as run:
        run.summarise("certificates", "net", certificate_entry(pixels(maps=None)))
    console = Console(file=io.StringIO(), width=140)
    print_certificates([tmp_path / "run"], console=console)
    said = console.file.getvalue()
    assert "r edited pixels of accelerometer, 2 r of gyroscope; positive: road; beside: randomized ablation" in said
    assert "base model on whole inputs 87.5" in said
    rows = [line.split() for line in said.splitlines() if line.strip()[:1].isdigit()]
    assert rows[1] == ["1", *[f"{x:.1f}" for i in range(4) for x in (70 - 10 * i, 40)], "40.0", "40.0"]
    assert rows[2][-2:] == ["–", "20.0"]


def test_samples_and_pixels_are_told_apart():
    assert (
        "Certified pixel accuracy, %: sub-sampled together (baseline)"
        in Page(render_report(title="t", certificates=[pixels()])).text
    )
    assert "pixel" not in Page(render_report(title="t", certificates=[make_certificate()])).text.split("How to read")[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda: CurveView((), {"accuracy": ()}), "at least one radius vector"),
        (lambda: CurveView(((0,),), {"accuracy": (1.5,)}), r"values in \[0, 1\]"),
        (lambda: CurveView(((0,), (1,)), {"accuracy": (1.0,)}), "2 values"),
        (lambda: CurveView(((0,),), {"accuracy": (1.0,)}, {"iou": (1.0,)}), r"baseline of \['accuracy'\]"),
        (lambda: make_certificate(curve=CurveView(((0,),), {"accuracy": (1.0,)})), "radius vectors of 2 entries"),
    ],
)
def test_curves_that_do_not_fit_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        change()


def test_abstention_and_what_is_not_judged_have_colours_of_their_own():
    labels = np.array([[0, 1, -1], [7, 0, 1]])
    certified = np.array([[True, True, True], [True, False, False]])
    plain, shown = label_map(labels), label_map(labels, certified=certified)
    assert (shown[~certified] == ABSTAIN).all()
    assert (shown[certified] == plain[certified]).all()
    assert tuple(plain[0, 2]) == NOT_JUDGED
    colours = [colour for _, colour in legend([f"class {i}" for i in range(8)])]
    assert len(set(colours)) == 10
    assert "#{:02x}{:02x}{:02x}".format(*plain[0, 1]) == colours[1]
