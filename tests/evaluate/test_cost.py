"""A dry run: every part is counted as the evaluation would need it, measured by the clock, and nothing is left changed."""

import json
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))
from crossguard.attacks import make_attack
from crossguard.evaluate import cost as costs
from crossguard.evaluate.cost import estimate_cost
from crossguard.evaluate.measure import parts_of
from crossguard.threat import LInf, ThreatModel, WordEdits
from fusion_models import make_albef

THREAT = ThreatModel(image=LInf(2 / 255), text=WordEdits(1))


@pytest.fixture
def clock(monkeypatch):
    """Every piece of work takes two seconds."""
    now = iter(float(second) for second in range(0, 1000, 2))
    monkeypatch.setattr(costs, "perf_counter", lambda: next(now))


def test_parts_are_counted_and_measured(clock, tiny_clip, toy_pairs):
    attacks = {"sga": make_attack("sga", steps=1, scales=(0.5,)), "pgd": make_attack("pgd", steps=1)}
    weights = {name: value.clone() for name, value in tiny_clip.state_dict().items()}
    tiny_clip.train()
    cost = estimate_cost(tiny_clip, toy_pairs, attacks=attacks, threats=parts_of(THREAT), sample=3)
    images, texts = len(toy_pairs.images), len(toy_pairs.texts)
    named = {part.what: part for part in cost.parts}
    assert {name: (part.count, part.unit) for name, part in named.items()} == {
        "decode and resize": (images, "images"),
        "embed images": (5 * images, "images"),  # clean, sga three times, pgd on images
        "embed texts": (5 * texts, "texts"),
        "attack with sga (image)": (images, "images"),
        "attack with sga (text)": (images, "images"),
        "attack with sga (joint)": (images, "images"),
        "attack with pgd (image)": (images, "images"),
    }
    assert named["attack with pgd (image)"].per_second == 3 / 2
    assert named["attack with pgd (image)"].seconds == pytest.approx(images * 2 / 3)
    assert cost.seconds == pytest.approx(sum(part.seconds for part in cost.parts))
    assert json.loads(json.dumps(cost.to_dict()))["seconds"] == pytest.approx(cost.seconds)
    assert "about " in str(cost)
    assert str(cost).count("attack with") == 4
    assert tiny_clip.training
    assert all(torch.equal(value, weights[name]) for name, value in tiny_clip.state_dict().items())


def test_matched_pairs_are_counted_from_above(tmp_path, toy_pairs):
    model = make_albef(tmp_path)
    images, texts = len(toy_pairs.images), len(toy_pairs.texts)
    for rerank, pairs in ((4, 4 * (images + texts)), (None, images * texts), (0, None)):
        cost = estimate_cost(model, toy_pairs, rerank=rerank, sample=2)
        counted = {part.what: part.count for part in cost.parts}
        assert counted.get("match") == pairs


def test_refused(tiny_clip, toy_pairs):
    with pytest.raises(ValueError, match="`sample` >= 1"):
        estimate_cost(tiny_clip, toy_pairs, sample=0)
    with pytest.raises(ValueError, match="without `match`"):
        estimate_cost(tiny_clip, toy_pairs, rerank=3)
