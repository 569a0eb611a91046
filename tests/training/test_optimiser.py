"""Learning rate, weight decay groups, and what is trained."""

from itertools import pairwise
from math import cos, pi

import pytest
import torch

from crossguard.training.optimiser import learning_rate_at, make_optimiser, select_trained


def test_learning_rate_warms_up_and_falls_to_nothing():
    rates = [learning_rate_at(step, steps=100, warmup=10, peak=2.0) for step in range(100)]
    assert rates[:10] == pytest.approx([0.2 * (step + 1) for step in range(10)])
    assert rates[55] == pytest.approx(1 + cos(pi * 45.5 / 90))
    assert all(a >= b for a, b in pairwise(rates[9:]))
    assert 0 < rates[-1] < 0.001


def test_training_without_warm_up_starts_at_the_peak():
    assert learning_rate_at(0, steps=1000, warmup=0, peak=3.0) == pytest.approx(3.0, rel=1e-4)


def test_biases_and_norms_do_not_decay(tiny_clip):
    decayed, spared = make_optimiser(list(tiny_clip.parameters()), weight_decay=0.3).param_groups
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.3, 0.0)
    assert all(p.ndim >= 2 for p in decayed["params"])
    assert all(p.ndim < 2 for p in spared["params"])
    assert len(decayed["params"]) + len(spared["params"]) == len(list(tiny_clip.parameters()))


@pytest.mark.parametrize("tower", ["image", "text"])
def test_one_tower_is_trained_alone(tiny_clip, tower):
    trained = select_trained(tiny_clip, (tower,))
    assert {id(p) for p in trained} == {id(p) for p in tiny_clip.tower(tower)}
    assert {id(p) for p in tiny_clip.parameters() if p.requires_grad} == {id(p) for p in trained}


def test_both_towers_take_the_temperature_with_them(tiny_clip):
    assert len(select_trained(tiny_clip, ("image", "text"))) == len(list(tiny_clip.parameters()))
    assert tiny_clip.network.logit_scale.requires_grad


def test_what_was_frozen_stays_frozen(tiny_clip):
    tiny_clip.network.logit_scale.requires_grad_(False)
    trained = select_trained(tiny_clip, ("image", "text"))
    assert all(p is not tiny_clip.network.logit_scale for p in trained)
    for parameter in tiny_clip.tower("image"):
        parameter.requires_grad_(False)
    with pytest.raises(ValueError, match="parameters to train in image tower, but all are frozen"):
        select_trained(tiny_clip, ("image",))


def test_the_optimiser_takes_a_step(tiny_clip):
    optimiser = make_optimiser(select_trained(tiny_clip, ("image",)), weight_decay=0.0)
    before = tiny_clip.network.visual_projection.weight.clone()
    tiny_clip.encode_image(torch.rand(2, 3, 16, 16)).sum().backward()
    for group in optimiser.param_groups:
        group["lr"] = 0.1
    optimiser.step()
    assert not torch.equal(before, tiny_clip.network.visual_projection.weight)
