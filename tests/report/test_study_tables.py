"""Means, intervals and differences of a study, against numbers worked out by other means."""

import numpy as np
import pytest
from report_helpers import Page
from scipy import stats

from crossguard.evaluate import Ratio
from crossguard.report.study import collect_study, seed_mean, study_markdown, write_study
from crossguard.report.study.figures import planes, ways
from crossguard.report.study.samples import over_samples, sample_figures

METRICS = ("tr@1", "ir@1", "tr@5", "ir@5", "tr@10", "ir@10")


def recalls(at_1):
    return {metric: min(100.0, at_1 + 10 * place) for place, metric in enumerate(METRICS)}


@pytest.fixture
def settings():
    return {
        "model": "m",
        "data": {"name": "d", "split": "train"},
        "test": {"name": "d", "split": "test"},
        "originals": 10,
        "steps": 5,
        "batch_size": 4,
        "seeds": [0, 1, 2],
        "reference": "mat",
        "tables": {
            "one": {"title": "One", "figure": "samples", "attacks": {"sga": {"parts": ["joint"]}}},
            "two": {"title": "Two", "figure": "measures", "attacks": {"sga": {"parts": ["joint"]}}},
        },
        "arms": {
            "none": {"tables": ["one"], "defence": None, "sources": [], "per_sample": 4},
            "mat": {"tables": ["one"], "defence": "mat", "sources": [], "per_sample": 4},
            "eda 1": {"tables": ["one", "two"], "defence": "mat+", "sources": [{"name": "eda"}], "per_sample": 1},
            "eda 4": {"tables": ["one", "two"], "defence": "mat+", "sources": [{"name": "eda"}], "per_sample": 4},
        },
    }


ROBUST = {"none": [20.0], "mat": [40.0, 44.0, 48.0], "eda 1": [41.0, 47.0, 49.0], "eda 4": [50.0, 55.0]}


@pytest.fixture
def rows():
    found = []
    for arm, values in ROBUST.items():
        for seed, value in enumerate(values):
            row = {"arm": arm, "seed": seed, "section": "study", "attack": "sga", "part": "joint"}
            known = {"alignment": 0.5 + seed / 10, "diversity": 0.1, "gap": 0.2} if "eda" in arm else {}
            row["passes"] = {"image": 10.0 + seed, "text": 3.0}
            found.append({**row, **known, "images": 6, "texts": 9, "clean": recalls(70.0), "robust": recalls(value)})
    return found


def test_an_interval_is_that_of_a_t_test():
    values = [3.0, 4.0, 8.0, 1.0]
    found = seed_mean(values)
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert np.allclose([found.mean - found.half, found.mean + found.half], [low, high])
    assert seed_mean([5.0]).half is None
    assert seed_mean([]) is None


def test_differences_are_taken_seed_by_seed(settings, rows):
    table = collect_study(settings, rows).tables[0]
    gains = {row.name: row.gains["sga, joint"] for row in table.rows}
    paired = stats.ttest_rel(ROBUST["eda 1"], ROBUST["mat"]).confidence_interval(0.95)
    assert np.allclose(gains["eda 1"].mean - gains["eda 1"].half, paired.low)
    assert gains["eda 4"].seeds == 2  # the third seed is not there yet
    assert gains["eda 4"].mean == pytest.approx(((50 - 40) + (55 - 44)) / 2)
    assert gains["none"].mean == pytest.approx(20 - 44)
    assert gains["none"].seeds == 3


def test_what_is_missing_is_counted(settings, rows):
    found = collect_study(settings, rows)
    assert found.missing == 1
    assert "1 trials are still missing" in study_markdown(found)
    assert collect_study(settings, []).missing == 10


def test_trials_that_the_recipe_has_no_more_do_not_make_up_for_missing_ones(settings, rows):
    settings["tables"]["one"]["attacks"] = settings["tables"]["two"]["attacks"] = {"pgd": {"parts": ["image"]}}
    assert collect_study(settings, rows).missing == 10


def test_lines_of_figures_go_from_few_samples_to_many(settings, rows):
    settings["arms"] = dict(reversed(settings["arms"].items()))
    (plane,) = planes(collect_study(settings, rows).tables[0])
    by_name = {series.name: [point.tip.split(":")[0] for point in series.points] for series in plane.series}
    assert by_name == {"eda": ["eda 1", "eda 4"], "no sources": ["mat", "none"]}


def test_markdown_holds_every_number_once_per_cut(settings, rows):
    text = study_markdown(collect_study(settings, rows))
    assert "| none | 70.0 / 80.0 | 20.0 / 30.0 |" in text
    assert "| mat | 70.0 ± 0.0 / 80.0 ± 0.0 | 44.0 ± 9.9 / 54.0 ± 9.9 |" in text
    assert "| eda 1 | 0.600 | 0.100 | 0.200 |" in text


def test_passes_are_means_over_arms_and_seeds(settings, rows):
    one, two = collect_study(settings, rows).tables
    assert one.passes["sga, joint"].per_image == pytest.approx(np.mean([10, 10, 11, 12, 10, 11, 12, 10, 11]))
    assert two.passes["sga, joint"].per_image == pytest.approx(np.mean([10, 11, 12, 10, 11]))
    text = study_markdown(collect_study(settings, rows))
    assert "| per image | 11 |" in text
    assert "| per text | 3 |" in text


def test_what_was_learnt_from_and_how_often(settings, rows):
    cost = {"section": "training", "flop_per_step": 2e9, "flop": 1e10, "steps": 30, "images": 12, "texts": 1500}
    cost["false_negatives"] = 0.25
    trained = [{"arm": "mat", "seed": seed, **cost} for seed in (0, 1, 2)]
    text = study_markdown(collect_study(settings, [*rows, *trained]))
    assert "| mat | 12 | 1,500 | 0.25 | 2.0 | 30 | 10.0 |" in text


def test_figures_stand_where_the_numbers_are(settings, rows):
    samples, measures = collect_study(settings, rows).tables
    (plane,) = planes(samples)
    none, series = plane.series
    assert [point.label for point in none.points] == ["none", "mat"]  # no arm lacks its point
    assert not none.joined
    assert {point.x for point in none.points} == {min(point.x for s in plane.series for point in s.points)}
    assert [point.tip.split(":")[0] for point in series.points] == ["eda 1", "eda 4"]
    assert series.points[0].x < series.points[1].x  # more samples to the right
    assert series.points[0].y > series.points[1].y  # more robust above
    assert all(point.high <= point.y <= point.low for point in series.points)
    assert [label.lines for label in plane.across] == [("0",), ("1",), ("4",)]
    ticks = [float(label.lines[0]) for label in plane.ticks]
    unit = (plane.ticks[0].y - plane.ticks[-1].y) / (ticks[-1] - ticks[0])
    for label, value in zip(plane.ticks, ticks, strict=True):  # what a tick says is where it stands
        assert plane.ticks[0].y - label.y == pytest.approx(unit * (value - ticks[0]), abs=0.05)
    assert [p.across_name for p in planes(measures)] == ["alignment", "diversity", "gap"]


def test_a_table_without_a_figure_of_its_own_shows_every_arm(settings, rows, tmp_path):
    settings["tables"]["one"]["figure"] = None
    samples, _ = collect_study(settings, rows).tables
    drawn = ways(samples)
    assert [bar.name for bar in drawn.bars] == ["none", "mat", "eda 1", "eda 4"]
    assert [bar.x for bar in drawn.bars] == sorted(bar.x for bar in drawn.bars)
    assert all(bar.low <= bar.x <= bar.high for bar in drawn.bars)
    page = Page(write_study(tmp_path / "study.html", collect_study(settings, rows), title="t").read_text())
    assert page.count("circle", class_="point fill0") == 4


def test_figures_over_test_samples_are_paired_with_the_reference(settings, rows):
    """Ranks of every query: the mean over the seeds, its interval over groups, and the paired gain."""
    rng = np.random.default_rng(0)
    groups = [list(range(20)), [place // 3 for place in range(60)]]
    for row in rows:
        ranks = {d: rng.integers(1, 4, size).tolist() for d, size in (("tr", 20), ("ir", 60))}
        row |= {"ranks": {"clean": ranks, "robust": ranks}, "groups": groups}
    found = collect_study(settings, rows)
    by_name = {row.name: row for row in found.tables[0].rows}
    hits = {
        arm: np.mean([np.array(row["ranks"]["robust"]["ir"]) == 1 for row in rows if row["arm"] == arm], axis=0)
        for arm in ("mat", "eda 1")
    }
    figure = by_name["eda 1"].over_samples["sga, joint"]["ir@1"]
    assert figure.value == pytest.approx(100 * hits["eda 1"].mean())
    assert (figure.n, figure.groups) == (60, 20)
    assert figure.low < figure.value < figure.high
    gain = by_name["eda 1"].gains_over_samples["sga, joint"]["ir@1"]
    expected = Ratio(hits["eda 1"], np.ones(60), np.array(groups[1])).minus(
        Ratio(hits["mat"], np.ones(60), np.array(groups[1]))
    )
    assert (gain.value, gain.low, gain.high) == (expected.value, expected.low, expected.high)
    text = study_markdown(found)
    assert "n / groups: 20 / 20 images, 60 / 20 texts" in text
    assert f"{gain.value:+.1f} ({gain.low:.1f} to {gain.high:.1f})" in text


def test_the_mean_of_both_directions_has_an_interval_that_covers_it():
    """Pictures of unlike difficulty, five captions each: 95 of 100 intervals hold what pictures come to in the end."""
    rng = np.random.default_rng(0)
    pictures, captions, draws = 60, 5, 400
    groups = [list(range(pictures)), np.repeat(np.arange(pictures), captions).tolist()]
    held = 0
    for _ in range(draws):
        easy = rng.beta(0.5, 1.5, size=pictures)  # of mean 1/4; an image is as easy to find as it finds
        hits = {"tr": rng.random(pictures) < easy, "ir": rng.random(pictures * captions) < np.repeat(easy, captions)}
        ranks = {d: np.where(hit, 1, 99).tolist() for d, hit in hits.items()}
        ratios = over_samples([{"ranks": {"robust": ranks}, "groups": groups}], "robust")
        found = sample_figures(ratios)["mean@1"]
        assert found.value == pytest.approx(50 * (hits["tr"].mean() + hits["ir"].mean()))
        held += found.low <= 25 <= found.high
    assert 0.92 <= held / draws <= 0.99


def test_the_figure_that_a_study_compares_by_comes_first(settings, rows):
    settings["primary"] = {"attack": "sga", "part": "joint", "rank": 10}
    found = collect_study(settings, rows)
    assert (found.primary, found.rank) == ("sga, joint", 10)
    by_name = {row.name: row for row in found.tables[0].rows}
    at_10 = [(recalls(value)["tr@10"] + recalls(value)["ir@10"]) / 2 for value in ROBUST["eda 1"]]
    assert by_name["eda 1"].recall["sga, joint"].mean == pytest.approx(np.mean(at_10))
    text = study_markdown(found)
    assert text.index("mean of TR@10 and IR@10 under sga, joint") < text.index("## One")
    assert f"| eda 1 | {by_name['eda 1'].recall['sga, joint']} |" in text
    gain = by_name["eda 1"].gains["sga, joint"]
    assert f"| {gain.mean:+.1f} ± {gain.half:.1f} |" in text


def test_rows_without_ranks_have_no_figures_over_samples(settings, rows):
    found = collect_study(settings, rows)
    assert not any(any(row.over_samples.values()) for row in found.tables[0].rows)
    assert "over groups" not in study_markdown(found)
