"""Two processes measure what one measures: rows, figures and files, begun and gone on with by any number of them."""

import os

import pytest
from test_samples_task import LINF, Sensors, sensors

import crossguard as cg
from crossguard.attacks import make_attack
from crossguard.certify import Smoothed
from crossguard.evaluate import evaluate
from crossguard.evaluate.envelope import sparse_envelope
from crossguard.evaluate.stored_batch import StoredBatch
from crossguard.evaluate.tasks.samples import Classification
from fusion_models import make_albef
from processes import in_processes
from shared import make_clip

THREAT = cg.ThreatModel(image=cg.LInf(8 / 255), text=cg.WordEdits(1))
QUICK = {"sep": {"steps": 1}, "adaptive": {"steps": 5, "rounds": 1}}


def attacked(pairs, name, run=None, model=None):
    """A retrieval under attack, in batches of four."""
    attack = make_attack(name, **QUICK[name])
    return evaluate(model or make_clip(), pairs, attack=attack, threat=THREAT, run=run, batch_size=4, examples=1)


def told(result):
    """What a result says, as plain values."""
    return {
        "rows": [dict(row) for outcome in result for row in outcome.rows],
        "figures": [(f.what, f.metric, f.value, f.low, f.high) for outcome in result for f in outcome.figures],
        "said": [(outcome.warnings, outcome.notes, outcome.summary()) for outcome in result],
    }


def files(run):
    """What of a run does not depend on the moment."""
    kept = {path.name: path.read_bytes() for path in (run / "rows.jsonl", run / "summary.json")}
    return kept | {str(path.relative_to(run)): None for path in sorted((run / "adversarial").rglob("*"))}


@pytest.mark.parametrize("name", ["sep", pytest.param("adaptive", marks=pytest.mark.slow)])
def test_two_processes_attack_retrieval_as_one(toy_pairs, tmp_path, name):
    pairs = toy_pairs.head(14)
    one = told(attacked(pairs, name, tmp_path / "one"))
    for found in in_processes(lambda rank: told(attacked(pairs, name, tmp_path / "two"))):
        assert found == one
    assert files(tmp_path / "one") == files(tmp_path / "two")


def test_samples_are_shared_without_a_run(tmp_path):
    def measure(rank=0):
        threat = {"attack": "pgd", "attack_options": {"steps": 2}, "threat": LINF, "batch_size": 3}
        return told(evaluate(Sensors(), sensors(), **threat))

    one = measure()
    for found in in_processes(measure, size=3):
        assert found == one


def test_a_fusion_model_re_ranks_in_shares(toy_pairs, tmp_path):
    pairs, model = toy_pairs.head(10), make_albef(tmp_path / "vocabulary")

    def measure(run):
        return told(evaluate(model, pairs, run=run, batch_size=3, rerank=4))

    one = measure(tmp_path / "one")
    for found in in_processes(lambda rank: measure(tmp_path / "two")):
        assert found == one


@pytest.mark.parametrize("first", [1, 2])
def test_any_number_of_processes_takes_a_run_up(tmp_path, monkeypatch, first):
    """A first attempt ends in the middle, in one process or two; the other number finishes it."""
    how = {"attack": "pgd", "attack_options": {"steps": 2}, "threat": LINF, "batch_size": 3}
    whole = told(evaluate(Sensors(), sensors(), run=tmp_path / "whole", **how))
    real, run = Classification.attack, tmp_path / "run"

    def stopping(self, batch, *arguments):
        if 6 in batch.ids:
            raise RuntimeError("stopped")
        return real(self, batch, *arguments)

    def attempt(rank=0):
        return told(evaluate(Sensors(), sensors(), run=run, **how))

    monkeypatch.setattr(Classification, "attack", stopping)
    if first == 1:
        with pytest.raises(RuntimeError, match="stopped"):
            attempt()
    else:
        assert all("stopped" in str(error) for error in in_processes(attempt))
    done = {path.name: path.stat().st_mtime_ns for path in run.rglob("batch-*.npz")}
    assert done
    monkeypatch.setattr(Classification, "attack", real)
    for found in in_processes(attempt) if first == 1 else [attempt()]:
        assert found == whole
    again = {path.name: path.stat().st_mtime_ns for path in run.rglob("batch-*.npz")}
    assert {name: again[name] for name in done} == done
    lines = [sorted((folder / "rows.jsonl").read_bytes().splitlines()) for folder in (run, tmp_path / "whole")]
    assert lines[0] == lines[1]  # each once, in the order in which they were finished
    assert not list(run.rglob("rows-*.json"))


def test_what_differs_between_processes_is_told_in_all(toy_pairs):
    for found in in_processes(lambda rank: evaluate(make_clip(), toy_pairs.head(8), seed=rank)):
        assert str(found) == (
            "Expected the same evaluation in all processes, but in process 1 `tiny, clean.seed` is 0 in process 0 and 1."
        )
    for found in in_processes(lambda rank: evaluate(make_clip(rank), toy_pairs.head(8))):
        assert "in process 1 `tiny, clean.weights` is" in str(found)


def test_a_process_that_fails_ends_the_evaluation_of_all(toy_pairs, monkeypatch, tmp_path):
    def work(rank):
        if rank == 1:
            monkeypatch.setattr(StoredBatch, "from_attack", lambda *_: os._exit(7))
        return attacked(toy_pairs.head(14), "sep", tmp_path / "run")

    first, second = in_processes(work)
    assert "Expected all 2 processes to go on, but another one has ended" in str(first)
    assert isinstance(second, SystemExit)
    assert told(attacked(toy_pairs.head(14), "sep", tmp_path / "run")) == told(attacked(toy_pairs.head(14), "sep"))


def test_more_processes_than_batches_have_nothing_to_do(toy_pairs):
    one = told(evaluate(make_clip(), toy_pairs.head(3)))
    for found in in_processes(lambda rank: told(evaluate(make_clip(), toy_pairs.head(3))), size=3):
        assert found == one


def test_attacks_beside_certificates_are_shared(tmp_path):
    def attack(folder):
        victim = Smoothed(Sensors().eval(), keep={"left": 2, "right": 2}, draws=30, attack_draws=4)
        quick = {"steps": 1, "trials": 1, "rounds": 1}
        return sparse_envelope(victim, sensors(5), [{}, {"left": 1}], attack_options=quick, folder=folder).answers

    one = attack(tmp_path / "one")
    for found in in_processes(lambda rank: attack(tmp_path / "two")):
        assert (found == one).all()
    assert (attack(tmp_path / "two") == one).all()
