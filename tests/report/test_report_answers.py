"""What a report answers first, its plots, its tables as files, and how many rows of runs are told apart."""

import csv
import io
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_helpers import Page, estimate, keep_entries, make_certificate, make_entry, make_row
from typer.testing import CliRunner

from crossguard.cli import app
from crossguard.evaluate import Estimate
from crossguard.report import Difference, render_report, result_table
from crossguard.report.answer import answers
from crossguard.report.collect import open_runs, result_views
from crossguard.report.export import as_csv, as_link, every_table
from crossguard.report.plots import difference_forest, nice_ticks, scatter_plots, security_plots
from crossguard.report.sections import sections
from crossguard.report.views import CurveView

EPS = (1, 2, 4)


def left(eps, words, *, weak=0.0):
    return estimate(80.0 - 5 * eps - 10 * words - weak)


def curve_entries(model, *, weak=0.0):
    """A model under every combination of three budgets of the image and two of the text, and under each alone."""
    entries = [make_entry(model, "clean")]
    for eps in (0, *EPS):
        for words in (0, 1, 2):
            if not eps and not words:
                continue
            threat = {"target": "both"}
            threat |= {"image": {"type": "l-inf", "eps": eps / 255}} if eps else {}
            threat |= {"text": {"type": "word-edits", "words": words, "kinds": ["substitution"]}} if words else {}
            part = "joint" if eps and words else "image" if eps else "text"
            robust = left(eps, words, weak=weak)
            entries.append(
                make_entry(
                    f"{model}, {eps}, {words}",
                    part,
                    subject=model,
                    model=model,
                    attack_label="own",
                    threat=threat,
                    weights=model,
                    estimates={"clean": {"points": estimate(80.0)}, "robust": {"points": robust}},
                )
            )
    return entries


@pytest.fixture
def curves(tmp_path):
    return [keep_entries(tmp_path / "run", [*curve_entries("a"), *curve_entries("b", weak=3.0)])]


def test_rows_of_several_budgets_share_what_was_attacked_alone(curves):
    table = result_table(curves)
    assert len(table) == 2 * 3 * 2
    for row in table:
        eps, words = round(255 * row["budgets"]["image"]["eps"]), row["budgets"]["text"]["words"]
        weak = 0.0 if row["model"] == "a" else 3.0
        wanted = {"clean": 80.0, "image": 80 - 5 * eps - weak, "text": 80 - 10 * words - weak}
        wanted["joint"] = 80 - 5 * eps - 10 * words - weak
        assert {column: figures["points"] for column, figures in row["figures"].items()} == wanted
    assert [row["label"] for row in table[:2]] == ["a, L-inf 1/255, 1 word", "a, L-inf 1/255, 2 words"]


def test_security_curves_go_through_every_budget_with_the_others_fixed(curves):
    (section,) = sections(result_views(open_runs(curves)))
    assert section.facts == ("image", "text")
    plots = {plot.title: plot for plot in security_plots(section)}
    assert list(plots) == ["points against the image budget", "points against the text budget"]
    image = plots["points against the image budget"]
    assert image.across_name == "image: L-inf in 1/255"
    assert [label.lines[0] for label in image.across] == ["0", "1", "2", "4"]
    assert len(image.tracks) == 2 * 3
    unit = (image.ticks[0].y - image.ticks[-1].y) / (float(image.ticks[-1].lines[0]) - float(image.ticks[0].lines[0]))
    by_name = {track.name: track for track in image.tracks}
    track = by_name["b; text: 1 word"]
    values = [(image.base - mark.y) / unit for mark in track.marks]
    assert values == pytest.approx([67.0, 62.0, 57.0, 47.0], abs=0.1)
    low = [(image.base - mark.low) / unit for mark in track.marks]
    assert low == pytest.approx([66.0, 61.0, 56.0, 46.0], abs=0.1)
    xs = [mark.x for mark in track.marks]
    assert (xs[2] - xs[0]) / (xs[1] - xs[0]) == pytest.approx(2, abs=0.01)  # in proportion to the budget
    assert {track.colour for track in image.tracks if track.name.startswith("a")} == {0}
    assert "image: L-inf in 1/255" in Page(render_report(title="t", results=section.views)).words


def test_a_single_budget_has_no_curve(tmp_path):
    (section,) = sections(result_views(open_runs([keep_entries(tmp_path / "run", [make_entry(), make_entry("b")])])))
    assert security_plots(section) == []
    assert [len(plot.tracks) for plot in scatter_plots(section)] == [2]


def test_differences_are_between_rows_of_the_same_budgets(curves):
    views = result_views(open_runs(curves))
    assert all(view.difference is None for view in views)  # somebody's own task, whose rows nobody can pair
    known = [
        replace(view, difference=Difference("a", {"joint": {"points": Estimate(-3.0, -4.0, -2.0, 100, 50)}}))
        for view in views
        if view.model == "b"
    ]
    (section,) = sections([*[view for view in views if view.model == "a"], *known])
    forest = difference_forest(section)
    assert len(forest.bars) == 6
    assert all(bar.low < bar.x < bar.high < forest.zero for bar in forest.bars)


@given(st.floats(-1e4, 1e4), st.floats(1e-3, 1e4))
def test_ticks_are_round_few_and_hold_the_range(low, reach):
    ticks = nice_ticks(low, low + reach)
    assert 2 <= len(ticks) <= 6
    assert ticks[0] <= low + 1e-6 * reach
    assert ticks[-1] >= low + reach - 1e-6 * reach
    steps = np.diff(ticks)
    assert np.allclose(steps, steps[0])
    digits = f"{steps[0]:.6e}".split("e")[0].rstrip("0").rstrip(".")
    assert digits in ("1", "2", "5")


def test_the_answer_names_the_best_the_attack_and_the_interval(curves):
    found = sections(result_views(open_runs(curves)))
    (said,) = answers(found, [])
    assert "a keeps the most: points 40.0 (95 % interval 39.0–41.0)" in said
    assert "b with points 37.0" in said
    assert "without attack points 80.0" in said


def test_the_answer_of_one_model_and_of_clean_figures():
    (alone,) = answers(sections([make_row("mat")]), [])
    assert alone.startswith(
        "Retrieval on 100 images and 100 texts of toy (test): under attack (sga, image: L-inf 2/255"
    )
    assert "mat keeps TR@1 30.0" in alone
    (clean,) = answers(sections([make_row("mat", columns=("clean",), attack=None, threat="", success={})]), [])
    assert clean.startswith("Retrieval, without attack: mat: TR@1 90.0")
    warned = answers(sections([make_row("mat", warnings=["Weak."])]), [])
    assert warned[1].startswith("One warning says")


def test_the_answer_of_a_certificate_says_radii_kind_unit_and_alpha():
    (said,) = answers([], [make_certificate(units=("step", "step"))])
    assert "and no attack on " in said
    assert "(alpha = 0.001, per sample, all radii at once)" in said
    assert "up to 1 step of accelerometer (substitution) and up to 1 step of gyroscope (insertion)" in said
    curve = CurveView(((0, 0), (1, 1), (2, 2)), {"accuracy": (0.9, 0.6, 0.2)}, attacked={"accuracy": (0.9, 0.7, 0.5)})
    (said,) = answers([], [make_certificate(curve=curve, alpha=0.0)])
    assert "60.0 % of 40 samples are right" in said
    assert "up to 1 element of accelerometer (substitution) and up to 1 element of gyroscope (insertion)" in said
    assert "without any chance of error" in said
    assert "70.0 % stay right: the truth lies between" in said


def test_every_table_can_be_had_as_csv_and_json(curves, tmp_path):
    found = sections(result_views(open_runs(curves)))
    tables = every_table(found, [make_certificate()])
    assert list(tables) == ["Answering", "Answering, overview", "certified, watch-net, grid"]
    rows = list(csv.DictReader(io.StringIO(as_csv(tables["Answering"]))))
    assert len(rows) == 12 * 4
    assert rows[0].keys() == {"metric", "model", "image", "text", "attacked", "value", "low", "high", "n", "groups"}
    last = next(
        r
        for r in rows
        if (r["model"], r["image"], r["text"], r["attacked"]) == ("b", "L-inf 4/255", "2 words", "joint")
    )
    assert float(last["value"]) == 37.0
    assert [r["certified"] for r in tables["certified, watch-net, grid"]] == pytest.approx(np.linspace(0.95, 0.05, 12))
    done = CliRunner().invoke(
        app, ["report", str(curves[0]), "--out", str(tmp_path / "page.html"), "--tables", str(tmp_path / "tables")]
    )
    assert done.exit_code == 0, done.output
    assert sorted(path.suffix for path in (tmp_path / "tables").iterdir()) == [".csv", ".csv", ".json", ".json"]
    kept = json.loads((tmp_path / "tables" / "Answering.json").read_text())
    assert kept[0]["model"] == "a"


def test_names_that_a_spreadsheet_would_compute_are_texts():
    text = as_csv([{"model": "=1+1", "value": -2.0}, {"model": "@x", "value": None}])
    assert text.splitlines() == ["model,value", "'=1+1,-2.0", "'@x,"]
    assert as_link([{"a": 1}], "json").startswith("data:application/json")


def test_many_rows_get_a_table_that_sorts_and_filters(curves, tmp_path):
    curves = [*curves, keep_entries(tmp_path / "more", curve_entries("c"))]
    views = result_views(open_runs(curves))
    text = render_report(title="t", results=views)
    page = Page(text)
    assert page.count("script") == 1
    assert page.count("table", class_="sortable") == 1
    assert text.count("data-threat=") == 18
    assert "All 18 rows, headline figures" in page.words
    assert Page(render_report(title="t", results=views[:3])).count("script") == 0
