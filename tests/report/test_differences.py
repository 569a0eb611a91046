"""Two models on the same data: paired differences in the table, the page and the JSON; too few groups say so."""

import io
import json

import numpy as np
import pytest
from report_helpers import THREAT, Page, Signs
from rich.console import Console

from crossguard.evaluate import Ratio, evaluate, evaluate_modalities
from crossguard.report import print_retrieval, report_runs, retrieval_table
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
            parts = evaluate_modalities(tiny_clip, toy_pairs, attack=Signs(), threat=THREAT, run=run, label=name)
            results.append(parts["joint"])
    return [tmp_path / "base", tmp_path / "other"], results


def test_a_second_model_is_compared_query_by_query(two):
    paths, (base, other) = two
    first, second = retrieval_table(paths)
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
    print_retrieval(paths, console=console)
    figure = retrieval_table(paths)[1]["difference"]["columns"]["joint"]["ir@1"]
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
    assert [row["difference"] for row in retrieval_table([tmp_path / "all", tmp_path / "some"])] == [None, None]


def test_the_same_weights_are_compared_under_attack_alone(tmp_path, tiny_clip, toy_pairs):
    with RunFolder.open(tmp_path / "run", settings={}) as run:
        for label, seed in (("once", 0), ("again", 1)):
            evaluate(tiny_clip, toy_pairs, attack=Signs(), threat=THREAT, seed=seed, run=run, label=label)
    _, again = retrieval_table([tmp_path / "run"])
    assert list(again["difference"]["columns"]) == ["joint"]


def test_few_groups_show_their_values_and_the_reason(tmp_path, tiny_clip, toy_pairs):
    few = toy_pairs.head(4)
    with RunFolder.open(tmp_path / "run", settings={}) as run:
        result = evaluate(tiny_clip, few, run=run, label="few")
    figure = result.figures["clean"]["tr@1"]
    assert figure.interval is None
    console = Console(file=io.StringIO(), width=140)
    print_retrieval([tmp_path / "run"], console=console)
    said = console.file.getvalue()
    assert f"No intervals where {figure.why}." in said
    if figure.groups > 1:
        assert " · ".join(f"{value:.0f}" for value in figure.by_group.values()) in said
    page = Page(report_runs([tmp_path / "run"], tmp_path / "report.html").read_text())
    assert f"No intervals where {figure.why}." in page.text
    (row,) = retrieval_table([tmp_path / "run"])
    assert row["interval"]["clean"]["tr@1"] is None
    json.dumps(row, allow_nan=False)
