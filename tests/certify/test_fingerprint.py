"""Kept counts are those of one model: whatever changes its votes changes its fingerprint."""

import functools
import threading

import pytest
import torch
from certify_toys import KEEP, SignNet
from torch import nn

from crossguard.certify import certify
from crossguard.models import EmotionNet, RoadNet, WatchNet
from crossguard.models.gallery_choice import GalleryChoice
from crossguard.models.identity import model_identity
from shared import make_clip


class Rule:
    """A classifier that is no module."""

    name, modalities, classes = "rule", ("left", "right"), ("no", "yes", "never")

    def __init__(self, sign, more=None):
        self._sign, self.more = sign, more

    def __call__(self, inputs, kept=None):
        score = self._sign * sum((inputs[m][..., 0] * kept[m]).sum(dim=1) for m in self.modalities)
        return torch.stack([-score, score, torch.full_like(score, -99.0)], dim=1)


class Threshold(SignNet):
    """A module with a setting that is no weight."""

    def __init__(self, least=0.0, inner=None):
        super().__init__()
        self.least, self.inner = least, inner


def watch_net(rate=50.0):
    torch.manual_seed(0)
    return WatchNet({"a": 3}, ("no", "yes"), width=8, rate=rate)


def road_net(reading="dense"):
    torch.manual_seed(0)
    return RoadNet({"rgb": 3, "depth": 1}, ("no", "yes"), reading={"depth": reading})


def gallery_choice(words=("red", "blue")):
    return GalleryChoice(make_clip(), torch.eye(2, 16), ("a", "b"), vocabulary=words, modalities=("text",))


def told(model):
    return model_identity(model, strict=True)


@pytest.mark.parametrize(
    ("make", "others"),
    [
        (watch_net, [{"rate": 20.0}]),
        (road_net, [{"reading": "sparse"}]),
        (gallery_choice, [{"words": ("blue", "red")}]),
        (Threshold, [{"least": 0.5}, {"inner": {"table": torch.ones(3)}}, {"inner": Rule(1)}]),
        (lambda sign=1, more=None: Rule(sign, more), [{"sign": -1}, {"more": [nn.Linear(2, 2)]}, {"more": sum}]),
    ],
)
def test_settings_tell_models_apart(make, others):
    assert told(make()) == told(make())
    for change in others:
        assert told(make(**change)) != told(make())


def test_weights_tell_modules_apart_wherever_they_are():
    def rule(value):
        layer = nn.Linear(2, 2)
        nn.init.constant_(layer.weight, value)
        nn.init.zeros_(layer.bias)
        return Rule(1, {"layers": [layer, torch.zeros(2)]})

    assert told(rule(1.0)) == told(rule(1.0)) != told(rule(2.0))


def test_use_and_mode_change_nothing():
    model = EmotionNet({"face": (5, 6), "voice": (7, 4)}, ("calm", "glad"), width=8)
    before = told(model)
    with torch.no_grad():
        model.eval()({"face": torch.ones(2, 5, 6), "voice": torch.ones(2, 7, 4)})
    assert told(model) == before


def test_an_object_may_hold_itself():
    rule = Rule(1)
    rule.more = [rule]
    assert told(rule) != told(Rule(1))


def test_counts_of_another_rule_are_refused(sensors, tmp_path):
    options = {"keep": KEEP, "draws": 50, "alpha": 0.01, "folder": tmp_path}
    certify(Rule(1), sensors, **options)
    certify(Rule(1), sensors, **options)
    with pytest.raises(ValueError, match="same model and data"):
        certify(Rule(-1), sensors, **options)


def test_a_model_that_cannot_be_told_keeps_no_counts_unless_it_is_named(sensors, tmp_path):
    rule = Rule(1, {"lock": threading.Lock()})
    options = {"keep": KEEP, "draws": 50, "alpha": 0.01}
    with pytest.raises(ValueError, match=r"`more\.lock` is <unlocked"):
        certify(rule, sensors, folder=tmp_path, **options)
    assert certify(rule, sensors, **options).counts.draws == 50
    found = certify(rule, sensors, folder=tmp_path, identity="rule 1", **options)
    again = certify(Rule(1, {"lock": threading.Lock()}), sensors, folder=tmp_path, identity="rule 1", **options)
    assert (again.counts.votes == found.counts.votes).all()
    with pytest.raises(ValueError, match="same model and data"):
        certify(rule, sensors, folder=tmp_path, identity="rule 2", **options)
    with pytest.raises(ValueError, match="same model and data"):  # the word says the same, the answers do not
        certify(Rule(-1, {"lock": threading.Lock()}), sensors, folder=tmp_path, identity="rule 1", **options)


@pytest.mark.parametrize("hide", [lambda sign: lambda x: sign * x, lambda sign: functools.partial(torch.mul, sign)])
def test_modules_with_opposite_rules_share_no_counts(sensors, tmp_path, hide):
    class Hidden(SignNet):
        def __init__(self, sign):
            super().__init__()
            self._rule = hide(sign)

        def forward(self, inputs, kept=None):
            return self._rule(super().forward(inputs, kept)[:, :2].repeat(1, 2)[:, :3])

    options = {"keep": KEEP, "draws": 50, "alpha": 0.01, "folder": tmp_path}
    found = certify(Hidden(1), sensors, **options)
    renamed = Hidden(1)
    renamed.name = "another name"
    assert (certify(renamed, sensors, **options).counts.votes == found.counts.votes).all()
    with pytest.raises(ValueError, match="same model and data"):
        certify(Hidden(-1), sensors, **options)
