"""Activation checkpointing: the same training, with fewer tensors kept."""

import pytest
import torch
from torch import nn

from crossguard.training import train
from crossguard.training.recompute import layers_of, recomputed
from shared import make_clip


def test_a_training_that_recomputes_gives_the_same_weights(toy_pairs):
    options = {"defence": "clean", "steps": 2, "batch_size": 8, "learning_rate": 1e-3}
    plain, again = (train(make_clip(), toy_pairs, recompute=wanted, **options) for wanted in (False, True))
    for (name, one), other in zip(plain.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(one, other), name
    assert not any("forward" in vars(layer) for layer in layers_of(again))


def test_less_is_kept_for_the_way_back():
    kept = {}
    for wanted in (False, True):
        model, numbers = make_clip(), []
        with (
            recomputed(model, wanted=wanted),
            torch.autograd.graph.saved_tensors_hooks(lambda t, n=numbers: n.append(t.numel()) or t, lambda t: t),
        ):
            model.encode_image(torch.rand(16, 3, 16, 16))
        kept[wanted] = sum(numbers)
    assert kept[True] < kept[False] / 3


def test_layers_are_those_of_both_towers():
    assert len(layers_of(make_clip())) == 4


def test_a_model_without_layers_is_refused():
    with pytest.raises(ValueError, match="Expected a model with layers in a torch.nn.ModuleList for recompute=True"):
        layers_of(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)))
