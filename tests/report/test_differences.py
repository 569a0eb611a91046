"""Two models on the same data: paired differences in the table, the page and the JSON; too few groups say so."""

import io
import json

import numpy as np
import pytest
from report_helpers import THREAT, Page, Signs, estimate, keep_entries, make_entry
from rich.console import Console

from crossguard.evaluate import Ratio, evaluate
from crossguard.evaluate.statistics import bootstrap_figure
from crossguard.report import print_results, report_runs, result_table
from crossguard.runs import RunFolder


@pytest.fixture
def two(tmp_path, tiny_clip, toy_pairs):
    """Runs of a model and of one whose first projection is another, with the results of the joint attack."""
    results = []
    for name in ("base", "other"):
        if name == "other":
            with_noise = dict(tiny_clip.state_dict())
            key = next(k for k in with_noise if "visual_projection" in k)
            with_noise[key] = with_noise[key].roll(1, 0)
            tiny_clip.load_state_dict(with_noise)
        with RunFolder.open(tmp_path / name, settings={"model": name}) as run:
            signs = {"attack": Signs(), "threat": THREAT, "modalities": True}
            results.append(evaluate(tiny_clip, toy_pairs, **signs, run=run, label=name).of("joint"))
    return [tmp_path / "base", tmp_path / "other"], results


def test_a_second_model_is_compared_query_by_query(two):
    paths, (base, other) = two
    first, second = result_table(paths)
    assert first["difference"] is None
    assert second["difference"]["from"] == "base"
    found = second["difference"]["columns"]
    assert list(found) == ["clean", "image", "text", "joint"]
    for metric, direction, cut in (("tr@1", "tr", 1), ("ir@5", "ir", 5)):
        hits = [
            np.array([row["robust_rank"] <= cut for row in result.rows if row["direction"] == direction])
            for result in (other, base)
        ]
        groups = np.array([row["group"] for row in base.rows if row["direction"] == direction])
        expected = Ratio.of_hits(hits[0], groups).minus(Ratio.of_hits(hits[1], groups))
        figure = found["joint"][metric]
        assert (figure["value"], figure["low"], figure["high"]) == (expected.value, expected.low, expected.high)
        assert (figure["n"], figure["groups"]) == (len(groups), len(set(groups)))


def test_the_comparison_is_printed_and_shown(two, tmp_path):
    paths, _ = two
    console = Console(file=io.StringIO(), width=140)
    print_results(paths, console=console)
    figure = result_table(paths)[1]["difference"]["columns"]["joint"]["ir@1"]
    said = console.file.getvalue()
    assert "Differences on the same samples" in said
    assert "other less base" in said
    assert f"{figure['value']:+.1f}" in said
    page = Page(report_runs(paths, tmp_path / "report.html").read_text())
    assert "Differences on the same samples" in page.words
    assert f"{figure['value']:+.1f}" in page.words
    assert f"{figure['low']:.1f} to {figure['high']:.1f}" in page.text


def test_other_data_are_not_compared(tmp_path, tiny_clip, toy_pairs):
    for name, pairs in (("all", toy_pairs), ("some", toy_pairs.head(20))):
        with RunFolder.open(tmp_path / name, settings={}) as run:
            evaluate(tiny_clip, pairs, run=run, label=name)
    assert [row["difference"] for row in result_table([tmp_path / "all", tmp_path / "some"])] == [None, None]


def test_the_same_weights_are_compared_under_attack_alone(tmp_path, tiny_clip, toy_pairs):
    with RunFolder.open(tmp_path / "run", settings={}) as run:
        for label, seed in (("once", 0), ("again", 1)):
            evaluate(tiny_clip, toy_pairs, attack=Signs(), threat=THREAT, seed=seed, run=run, label=label)
    _, again = result_table([tmp_path / "run"])
    assert list(again["difference"]["columns"]) == ["joint"]


def test_few_groups_show_their_values_and_the_reason(tmp_path, tiny_clip, toy_pairs):
    few = toy_pairs.head(4)
    with RunFolder.open(tmp_path / "run", settings={}) as run:
        result = evaluate(tiny_clip, few, run=run, label="few")
    figure = next(figure for figure in result.figures if (figure.what, figure.metric) == ("clean", "tr@1"))
    assert figure.interval is None
    console = Console(file=io.StringIO(), width=140)
    print_results([tmp_path / "run"], console=console)
    said = console.file.getvalue()
    assert f"No intervals where {figure.why}." in said
    if figure.groups > 1:
        assert " · ".join(f"{value:.0f}" for value in figure.by_group.values()) in said
    page = Page(report_runs([tmp_path / "run"], tmp_path / "report.html").read_text())
    assert f"No intervals where {figure.why}." in page.text
    (row,) = result_table([tmp_path / "run"])
    assert row["interval"]["clean"]["tr@1"] is None
    json.dumps(row, allow_nan=False)


def labelled_rows(label, answers):
    """Rows of classification, the last first, one of them twice: what was appended last counts."""
    rows = [
        {
            "section": f"classification/{label}/joint",
            "index": index,
            "group": index,
            "label": "a",
            "clean": "a",
            "robust": answer,
        }
        for index, answer in enumerate(answers)
    ]
    return [{**rows[0], "robust": "b" if rows[0]["robust"] == "a" else "a"}, *reversed(rows)]


def test_any_task_of_the_table_is_compared_by_its_own_ratios(tmp_path):
    answers = {"base": "aabbbbbbabab", "other": "aaaaabbbbbab"}
    paths = []
    for label, said in answers.items():
        about = {"heading": "Classification", "explained": "", "headline": ["accuracy"], "samples": "12 samples"}
        figures = {"clean": {"accuracy": estimate(99.0)}, "robust": {"accuracy": estimate(50.0)}}
        entry = make_entry(label, task="classification", weights="same", about=about, estimates=figures)
        paths.append(keep_entries(tmp_path / label, [entry], labelled_rows(label, said)))
    _, other = result_table(paths)
    base, mine = (Ratio.of_hits(np.array([a == "a" for a in said]), np.arange(12)) for said in answers.values())
    assert other["difference"]["columns"] == {"joint": {"accuracy": vars(mine.minus(base))}}


@pytest.mark.parametrize(("change", "compared"), [({}, True), ({"seed": 1}, False), ({"tokenizer": "plain"}, False)])
def test_resampled_scores_are_compared_draw_by_draw(tmp_path, change, compared):
    draws = {"base": np.linspace(20, 40, 1000), "other": np.linspace(35, 30, 1000)}
    entries = []
    for label, drawn in draws.items():
        told = change if label == "other" else {}
        about = {
            "heading": "Captioning",
            "explained": "",
            "headline": ["CIDEr"],
            "samples": "100 images",
            "draws": {"clean": {"CIDEr": drawn.tolist()}},
            "tokenizer": told.get("tokenizer", "ptb"),
        }
        figures = {"clean": {"CIDEr": estimate(30.0 if label == "base" else 32.5), "SPICE": None}}
        seed = told.get("seed", 0)
        entries.append(make_entry(label, "clean", task="captioning", about=about, estimates=figures, seed=seed))
    _, other = result_table([keep_entries(tmp_path / "run", entries)])
    if not compared:
        assert other["difference"] is None
        return
    expected = bootstrap_figure(2.5, draws["other"] - draws["base"], n=100, groups=50)
    assert other["difference"] == {"from": "base", "columns": {"clean": {"CIDEr": vars(expected)}}}


def test_another_positive_class_is_not_compared(tmp_path):
    entries = [
        make_entry(label, "clean", task="segmentation", weights=label, positive=positive)
        for label, positive in (("a", "road"), ("b", "car"))
    ]
    assert [row["difference"] for row in result_table([keep_entries(tmp_path / "run", entries)])] == [None, None]
