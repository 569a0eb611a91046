"""From run folders to pages and tables."""

import io
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from report_helpers import Page, Signs, make_certificate, make_run
from rich.console import Console

from crossguard.certify import Certificate
from crossguard.certify.counts import Counts
from crossguard.data import MultiModalSamples
from crossguard.evaluate import evaluate
from crossguard.report import (
    certificate_entry,
    certificate_table,
    certificate_view,
    print_certificates,
    print_results,
    report_runs,
    result_table,
)
from crossguard.report.certificates import certificate_views
from crossguard.report.collect import open_runs, result_views, run_views
from crossguard.runs import RunFolder
from crossguard.threat import LInf, ThreatModel, WordEdits


@pytest.fixture
def run_path(tmp_path, tiny_clip, toy_pairs):
    return make_run(tmp_path / "emoji-run", tiny_clip, toy_pairs)


def test_a_run_becomes_a_page(run_path, tmp_path):
    target = report_runs([run_path], tmp_path / "report.html")
    page = Page(target.read_text())
    assert "emoji-run" in page.words  # the title
    assert "<b>base</b>" in page.words  # a label, not markup
    assert "clean only" in page.words
    assert "crossguard evaluate 'a b'" in page.words
    assert "signs" in page.words
    assert "image: L-inf 8/255, text: 1 word (both sides)" in page.text
    assert page.count("details", open_=None) == 1
    assert page.text.index("under attack (signs") < page.text.index("All settings of")
    assert page.count("rect", class_="cell") == 12
    assert all(load.startswith(("data:", "#")) for load in page.loads)


def test_tables_say_what_the_summary_says(run_path, toy_pairs):
    base, clean = result_table([run_path])
    summary = json.loads((run_path / "summary.json").read_text())["results"]
    assert base["model"] == "<b>base</b>"
    assert base["detail"]["clean"]["figures"] == summary["retrieval/<b>base</b>/joint"]["estimates"]["clean"]
    for part in ("image", "text", "joint"):
        told = summary[f"retrieval/<b>base</b>/{part}"]["estimates"]
        for metric, figure in told["robust"].items():
            assert base["figures"][part][metric] == figure["value"]
            assert base["interval"][part][metric] == [figure["low"], figure["high"]]
        for measure in ("conditional", "drop"):
            assert base["detail"][part][measure] == told[measure]
            assert base["success"][part][measure]["tr@1"] == told[measure]["tr@1"]["value"]
        assert base["detail"][part]["figures"]["ir@1"]["n"] == len(toy_pairs.texts)
    assert (clean["attack"], clean["threat"], list(clean["figures"])) == (None, "", ["clean"])
    (certificate,) = certificate_table([run_path])
    assert certificate["accuracy"][2][3] == pytest.approx(0.05)
    json.dumps([base, clean, certificate], allow_nan=False)


def test_tables_are_printed(run_path):
    console = Console(file=io.StringIO(), width=120)
    print_results([run_path], console=console)
    print_certificates([run_path], console=console)
    said = console.file.getvalue()
    (base, _) = result_table([run_path])
    for part in ("clean", "image", "text", "joint"):
        for metric in ("tr@1", "ir@1"):
            low, high = base["interval"][part][metric]
            assert f"{base['figures'][part][metric]:.1f} {low:.0f}–{high:.0f}" in said
    assert "watch-net: certified accuracy in percent; r of gyroscope across, of accelerometer down" in said
    assert "accelerometer k = 12 of 64" in said
    assert "95.0" in said


def test_brackets_in_names_are_no_markup(tmp_path, tiny_clip, toy_pairs):
    with RunFolder.open(tmp_path / "run", settings={}) as run:
        evaluate(tiny_clip, toy_pairs, run=run, label="mat [red]")
    console = Console(file=io.StringIO(), width=120)
    print_results([tmp_path / "run"], console=console)
    assert "mat [red]" in console.file.getvalue()


def test_examples_show_what_the_evaluation_kept(run_path, toy_pairs):
    base, clean = result_views(open_runs([run_path]))
    assert not clean.examples
    assert base.examples
    for example in base.examples:
        (picture,) = [item for item in example.asked if item.picture is not None]
        assert 0 < np.abs(picture.clean.astype(int) - picture.picture.astype(int)).max() <= 8
        before, after = example.answers.values()
        assert before[0].right
        assert len(before) == len(after) == 5
        asked = [item for item in example.asked if item.text is not None]
        if asked:
            assert asked[0].text in toy_pairs.texts
            assert "plain" in asked[1].text.split()
        else:
            assert all(item.text in toy_pairs.texts for item in before)
            assert all("plain" in item.text.split() and item.source in toy_pairs.texts for item in after)


@pytest.mark.parametrize("target", ["query", "gallery"])
def test_the_side_that_is_not_attacked_is_shown_clean(tmp_path, tiny_clip, toy_pairs, target):
    threat = ThreatModel(target=target, image=LInf(eps=8 / 255), text=WordEdits(words=1))
    with RunFolder.open(tmp_path / "run", settings={}) as run:
        evaluate(tiny_clip, toy_pairs, attack=Signs(), threat=threat, run=run, examples=24)
    (view,) = result_views(open_runs([tmp_path / "run"]))
    assert view.threat.endswith(f"({'queries' if target == 'query' else 'gallery'} only)")
    words = [e for e in view.examples if e.asked[0].text is not None]
    pictures = [e for e in view.examples if e.asked[0].text is None]
    assert words or pictures
    for example in words:
        assert (example.asked[1].text != example.asked[0].text) == (target == "query")
        assert any(item.clean is not None for item in example.asked) == (target == "gallery")
    for example in pictures:
        found = list(example.answers.values())[1]
        assert any(item.source not in (None, item.text) for item in found) == (target == "gallery")
        assert (example.asked[0].clean is not None) == (target == "query")


def test_several_runs_stand_in_one_table(run_path, tmp_path):
    other = tmp_path / "second"
    shutil.copytree(run_path, other)
    views = result_views(open_runs([run_path, other, run_path]))
    assert [view.label for view in views] == [
        "<b>base</b> (emoji-run)",
        "clean only (emoji-run)",
        "<b>base</b> (second)",
        "clean only (second)",
    ]
    assert [view.name for view in run_views(open_runs([run_path, other]))] == ["emoji-run", "second"]
    assert len(certificate_views(open_runs([run_path, other]))) == 2


def test_results_of_other_data_attacks_and_seeds_are_rows_of_their_own(tmp_path, tiny_clip, toy_pairs):
    few = replace(toy_pairs.head(12), name="few")
    image, text = ThreatModel(image=LInf(eps=8 / 255)), ThreatModel(text=WordEdits(words=1))
    with RunFolder.open(tmp_path / "run", settings={}) as run:
        whole = evaluate(tiny_clip, toy_pairs, run=run)
        signs = evaluate(tiny_clip, few, attack=Signs(), threat=image, seed=3, run=run, examples=1)
        swap = evaluate(tiny_clip, few, attack="word-swap", threat=text, run=run, examples=1)
        once, again = (
            evaluate(tiny_clip, few, attack=Signs(), threat=threat, seed=seed, run=run, label="b", examples=1)
            for threat, seed in ((image, 0), (text, 1))
        )
        together = [
            evaluate(tiny_clip, few, attack=Signs(), threat=threat, run=run, label="c", examples=1)
            for threat in (image, text)
        ]
        clean = evaluate(tiny_clip, few, run=run, label="c")
    table = result_table([tmp_path / "run"])
    assert [(row["label"], row["samples"], row["attack"], row["seed"]) for row in table] == [
        ("tiny, toy test", f"24 images and {len(toy_pairs.texts)} texts", None, 0),
        ("tiny, few test, signs, seed 3", f"12 images and {len(few.texts)} texts", "signs", 3),
        ("tiny, few test, word-swap, seed 0", f"12 images and {len(few.texts)} texts", "word-swap", 0),
        ("b, few test, signs, seed 0", f"12 images and {len(few.texts)} texts", "signs", 0),
        ("b, few test, signs, seed 1", f"12 images and {len(few.texts)} texts", "signs", 1),
        ("c, few test, signs, seed 0", f"12 images and {len(few.texts)} texts", "signs", 0),
    ]
    assert [row["figures"] for row in table] == [
        {"clean": whole.clean},
        {"clean": signs.clean, "image": signs.robust},
        {"clean": swap.clean, "text": swap.robust},
        {"clean": once.clean, "image": once.robust},
        {"clean": again.clean, "text": again.robust},
        {"clean": clean.clean, "image": together[0].robust, "text": together[1].robust},
    ]
    assert {view.label for view in result_views(open_runs([tmp_path / "run"])) if view.examples} <= {
        row["label"] for row in table[1:]
    }


def test_an_interrupted_run_is_reported_as_far_as_it_got(tmp_path, tiny_clip, toy_pairs):
    run = RunFolder.open(tmp_path / "run", settings={})
    with pytest.raises(ValueError, match="has none yet"):
        report_runs([tmp_path / "run"], tmp_path / "report.html")
    evaluate(tiny_clip, toy_pairs, run=run)
    page = Page(report_runs([tmp_path / "run"], tmp_path / "report.html").read_text())
    assert "not finished" in page.words


@pytest.mark.parametrize("kind", ["retrieval", "grounding", "captioning", "classification", "segmentation"])
def test_results_of_an_earlier_version_are_refused_but_certificates_are_read(tmp_path, kind):
    with RunFolder.open(tmp_path / "old run", settings={}) as run:
        run.summarise("certificates", "watch-net", certificate_entry(make_certificate()))
        run.summarise("training", "mat", {"loss": 0.5})
    report_runs([tmp_path / "old run"], tmp_path / "report.html")
    run = RunFolder.open(tmp_path / "old run", settings={})
    run.summarise(kind, "clip/joint", {"clean": {"tr@1": 90.0}})
    for read in (result_table, print_results, lambda paths: report_runs(paths, tmp_path / "report.html")):
        with pytest.raises(
            ValueError, match=r"old run, but an earlier one measured .*with that version, or measure again"
        ):
            read([tmp_path / "old run"])
    assert certificate_table([tmp_path / "old run"])


def test_bad_folders_are_refused(tmp_path):
    with pytest.raises(ValueError, match="at least one run"):
        report_runs([], tmp_path / "report.html")
    with pytest.raises(ValueError, match=r"run\.json"):
        report_runs([tmp_path], tmp_path / "report.html")


def test_missing_example_pictures_are_named(run_path, tmp_path):
    next((run_path / "examples").rglob("joint.npz")).write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"example pictures at .*joint\.npz"):
        report_runs([run_path], tmp_path / "report.html")


def certified(modalities):
    """A certificate of three samples of unanimous, good and undecided votes."""
    samples = MultiModalSamples(
        name="made",
        split="test",
        modalities={name: np.zeros((3, 20, 1), np.float32) for name in modalities},
        labels=np.array([0, 1, 1]),
        classes=("a", "b"),
        groups=np.arange(3),
    )
    counts = Counts(
        votes=np.array([[1000, 0], [20, 980], [500, 500]]),
        spans=((0, 1000),),
        seed=0,
        n=dict.fromkeys(modalities, 20),
        k=dict.fromkeys(modalities, 2),
        source="made",
    )
    return Certificate(
        model="net",
        samples=samples,
        counts=counts,
        selection=None,
        alpha=0.001,
        kinds=dict.fromkeys(modalities, "substitution"),
        bound="majority",
        seconds=1.0,
    )


@pytest.mark.parametrize("count", [1, 2, 3])
def test_certificates_of_any_number_of_modalities_are_shown(count, tmp_path):
    names = ("first", "second", "third")[:count]
    certificate = certified(names)
    view = certificate_view(certificate, label="shown")
    assert view.modalities == names[:2]
    for where, share in np.ndenumerate(view.accuracy):
        radii = {name: view.radii[axis][i] for axis, (name, i) in enumerate(zip(view.modalities, where, strict=True))}
        assert share == pytest.approx(certificate.accuracy(radii))
    assert ("third" in view.note) == (count == 3)
    with RunFolder.open(tmp_path / "run", settings={}) as run:
        run.summarise("certificates", "net", certificate_entry(view))
    (again,) = certificate_views(open_runs([tmp_path / "run"]))
    assert certificate_entry(again) == certificate_entry(view)
    page = Page(report_runs([tmp_path / "run"], tmp_path / "report.html").read_text())
    assert page.count("rect", class_="cell") == view.accuracy.size


def test_a_summary_that_is_none_of_ours_is_told_in_a_sentence(tmp_path):
    with RunFolder.open(tmp_path / "run", settings={}) as run:
        run.summarise("results", "a", {"x": 1})
    with pytest.raises(
        ValueError, match="Expected the files that crossguard writes in .*/run, but one of them is damaged"
    ):
        report_runs([tmp_path / "run"], tmp_path / "report.html")
