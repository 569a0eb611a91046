"""Evaluations under an attack on the whole gallery: each direction under its own set, in batches of any size."""

import html
import io
from functools import cache

import pytest
import torch
from rich.console import Console

from crossguard.attacks import load_adversarial, make_attack
from crossguard.attacks.directions import ImageRetrieval
from crossguard.attacks.gallery_scores import TowerScores
from crossguard.evaluate import evaluate
from crossguard.evaluate.gallery_attack import StoredStages
from crossguard.evaluate.store import Store
from crossguard.report import print_results, report_runs, result_table
from crossguard.runs import RunFolder, npz_bytes, read_npz, write_atomically
from crossguard.threat import LInf, ThreatModel, WordEdits
from shared import fit_clip

THREAT = ThreatModel(image=LInf(eps=3 / 255), text=WordEdits(words=1))
QUICK = {"attack": "adaptive", "attack_options": {"steps": 5, "rounds": 1}, "threat": THREAT, "seed": 1, "examples": 2}


@pytest.fixture(scope="module")
def pairs(toy_pairs):
    return toy_pairs.head(12)


@pytest.fixture(scope="module")
def model(toy_pairs):
    return fit_clip(toy_pairs)


@pytest.fixture(scope="module")
def undisturbed(model, pairs):
    """From the size of a batch to what an evaluation gives that nothing disturbs."""
    return cache(lambda size: evaluate(model, pairs, batch_size=size, **QUICK))


def ranks(result, field="robust_rank"):
    return [row[field] for row in result.rows]


def test_each_direction_is_judged_under_its_own_set_and_both_under_one(model, pairs, tmp_path):
    with RunFolder.open(tmp_path / "run", settings={}) as run:
        result = evaluate(model, pairs, run=run, save_to=tmp_path / "set", **QUICK)
        for metric in ("tr@1", "ir@1"):
            assert result.robust[metric] <= result.shared[metric] <= result.clean[metric]
        assert result.robust["tr@1"] < result.clean["tr@1"]
        told = run.summary["results"]["retrieval/tiny/joint"]["estimates"]["shared"]
        assert {metric: figure["value"] for metric, figure in told.items()} == result.shared
        figure = told["ir@1"]
        assert (figure["value"], figure["n"]) == (result.shared["ir@1"], len(pairs.texts))
        assert not list(tmp_path.rglob("stages"))
        again = evaluate(model, pairs, run=run, **QUICK)
        assert again.rows == result.rows
        assert again.shared == result.shared
    (row,) = result_table([tmp_path / "run"])
    column = "joint" if result.shared == result.robust else "joint, one set"
    assert row["detail"][column]["figures"]["ir@1"]["low"] == figure["low"]
    # What was saved is the shared set.
    saved = evaluate(model, pairs, attack="saved", attack_options={"folder": str(tmp_path / "set")}, seed=1)
    assert ranks(saved) == ranks(result, "shared_rank")
    assert load_adversarial(tmp_path / "set").made["attack"] == "adaptive"


def test_one_set_for_both_is_what_other_attacks_make(model, pairs):
    given = {"attack": "pgd", "attack_options": {"steps": 2}, "threat": THREAT.only("image")}
    result = evaluate(model, pairs, **given)
    assert result.shared == result.robust
    assert evaluate(model, pairs).shared is None


def test_the_batch_size_plays_no_part(pairs, undisturbed):
    found = [undisturbed(size) for size in (12, 6, 2)]
    one = {"tr@1": 100 / 12, "ir@1": 100 / len(pairs.texts)}
    for metric, least in one.items():
        for side in ("robust", "shared"):
            values = [getattr(result, side)[metric] for result in found]
            assert max(values) - min(values) <= least + 1e-9


@pytest.mark.parametrize(
    "kept", [pytest.param(0, marks=pytest.mark.slow), 1, 4, pytest.param(7, marks=pytest.mark.slow), 11]
)
def test_an_interrupted_evaluation_ends_as_if_it_had_not_been(model, pairs, undisturbed, tmp_path, monkeypatch, kept):
    """Three stages of two batches, then three sets of two batches."""
    given = {**QUICK, "batch_size": 6}
    expected = undisturbed(6)
    left = [kept]
    writes = {cls: cls.write for cls in (StoredStages, Store)}

    def stopping(self, *values):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        writes[type(self)](self, *values)

    with RunFolder.open(tmp_path / "run", settings={}) as run:
        with monkeypatch.context() as patch:
            for cls in writes:
                patch.setattr(cls, "write", stopping)
            with pytest.raises(KeyboardInterrupt):
                evaluate(model, pairs, run=run, **given)
        if kept == 4:  # a damaged file is made again
            first = next((tmp_path / "run").rglob("stages/*/batch-00001.npz"))
            first.write_bytes(first.read_bytes()[:100])
        result = evaluate(model, pairs, run=run, **given)
    assert result.rows == expected.rows


def moved_beyond(file):
    """Move stored pictures far from the clean ones."""
    found = read_npz(file)
    found["grey"] = 255 - found["grey"]
    write_atomically(file, npz_bytes(**found))


def test_a_stored_set_beyond_its_budget_is_attacked_again(model, pairs, tmp_path):
    given, few = {**QUICK, "threat": THREAT.only("image")}, pairs.head(6)
    with RunFolder.open(tmp_path / "run", settings={}) as run:
        expected = evaluate(model, few, run=run, **given)
    for name in ("", "tr", "ir"):
        changed = tmp_path / "run" / "adversarial" / "retrieval" / "tiny" / "image" / name / "batch-00000.npz"
        before = read_npz(changed)
        moved_beyond(changed)
        (tmp_path / "run" / "rows.jsonl").unlink()
        (tmp_path / "run" / "summary.json").unlink()
        with RunFolder.open(tmp_path / "run", settings={}) as run:
            assert evaluate(model, few, run=run, **given).rows == expected.rows
        assert (read_npz(changed)["grey"] == before["grey"]).all()


def test_a_stage_beyond_its_budget_is_made_again(model, pairs, tmp_path, monkeypatch):
    few = pairs.head(6)
    expected = evaluate(model, few, **QUICK)
    written = StoredStages.write
    with RunFolder.open(tmp_path / "run", settings={}) as run:
        with monkeypatch.context() as patch:
            patch.setattr(Store, "write", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                evaluate(model, few, run=run, **QUICK)
        stages = sorted((tmp_path / "run").rglob("stages/*/batch-00000.npz"))
        bad = next(file for file in stages if len(read_npz(file)["grey"]))
        moved_beyond(bad)
        again = []

        def counted(self, stage, *more):
            again.append(stage)
            written(self, stage, *more)

        monkeypatch.setattr(StoredStages, "write", counted)
        result = evaluate(model, few, run=run, **QUICK)
    assert again == [bad.parent.name]
    assert result.rows == expected.rows


def test_targets_and_single_modalities(model, pairs):
    for target in ("query", "gallery"):
        threat = ThreatModel(target=target, **dict(THREAT.items()))
        result = evaluate(model, pairs, **{**QUICK, "threat": threat})
        assert result.shared == result.robust
        assert result.robust["tr@1"] <= result.clean["tr@1"]
    for modality in ("image", "text"):
        result = evaluate(model, pairs, **{**QUICK, "threat": THREAT.only(modality)})
        assert result.robust["ir@1"] < result.clean["ir@1"]
        moved = torch.tensor([row["linf"] or 0.0 for row in result.rows if row["direction"] == "tr"])
        assert bool((moved > 0).any()) == (modality == "image")


def test_a_gallery_that_cannot_be_held_at_once_is_gone_through_in_slices(model, pairs, undisturbed, monkeypatch):
    """No matrix of scores is larger than the limit, or than one row, or than a batch with all forms of its texts."""
    whole = undisturbed(2)
    limit, sizes, of_batches = 100, [], []
    for name in ("mixture", "gallery_scores"):
        monkeypatch.setattr(f"crossguard.attacks.{name}.CHUNK", limit)
    for name in ("__call__", "with_texts"):
        scores = getattr(TowerScores, name)

        def watched(self, *asked, scores=scores, **more):
            found = scores(self, *asked, **more)
            sizes.append(found.numel())
            return found

        monkeypatch.setattr(TowerScores, name, watched)
    meet = ImageRetrieval.of.__func__

    def met(cls, scores, links, chosen, stands, places, variants, columns):
        of_batches.append(len(places[0]) * variants.numel())
        return meet(cls, scores, links, chosen, stands, places, variants, columns)

    monkeypatch.setattr(ImageRetrieval, "of", classmethod(met))
    sliced = evaluate(model, pairs, batch_size=2, **QUICK)
    row = max(len(pairs.images), len(pairs.texts))
    assert max(sizes) <= max(limit, row, *of_batches) < len(pairs.images) * len(pairs.texts)
    assert abs(whole.robust["tr@1"] - sliced.robust["tr@1"]) <= 100 / 12 + 1e-9
    assert abs(whole.robust["ir@1"] - sliced.robust["ir@1"]) <= 100 / len(pairs.texts) + 1e-9


def test_the_report_names_the_three_sets(model, pairs, tmp_path):
    with RunFolder.open(tmp_path / "run", settings={}) as run:
        result = evaluate(model, pairs, run=run, **QUICK)
    assert result.shared != result.robust
    console = Console(width=200, file=io.StringIO())
    print_results([tmp_path / "run"], console=console)
    page = report_runs([tmp_path / "run"], tmp_path / "page.html").read_text()
    for said in (console.file.getvalue(), html.unescape(page)):
        assert "joint, one set" in said
        assert "Each direction stands under its own" in " ".join(said.split())
        for metric in ("tr@1", "ir@1"):
            assert f"{result.robust[metric]:.1f}" in said
            assert f"{result.shared[metric]:.1f}" in said


def test_stages_are_told(model, pairs):
    told = []

    class Reporter:
        def task(self, title, *, total):
            from contextlib import contextmanager

            @contextmanager
            def running():
                class Task:
                    def advance(self, count=1, *, note=None):
                        told.append((title, count, total))

                yield Task()

            return running()

    evaluate(model, pairs, progress=Reporter(), **QUICK)
    counts = [(count, total) for title, count, total in told if title.startswith("Attack")]
    attack = make_attack("adaptive", **QUICK["attack_options"])
    assert sum(count for count, _ in counts) == counts[0][1] == 12 * attack.stages(attack.budgets(THREAT))
