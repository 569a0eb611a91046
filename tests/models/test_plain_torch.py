"""Whatever the caller has set in PyTorch: the same figures, or a sentence."""

import copy
from contextlib import contextmanager, nullcontext

import numpy as np
import pytest
import torch

import crossguard as cg
from crossguard.attacks import make_attack
from crossguard.data import PairBatch
from crossguard.models.plain_torch import check_weights, plain_torch


@contextmanager
def default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def deterministic():
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


CALLERS = {
    "inference mode": torch.inference_mode,
    "no gradients": torch.no_grad,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "double precision": lambda: default_dtype(torch.float64),
    "half precision": lambda: default_dtype(torch.bfloat16),
    "another device": lambda: torch.device("meta"),
    "deterministic algorithms": deterministic,
}


@pytest.fixture(params=CALLERS)
def caller(request):
    return CALLERS[request.param]


def test_everything_is_as_on_a_fresh_start_and_then_as_the_caller_had_it(caller):
    with caller():
        before = torch.get_default_dtype(), torch.get_default_device().type, torch.is_grad_enabled()
        autocast = torch.is_autocast_enabled("cpu")
        with plain_torch():
            weight = torch.nn.Linear(2, 2)(torch.ones(2)).sum()
            weight.backward()
            assert (weight.dtype, weight.device.type) == (torch.float32, "cpu")
            assert not torch.is_autocast_enabled("cpu")
        assert (torch.get_default_dtype(), torch.get_default_device().type, torch.is_grad_enabled()) == before
        assert torch.is_autocast_enabled("cpu") == autocast


@pytest.fixture
def pairs(toy_pairs):
    return toy_pairs


def _batch(pairs, model, dtype=torch.float32):
    pixels = model.preprocess([pairs.image(i) for i in range(len(pairs.images))]).to(dtype)
    ids = np.arange(len(pairs.images)), np.arange(len(pairs.texts))
    return PairBatch(pixels, pairs.texts, torch.from_numpy(pairs.links.copy()), *map(torch.from_numpy, ids))


THREAT = cg.ThreatModel(image=cg.LInf(eps=4 / 255), text=cg.WordEdits(words=1))


def _attacked(model, batch):
    found = make_attack("co-attack")(model, batch, threat=THREAT, seed=0)
    return found.pixels, found.texts, found.image_drop


def test_an_attack_finds_the_same(pairs, tiny_clip, caller):
    model = tiny_clip
    pixels, texts, drop = _attacked(model, _batch(pairs, model))
    with caller():
        again = _attacked(model, _batch(pairs, model))
    assert torch.equal(again[0], pixels)
    assert again[1] == texts
    assert torch.equal(again[2], drop)


def test_pixels_made_inside_are_taken(pairs, tiny_clip):
    model = tiny_clip
    with torch.inference_mode():
        batch = _batch(pairs, model)
        assert torch.equal(_attacked(model, batch)[0], _attacked(model, _batch(pairs, model))[0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_pixels_of_any_precision_keep_the_budget(pairs, tiny_clip, dtype):
    model = tiny_clip
    batch = _batch(pairs, model, dtype)
    found = make_attack("pgd")(model, batch, threat=cg.ThreatModel(image=cg.LInf(eps=4 / 255)), seed=0)
    assert found.pixels.dtype == torch.float32
    assert found.linf.max() <= 4 / 255 + 1e-6


def test_a_training_gives_the_same_weights(pairs, tiny_clip, caller):
    def trained(within):
        with within():
            return cg.train(tiny_clip, pairs, defence="mat", threat=THREAT, steps=1, batch_size=3, log_every=0)

    first, second = trained(nullcontext), trained(caller)
    for (name, one), other in zip(first.state_dict().items(), second.state_dict().values(), strict=True):
        assert torch.equal(one, other), name


def test_a_certificate_has_the_same_counts(caller):
    samples = cg.load_samples("watch", split="test").head(4)
    from crossguard.models import WatchNet

    model = WatchNet.for_samples(samples, seed=0, width=8)
    keep = {"accelerometer": 20, "gyroscope": 20}

    def counts():
        return cg.certify(model, samples, keep=keep, draws=50, alpha=0.1, seed=0).counts.votes

    expected = counts()
    with caller():
        found = counts()
    np.testing.assert_array_equal(found, expected)


def test_models_are_loaded_as_ever(caller):
    with caller():
        model = cg.load_model("emoji-clip")
    check_weights(model)
    assert {(p.dtype, p.device.type) for p in model.parameters()} == {(torch.float32, "cpu")}


def test_weights_made_inside_inference_mode_are_refused(pairs, tiny_clip):
    with torch.inference_mode():
        model = copy.deepcopy(tiny_clip)
    with pytest.raises(ValueError, match=r"made outside of torch\.inference_mode"):
        _attacked(model, _batch(pairs, model))
    with pytest.raises(ValueError, match=r"made outside of torch\.inference_mode"):
        cg.train(model, pairs, defence="clean", steps=1, batch_size=3)
