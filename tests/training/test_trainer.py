"""The trainer: every defence learns, nothing leaks, the same call gives the same bits, a stopped run goes on."""

import json
import os
import subprocess
import sys
import textwrap
from math import isfinite
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from training_helpers import Noted, ToySource

import crossguard as cg
from crossguard.attacks import make_attack
from crossguard.checks import WrongKind
from crossguard.data import PairBatch, links_among
from crossguard.runs import RunFolder
from crossguard.training import DEFENCES, Pictures, train
from crossguard.training.validation import Validation, recall_at_1
from shared import make_clip

THREAT = cg.ThreatModel(image=cg.LInf(eps=8 / 255), text=cg.WordEdits(words=1))
QUICK = {"threat": THREAT, "steps": 4, "batch_size": 8, "learning_rate": 1e-3, "source": ToySource(), "log_every": 1}


def weights(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def pictures(toy_pairs):
    return Pictures(make_clip(), toy_pairs)


@pytest.fixture(scope="module")
def learnt(toy_pairs, pictures):
    """A model that tells the toy pairs apart: what a defence starts from."""
    options = {**QUICK, "steps": 120, "batch_size": 16, "learning_rate": 3e-3, "log_every": 120}
    return train(make_clip(), toy_pairs, defence="clean", pictures=pictures, **options)


@pytest.fixture
def run(tmp_path):
    with RunFolder.open(tmp_path / "run", settings={"test": 1}) as folder:
        yield folder


def rows_of(run):
    return [json.loads(line) for line in (run.path / "training.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("defence", DEFENCES)
def test_every_defence_lowers_its_own_loss(toy_pairs, pictures, learnt, run, defence):
    threat = cg.ThreatModel(image=cg.LInf(eps=24 / 255), text=cg.WordEdits(words=1))
    options = {**QUICK, "threat": threat, "steps": 18, "batch_size": 12}
    train(learnt, toy_pairs, defence=defence, pictures=pictures, run=run, **options)
    losses = [row["loss"] for row in rows_of(run)]
    assert len(losses) == 18
    assert sum(losses[-5:]) < 0.95 * sum(losses[:5])


@pytest.mark.parametrize("defence", DEFENCES)
def test_only_the_trained_parts_of_the_copy_move(toy_pairs, pictures, defence):
    model = make_clip()
    model.train()
    before = weights(model)
    trained = train(model, toy_pairs, defence=defence, pictures=pictures, **QUICK)
    assert same(weights(model), before)
    assert model.training
    assert all(p.grad is None and p.requires_grad for m in (model, trained) for p in m.parameters())
    assert not trained.training
    assert (model.name, trained.name) == ("tiny", f"tiny-{defence}")
    for tower in ("image", "text"):
        moved = [not torch.equal(a, b) for a, b in zip(model.tower(tower), trained.tower(tower), strict=True)]
        assert any(moved) == (tower in DEFENCES[defence].trains)
    both = len(DEFENCES[defence].trains) == 2
    assert torch.equal(model.logit_scale, trained.logit_scale) != both


@pytest.mark.parametrize("defence", ["mat", "mat+"])
def test_seeds_decide_everything(toy_pairs, pictures, defence):
    state = torch.get_rng_state()
    first, again, other = (
        weights(train(make_clip(), toy_pairs, defence=defence, pictures=pictures, seed=seed, **QUICK))
        for seed in (3, 3, 4)
    )
    assert same(first, again)
    assert not same(first, other)
    assert torch.equal(state, torch.get_rng_state())


class Stop(Exception):
    pass


class Stopping(Noted):
    """Stops a training after some steps, as a kill would."""

    def __init__(self, after):
        super().__init__()
        self.after = after

    def task(self, title, *, total, done=0):
        context = super().task(title, total=total, done=done)
        stopping = self

        class Task:
            def __enter__(self):
                inner = context.__enter__()

                class Counting:
                    def advance(self, steps=1, *, note=""):
                        inner.advance(steps, note=note)
                        if stopping.tasks[-1]["done"] >= stopping.after:
                            raise Stop

                return Counting()

            def __exit__(self, *exception):
                return None

        return Task()


@pytest.mark.parametrize("defence", ["fare", "mat+"])
def test_a_stopped_training_goes_on_as_if_never_stopped(toy_pairs, pictures, run, tmp_path, defence):
    options = {**QUICK, "steps": 9, "defence": defence, "pictures": pictures, "checkpoint_every": 3}
    with RunFolder.open(tmp_path / "whole", settings={}) as whole:
        expected = weights(train(make_clip(), toy_pairs, run=whole, **options))
        expected_rows = rows_of(whole)
    with pytest.raises(Stop):
        train(make_clip(), toy_pairs, run=run, progress=Stopping(after=5), **options)
    assert len(rows_of(run)) == 5
    noted = Noted()
    # Dropout or data order from the global generator would show here.
    torch.manual_seed(123)
    resumed = train(make_clip(), toy_pairs, run=run, progress=noted, **options)
    assert same(weights(resumed), expected)
    assert noted.tasks[-1]["done"] == 9
    assert len(noted.tasks[-1]["notes"]) == 6
    timeless = [
        [{k: v for k, v in row.items() if k != "seconds"} for row in rows] for rows in (rows_of(run), expected_rows)
    ]
    assert timeless[0] == timeless[1]
    done = train(make_clip(), toy_pairs, run=run, **options)
    assert same(weights(done), expected)


def test_a_run_given_by_its_folder(toy_pairs, pictures, tmp_path, monkeypatch, unchecked):
    """As an open run, `~` and NumPy's numbers included; processes that are not the first open nothing."""
    monkeypatch.setenv("HOME", str(tmp_path))
    options = {"defence": "clean", "pictures": pictures, "learning_rate": 1e-3}
    given = {"batch_size": np.int64(4), "steps": np.int64(2), "log_every": 1, "seed": np.int64(1), **options}
    first = weights(train(make_clip(), toy_pairs, run="~/run", **given))
    info = json.loads((tmp_path / "run" / "run.json").read_text())
    assert info["settings"] == {"verb": "train"}
    assert info["finished"]
    again = weights(train(make_clip(), toy_pairs, run=tmp_path / "run", progress=Noted(), **given))
    assert all(torch.equal(first[name], again[name]) for name in first)
    monkeypatch.setattr("crossguard.training.trainer.is_main", lambda: False)
    train(make_clip(), toy_pairs, run=tmp_path / "other", **given)
    assert not (tmp_path / "other").exists()


def test_another_training_in_the_same_run_is_refused(toy_pairs, pictures, run):
    train(make_clip(), toy_pairs, run=run, pictures=pictures, defence="clean", **QUICK)
    with pytest.raises(ValueError, match="`learning_rate` is 0.001 there and 0.1 now"):
        train(make_clip(), toy_pairs, run=run, pictures=pictures, defence="clean", **{**QUICK, "learning_rate": 0.1})
    train(make_clip(), toy_pairs, run=run, pictures=pictures, defence="mat", **QUICK)
    assert {row["defence"] for row in rows_of(run)} == {"clean", "mat"}


def test_rows_and_notes_say_how_it_goes(toy_pairs, pictures, run):
    noted = Noted()
    train(make_clip(), toy_pairs, defence="mat", run=run, progress=noted, pictures=pictures, **QUICK)
    rows = rows_of(run)
    assert [row["step"] for row in rows] == [0, 1, 2, 3]
    for row in rows:
        assert isfinite(row["loss"])
        assert 0 <= row["robust_accuracy"] <= 1
        assert 0 <= row["clean_accuracy"] <= 1
        assert row["gradient_norm"] > 0
    (task,) = noted.tasks
    assert (task["title"], task["total"], task["done"]) == ("train mat", 4, 4)
    assert all("loss" in note and "clean" in note and "robust" in note for note in task["notes"])


def test_a_diverging_training_stops_with_its_last_checkpoint(toy_pairs, pictures, run):
    options = {**QUICK, "defence": "clean", "pictures": pictures, "run": run, "checkpoint_every": 2, "steps": 6}
    with pytest.raises(Stop):
        train(make_clip(), toy_pairs, progress=Stopping(after=3), **options)
    broken = make_clip()
    broken.encode_text = lambda texts: CLIP_NAN
    with pytest.raises(
        FloatingPointError, match=r"finite loss, but got nan at step 2 .* the last good checkpoint stands"
    ):
        train(broken, toy_pairs, **options)
    position = json.loads((run.path / "checkpoint-clean" / "position.json").read_text())
    assert position["step"] == 2


CLIP_NAN = torch.full((8, 16), float("nan"))


def test_a_huge_learning_rate_is_stopped(toy_pairs, pictures):
    with pytest.raises(FloatingPointError, match="no checkpoint was written yet.* Try a smaller learning rate"):
        train(
            make_clip(),
            toy_pairs,
            defence="clean",
            pictures=pictures,
            **{**QUICK, "learning_rate": 1e30, "steps": 20, "warmup": 0.0},
        )


def everything(pairs, model):
    """All toy pairs as one batch."""
    images, texts = torch.arange(len(pairs.images)), torch.arange(len(pairs.texts))
    return PairBatch(
        pixels=model.preprocess([pairs.image(i) for i in range(len(images))]),
        texts=pairs.texts,
        links=torch.from_numpy(links_among(pairs, images.numpy(), texts.numpy())),
        image_ids=images,
        text_ids=texts,
    )


def recall(model, batch, threat=None):
    pixels, texts = batch.pixels, batch.texts
    if threat is not None:
        attack = make_attack("co-attack", source=ToySource(), order="all")
        found = attack(model, batch, threat=threat, seed=1)
        pixels, texts = found.pixels, found.texts
    with torch.no_grad():
        similarity = cg.models.cosine(model.encode_image(pixels), model.encode_text(texts))
    return (recall_at_1(similarity, batch.positives) + recall_at_1(similarity.T, batch.positives.T)) / 2


def test_clean_training_learns_the_pairs(toy_pairs, learnt):
    assert recall(learnt, everything(toy_pairs, learnt)) > 90


@pytest.mark.slow
def test_mat_holds_where_clean_training_falls(toy_pairs, pictures, learnt):
    threat = cg.ThreatModel(image=cg.LInf(eps=24 / 255), text=cg.WordEdits(words=1))
    options = {**QUICK, "threat": threat, "steps": 70, "batch_size": 16, "learning_rate": 3e-3, "log_every": 70}
    batch = everything(toy_pairs, learnt)
    robust = {
        defence: recall(train(learnt, toy_pairs, defence=defence, pictures=pictures, **options), batch, threat)
        for defence in ("clean", "mat", "mat+")
    }
    assert robust["mat"] > robust["clean"] + 10, robust
    assert robust["mat+"] > robust["clean"] + 10, robust


def test_clean_pairs_can_be_mixed_in(toy_pairs, pictures):
    options = {**QUICK, "defence": "tecoa", "pictures": pictures}
    alone, mixed = (weights(train(make_clip(), toy_pairs, clean_weight=w, **options)) for w in (0.0, 0.5))
    assert not same(alone, mixed)


def test_targets_can_be_drawn(toy_pairs, pictures):
    options = {**QUICK, "defence": "mat+", "pictures": pictures}
    summed, drawn, again = (
        weights(train(make_clip(), toy_pairs, positives=kind, **options)) for kind in ("summed", "drawn", "drawn")
    )
    assert same(drawn, again)
    assert not same(summed, drawn)


def test_validation_is_logged(toy_pairs, pictures, run):
    noted = Noted()
    model = make_clip()
    trained = train(
        model,
        toy_pairs,
        defence="mat",
        validation=toy_pairs,
        validate_every=2,
        run=run,
        pictures=pictures,
        progress=noted,
        **QUICK,
    )
    judged = [row for row in rows_of(run) if "robust_ir@1" in row]
    assert [row["step"] for row in judged] == [1, 3]
    judge = Validation(toy_pairs, pictures, make_attack("co-attack"), THREAT, 8, 0)
    again = judge(trained, device=torch.device("cpu"))
    assert {key: judged[-1][key] for key in again} == again
    assert again["robust_ir@1"] <= again["clean_ir@1"]
    batch = everything(toy_pairs, model)
    assert (again["clean_tr@1"] + again["clean_ir@1"]) / 2 == pytest.approx(recall(trained, batch))
    assert any("val IR@1" in note for note in noted.tasks[-1]["notes"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"defence": "matt"}, "Unknown defence 'matt': did you mean 'mat'"),
        ({"defence": "tecoa", "threat": cg.ThreatModel(image=cg.LInf(0.0))}, "an image budget eps > 0 for the defence"),
        ({"defence": "tecoa", "threat": THREAT.only("text")}, "nothing would be attacked"),
        ({"defence": "mat", "threat": None}, "an image budget eps > 0 or a text budget words > 0"),
        ({"threat": cg.ThreatModel(text=cg.LInf(0.1))}, "WordEdits budget for 'text'"),
        ({"threat": cg.ThreatModel(sound=cg.LInf(0.1))}, "but got one for 'sound'"),
        ({"batch_size": 1}, "at least 2 images per step"),
        ({"batch_size": 25}, "at least 25 images .* has 24"),
        ({"defence": "mat", "texts_per_image": 2}, "use a one-to-many defence"),
        ({"defence": "mat", "positives": "drawn"}, "use a one-to-many defence"),
        ({"positives": "sumed"}, "did you mean 'summed'"),
        ({"steps": 0}, "`steps` to be a whole number >= 1"),
        ({"pgd_steps": 0}, "`pgd_steps` to be a whole number >= 1"),
        ({"seed": -1}, "`seed` to be a whole number >= 0"),
        ({"learning_rate": 0.0}, r"`learning_rate` in \(0, inf\)"),
        ({"clean_weight": 1.0}, r"`clean_weight` in \[0, 1\)"),
        ({"pgd_step": 2.0}, r"`step` in \(0, 1\]"),
        ({"order": "text"}, "Unknown `order` 'text': did you mean 'text-first'"),
        ({"start": "cleen"}, "did you mean 'clean'"),
        ({"source": "thesaurs"}, "did you mean 'thesaurus'"),
        ({"log_every": -1}, "`log_every` to be a whole number >= 0"),
        ({"checkpoint_every": 0}, "`checkpoint_every` to be a whole number >= 1"),
        (
            {"threat": cg.ThreatModel(text=cg.WordEdits(1, kinds=("deletion",)))},
            "'substitution' among the kinds .* but got deletion",
        ),
        ({"precision": "half"}, "Unknown `precision` 'half'"),
        ({"validation_attack": "pdg"}, "did you mean 'pgd'"),
    ],
)
def test_bad_settings_are_refused_before_any_work(toy_pairs, options, message):
    with pytest.raises(ValueError, match=message):
        train(make_clip(), toy_pairs, **{**QUICK, **options})


def test_only_image_text_models_are_trained(toy_pairs):
    with pytest.raises(WrongKind, match="VisionLanguageModel or Captioner to train, but got Linear"):
        train(torch.nn.Linear(2, 2), toy_pairs, **QUICK)


def test_what_people_bring_is_what_pairs_give(unchecked):
    """Rows in memory, of which those of training are taken; NumPy's numbers beside them."""
    rows = [
        {"image": Image.new("RGB", (16, 16), (30 * i, 9, 9)), "caption": f"a {c} disc", "split": s}
        for i, (c, s) in enumerate([("red", "train"), ("green", "train"), ("blue", "test"), ("yellow", "training")])
    ]
    options = {"defence": "clean", "log_every": 0}
    told = cg.as_pairs(rows, split="train")
    assert len(told.images) == 3
    expected = train(make_clip(), told, steps=2, batch_size=2, seed=1, **options)
    found = train(make_clip(), rows, steps=np.int64(2), batch_size=np.int32(2), seed=np.int64(1), **options)
    assert same(weights(found), weights(expected))


@pytest.mark.slow
def test_workers_may_be_spawned(tmp_path):
    """In a process of its own: a start method is chosen once."""
    code = """
    import torch, multiprocessing
    from PIL import Image
    import crossguard as cg
    from crossguard.training import Pictures
    from shared import make_clip

    if __name__ == "__main__":
        multiprocessing.set_start_method("spawn")
        pairs = cg.as_pairs([(Image.new("RGB", (16, 16), (9 * i, 9, 9)), f"a red {i}") for i in range(6)])
        ends = []
        for workers, limit in ((0, 2**30), (1, 0)):
            pictures = Pictures(make_clip(), pairs, memory_limit=limit)
            model = cg.train(make_clip(), pairs, defence="clean", steps=2, batch_size=2, workers=workers,
                             pictures=pictures, log_every=0)
            ends.append(model.state_dict())
        assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
        print("the same")
    """
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(code))
    paths = os.pathsep.join([str(Path(cg.__file__).parents[1]), str(Path(__file__).parents[1])])
    done = subprocess.run(
        [sys.executable, script], env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, timeout=300
    )
    assert "the same" in done.stdout, done.stderr
