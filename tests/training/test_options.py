"""Options of the trainer: averages, adapters, frozen parts, warm starts, the best weights, trackers, precision."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from training_helpers import ToySource
from transformers import CLIPModel

import crossguard as cg
from crossguard.models.unseen import cut_texts
from crossguard.runs import RunFolder
from crossguard.training import Pictures, train
from crossguard.training.compiled import check_compiler
from crossguard.training.ema import Average
from crossguard.training.job import Job
from crossguard.training.lora import add_lora, merge_lora, read_lora
from crossguard.training.warm import Perturbations
from fusion_models import make_albef, make_blip
from shared import make_clip

THREAT = cg.ThreatModel(image=cg.LInf(eps=8 / 255), text=cg.WordEdits(words=1))
QUICK = {
    "threat": THREAT,
    "steps": 3,
    "batch_size": 8,
    "learning_rate": 1e-2,
    "source": ToySource(),
    "log_every": 1,
    "defence": "mat",
}


@pytest.fixture(scope="module")
def pictures(toy_pairs):
    return Pictures(make_clip(), toy_pairs)


@pytest.fixture
def run(tmp_path):
    with RunFolder.open(tmp_path / "run", settings={"test": 1}) as folder:
        yield folder


def weights(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def rows_of(run):
    return [json.loads(line) for line in (run.path / "training.jsonl").read_text().splitlines()]


class TestAverage:
    def test_is_the_recurrence(self):
        weight = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
        average, expected = Average([weight], decay=0.5), np.array([1.0, 2.0])
        for step in range(20):
            with torch.no_grad():
                weight += step
            decay = min(0.5, (1 + step) / (10 + step))
            expected = decay * expected + (1 - decay) * weight.detach().numpy()
            average.update(step)
            np.testing.assert_allclose(average.tensors[0].numpy(), expected, rtol=1e-5)
        kept = weight.detach().clone()
        with average.applied():
            np.testing.assert_allclose(weight.detach().numpy(), expected, rtol=1e-5)
        assert torch.equal(weight, kept)

    def test_is_returned_and_resumes(self, toy_pairs, pictures, tmp_path):
        options = {**QUICK, "pictures": pictures, "ema": 0.9, "steps": 4, "checkpoint_every": 2}
        last = weights(train(make_clip(), toy_pairs, **{**options, "ema": 0.0}))
        whole = weights(train(make_clip(), toy_pairs, **options))
        assert not same(last, whole)
        with RunFolder.open(tmp_path / "run", settings={}) as run:
            stop_after(2, toy_pairs, run, options)
            assert same(weights(train(make_clip(), toy_pairs, run=run, **options)), whole)


def stop_after(steps, pairs, run, options):
    """Train in a run, and be stopped after some steps."""

    class Stop(Exception):
        pass

    step = Job.step

    def stopping(self, batch, number, **rest):
        if number == steps:
            raise Stop
        return step(self, batch, number, **rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Job, "step", stopping)
        with pytest.raises(Stop):
            train(make_clip(), pairs, run=run, **options)


class TestLora:
    @pytest.mark.parametrize("make", ["clip", "albef", "blip"])
    def test_merging_keeps_what_the_model_says(self, make, tmp_path):
        model = {"clip": lambda _: make_clip(), "albef": make_albef, "blip": make_blip}[make](tmp_path)
        names = list(model.state_dict())
        plain = weights(model)
        adapters = add_lora(model, read_lora({"rank": 2}), within=list(model.parameters()), seed=0)
        pixels, texts = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)), ["a red disc", "a cross"]
        with torch.no_grad():
            for adapter in adapters:
                adapter.add_(torch.randn(adapter.shape, generator=torch.Generator().manual_seed(1)) * 0.1)
            before = [model.encode_image(pixels), model.encode_text(texts)]
            merge_lora(model)
            after = [model.encode_image(pixels), model.encode_text(texts)]
        for a, b in zip(before, after, strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)
        assert list(model.state_dict()) == names
        assert not same(plain, weights(model))
        assert not hasattr(model, "peft_config")

    def test_only_low_rank_changes_and_they_load_anywhere(self, toy_pairs, pictures, tmp_path):
        model = make_clip()
        options = {**QUICK, "defence": "tecoa", "pictures": pictures, "lora": {"rank": 2, "layers": "*_proj"}}
        trained = train(model, toy_pairs, **options)
        moved = {}
        for name, before in model.named_parameters():
            change = trained.get_parameter(name) - before
            if change.any():
                moved[name] = int(torch.linalg.matrix_rank(change.detach(), rtol=1e-4))
        assert moved
        assert set(moved.values()) <= {1, 2}
        assert all("vision_model" in name and name.endswith("_proj.weight") for name in moved)
        assert [p.requires_grad for p in trained.parameters()] == [p.requires_grad for p in model.parameters()]
        trained.save_pretrained(tmp_path / "m")
        theirs = CLIPModel.from_pretrained(tmp_path / "m").state_dict()
        assert same(dict(theirs), weights(trained.network))

    def test_goes_on_after_a_stop(self, toy_pairs, pictures, run):
        options = {**QUICK, "pictures": pictures, "lora": {"rank": 2}, "steps": 4, "checkpoint_every": 2}
        whole = weights(train(make_clip(), toy_pairs, **options))
        stop_after(3, toy_pairs, run, options)
        assert same(weights(train(make_clip(), toy_pairs, run=run, **options)), whole)

    @pytest.mark.parametrize(
        ("lora", "message"),
        [
            ({"rnk": 2}, "Unknown option 'rnk' of `lora`: did you mean 'rank'"),
            ({"rank": 0}, "`lora.rank` to be a whole number >= 1"),
            ({"dropout": 1.0}, r"`lora.dropout` in \[0, 1\)"),
            ({"layers": ["nothing*"]}, "name linear layers of the trained towers"),
        ],
    )
    def test_bad_options(self, toy_pairs, pictures, lora, message):
        with pytest.raises(ValueError, match=message):
            train(make_clip(), toy_pairs, pictures=pictures, lora=lora, **QUICK)

    def test_without_peft_the_extra_is_named(self, toy_pairs, pictures, monkeypatch):
        monkeypatch.setitem(sys.modules, "peft", None)
        with pytest.raises(ValueError, match=r"pip install 'peft"):
            train(make_clip(), toy_pairs, pictures=pictures, lora={}, **QUICK)


def test_frozen_parts_stay(toy_pairs, pictures):
    model = make_clip()
    trained = train(model, toy_pairs, pictures=pictures, freeze=["network.text_model.*", "*logit_scale"], **QUICK)
    for name, parameter in trained.named_parameters():
        frozen = name.startswith("network.text_model") or name.endswith("logit_scale")
        assert not (frozen and not torch.equal(parameter, model.get_parameter(name))), name
        assert parameter.requires_grad
    assert not torch.equal(trained.network.text_projection.weight, model.network.text_projection.weight)
    with pytest.raises(ValueError, match=r"'network.txt_model.\*' names none; did you mean"):
        train(model, toy_pairs, pictures=pictures, freeze="network.txt_model.*", **QUICK)


class TestWarmStart:
    def test_perturbations_come_back_within_the_budget(self):
        generator = torch.Generator().manual_seed(0)
        eps, ids = 4 / 255, torch.tensor([3, 1])
        pixels = torch.rand(2, 3, 4, 4, generator=generator)
        change = ((torch.rand(pixels.shape, generator=generator) * 2 - 1) * eps).clamp(-pixels, 1 - pixels)
        memory = Perturbations(5, (4, 4), eps=eps)
        fresh = torch.zeros_like(pixels)
        assert torch.equal(memory.start(pixels, fresh, ids), fresh)
        memory.keep(change, ids)
        again = memory.start(pixels, fresh, ids)
        assert (again - pixels).abs().max() <= eps + 1e-6
        assert (again - (pixels + change)).abs().max() <= eps / 127
        assert torch.equal(memory.start(pixels, fresh, torch.tensor([0, 2])), fresh)

    def test_changes_training_from_the_second_visit_and_resumes(self, toy_pairs, pictures, run):
        options = {**QUICK, "pictures": pictures, "steps": 6, "checkpoint_every": 4}
        first = {
            start: weights(train(make_clip(), toy_pairs, start=start, **{**options, "warmup": 0.0, "steps": 6}))
            for start in ("uniform", "warm")
        }
        assert not same(first["uniform"], first["warm"])
        options |= {"start": "warm", "warmup": 0.0}
        stop_after(5, toy_pairs, run, options)
        assert same(weights(train(make_clip(), toy_pairs, run=run, **options)), first["warm"])


class TestBest:
    def judged(self, monkeypatch, values):
        """Let validation say these values, whatever the model."""
        from crossguard.training.validation import Validation

        said = iter(values)
        seen = []

        def judge(self, model, *, device):
            seen.append(weights(model))
            value = next(said)
            return {"clean_tr@1": 90.0, "clean_ir@1": 90.0, "robust_tr@1": value, "robust_ir@1": value + 2}

        monkeypatch.setattr(Validation, "__call__", judge)
        return seen

    @pytest.mark.parametrize("with_run", [False, True])
    def test_is_the_step_of_the_highest_robust_recall(self, toy_pairs, pictures, run, monkeypatch, with_run):
        seen = self.judged(monkeypatch, [10.0, 30.0, 30.0, 20.0])
        options = {**QUICK, "steps": 4, "validation": toy_pairs, "validate_every": 1, "pictures": pictures}
        trained = train(make_clip(), toy_pairs, keep="best", run=run if with_run else None, **options)
        assert same(weights(trained), seen[1])
        if with_run:
            assert [row["best_step"] for row in rows_of(run)] == [1, 2, 2, 2]
            position = json.loads((run.path / "checkpoint-mat-best" / "position.json").read_text())
            assert (position["step"], position["measured"]["robust_tr@1"]) == (2, 30.0)

    def test_survives_a_stop(self, toy_pairs, pictures, run, monkeypatch):
        options = {**QUICK, "steps": 4, "validation": toy_pairs, "validate_every": 1, "pictures": pictures}
        options |= {"keep": "best", "checkpoint_every": 2}
        seen = self.judged(monkeypatch, [10.0, 40.0, 30.0, 20.0])
        stop_after(2, toy_pairs, run, options)
        assert same(weights(train(make_clip(), toy_pairs, run=run, **options)), seen[1])

    def test_of_an_average_is_an_average(self, toy_pairs, pictures, monkeypatch):
        seen = self.judged(monkeypatch, [40.0, 30.0, 20.0])
        options = {**QUICK, "validation": toy_pairs, "validate_every": 1, "pictures": pictures, "ema": 0.9}
        assert same(weights(train(make_clip(), toy_pairs, keep="best", **options)), seen[0])

    def test_needs_validation(self, toy_pairs):
        with pytest.raises(ValueError, match="`validation` pairs together with keep='best'"):
            train(make_clip(), toy_pairs, keep="best", **QUICK)
        with pytest.raises(ValueError, match="did you mean 'best'"):
            train(make_clip(), toy_pairs, keep="bst", **QUICK)


def test_nothing_is_logged_if_so_wished_and_the_training_is_the_same(toy_pairs, pictures, run):
    silent = train(make_clip(), toy_pairs, run=run, pictures=pictures, **{**QUICK, "log_every": 0})
    assert rows_of(run) == []
    assert same(weights(silent), weights(train(make_clip(), toy_pairs, pictures=pictures, **QUICK)))


def test_a_date_will_do_as_a_seed(toy_pairs, pictures):
    for seed in (20260101, 2**60):
        options = {**QUICK, "pictures": pictures, "steps": 1, "seed": seed}
        whole = train(make_clip(), toy_pairs, **options)
        chunked = train(make_clip(), toy_pairs, chunk_size=3, **options)
        # A first step of AdamW is as long as the learning rate (1e-2) however small a gradient is, rounding included.
        for name, value in weights(whole).items():
            assert torch.allclose(value, weights(chunked)[name], atol=1e-4)


class TestSubstitutes:
    def test_from_the_models_own_words_survive_a_stop(self, toy_pairs, pictures, run):
        options = {**QUICK, "source": {"name": "embedding", "min_cosine": -1.0}, "pictures": pictures}
        options |= {"steps": 6, "checkpoint_every": 1, "learning_rate": 5e-2, "warmup": 0.0}
        whole = weights(train(make_clip(), toy_pairs, **options))
        stop_after(2, toy_pairs, run, options)
        assert same(weights(train(make_clip(), toy_pairs, run=run, **options)), whole)

    def test_of_other_options_are_another_training(self, toy_pairs, pictures, run):
        options = {**QUICK, "pictures": pictures, "source": {"name": "characters", "limit": 1}}
        train(make_clip(), toy_pairs, run=run, **options)
        with pytest.raises(ValueError, match="source_options"):
            train(make_clip(), toy_pairs, run=run, **{**options, "source": {"name": "characters", "limit": 2}})


@pytest.mark.filterwarnings("ignore")
def test_tensorboard_gets_what_is_logged(toy_pairs, pictures, run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(make_clip(), toy_pairs, run=run, pictures=pictures, tracker="tensorboard", **QUICK)
    (folder,) = run.path.glob("tensorboard-*")
    events = EventAccumulator(str(folder)).Reload()
    logged = [(event.step, event.value) for event in events.Scalars("loss")]
    assert logged == [(row["step"], pytest.approx(row["loss"])) for row in rows_of(run)]


def test_trackers_that_cannot_be(toy_pairs, pictures, run, monkeypatch):
    with pytest.raises(ValueError, match="`run` folder together with `tracker`"):
        train(make_clip(), toy_pairs, tracker="tensorboard", **QUICK)
    with pytest.raises(ValueError, match="Unknown `tracker` 'tensorbord': did you mean"):
        train(make_clip(), toy_pairs, tracker="tensorbord", run=run, **QUICK)
    monkeypatch.setattr("crossguard.training.trainer.get_available_trackers", lambda: [])
    with pytest.raises(ValueError, match=r"pip install 'tensorboard"):
        train(make_clip(), toy_pairs, tracker="tensorboard", run=run, **QUICK)
    with pytest.raises(ValueError, match="'wandb' is not here: pip install 'wandb'"):
        train(make_clip(), toy_pairs, tracker="wandb", run=run, **QUICK)


def test_bfloat16_learns_too(toy_pairs, pictures, run):
    train(make_clip(), toy_pairs, run=run, pictures=pictures, precision="bfloat16", **{**QUICK, "steps": 12})
    losses = [row["loss"] for row in rows_of(run)]
    assert np.isfinite(losses).all()
    assert np.mean(losses[-3:]) < np.mean(losses[:3])


def test_compiling_without_a_compiler_is_refused(toy_pairs, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ValueError, match="C\\+\\+ compiler \\(no-such-compiler\\) for compile=True on a CPU"):
        train(make_clip(), toy_pairs, compile=True, **QUICK)
    monkeypatch.delenv("CXX")
    monkeypatch.setattr("shutil.which", lambda name: "/bin/g++" if name == "g++" else None)
    check_compiler(torch.device("cpu"))


@pytest.mark.slow
def test_a_compiled_training_is_the_plain_one(tmp_path):
    """In a process of its own: the type checks of the test run cannot be compiled."""
    code = Path(__file__).with_name("compiled_training.py")
    paths = os.pathsep.join(path for path in sys.path if path)
    subprocess.run(
        [sys.executable, str(code), str(tmp_path)], check=True, timeout=600, env={**os.environ, "PYTHONPATH": paths}
    )


class TestLongTexts:
    @pytest.mark.parametrize("make", ["clip", "albef", "blip"])
    def test_cut_texts_are_those_that_lose_words(self, make, tmp_path):
        model = {"clip": lambda _: make_clip(), "albef": make_albef, "blip": make_blip}[make](tmp_path)
        texts = [" ".join(["red", "disc", "a", "small"][i % 4] for i in range(words)) for words in range(1, 60)]
        found = cut_texts(model, texts)
        kept = model.tokenize(texts).mask.sum(dim=1)
        frame = int(kept[0]) - 1
        assert found == [i for i in range(59) if int(kept[i]) < frame + i + 1]
        assert 0 < len(found) < 59

    def test_training_says_how_many(self, toy_pairs):
        pairs = toy_pairs.select(images=range(8))
        links = np.concatenate([np.array([[0, 0]]), pairs.links + np.array([0, 1])])
        long = "a small red disc on the left side of a large plain picture with a bright blue cross"
        pairs = cg.OneToManyPairs("toy", "train", pairs.images, (long, *pairs.texts), links)
        with pytest.warns(
            UserWarning, match=f"1 of {len(pairs.texts)} texts are longer than the 16 tokens .*'a small red"
        ):
            train(make_clip(), pairs, **{**QUICK, "steps": 1})


def test_no_budget_for_images_trains_on_texts_alone(toy_pairs, pictures, run):
    """eps = 0 with words left is a text-only threat; with neither it is refused (see `test_trainer`)."""
    threat = cg.ThreatModel(image=cg.LInf(0.0), text=cg.WordEdits(1))
    only = cg.ThreatModel(text=cg.WordEdits(1))
    a, b = (
        weights(train(make_clip(), toy_pairs, pictures=pictures, **{**QUICK, "threat": each}))
        for each in (threat, only)
    )
    assert same(a, b)
