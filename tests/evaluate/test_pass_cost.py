"""What a dry run counts: the passes that attacks really take, on pictures that stand to the end."""

import pytest
import torch

import crossguard as cg
from crossguard.attacks import make_attack
from crossguard.evaluate import TASKS
from crossguard.evaluate import cost as costs
from crossguard.evaluate.pass_cost import (
    Passes,
    estimate_writing,
    estimate_zero_shot,
    passes_of_ascent,
    passes_on_classes,
)
from crossguard.evaluate.task import make_task
from crossguard.evaluate.tasks.samples import NamedAttack
from crossguard.models import load_model
from llava_files import llava
from shared import make_clip

THREAT = cg.ThreatModel(image=cg.LInf(2 / 255))


@pytest.fixture
def clock(monkeypatch):
    """Every piece of work takes two seconds."""
    now = iter(float(second) for second in range(0, 1000, 2))
    monkeypatch.setattr(costs, "perf_counter", lambda: next(now))


def passes(name, *, classes=6, **options):
    return passes_on_classes(NamedAttack(name, options), THREAT, classes=classes, objective="strongest")


def test_passes_of_auto_attack_are_those_of_its_papers():
    """Each part stands alone: a run of Auto-PGD takes a gradient a step; targets and restarts multiply; squares query."""
    extra = passes("apgd-ce", steps=10).gradients - 10
    assert 0 <= extra <= 1  # at the start
    for steps, restarts in ((10, 2), (25, 1)):
        found = passes("apgd-ce", steps=steps, restarts=restarts)
        assert found.gradients == restarts * (steps + extra)
    assert passes("apgd-t", steps=10, targets=3).gradients == 3 * (10 + extra)
    squares = passes("square", queries=50)
    assert squares.gradients == 0
    assert 50 <= squares.forwards <= 50 + 5
    whole = passes("auto-attack", steps=10, targets=2, queries=20)
    alone = [passes("apgd-ce", steps=10), passes("apgd-t", steps=10, targets=2), passes("fab-t", steps=10, targets=2)]
    assert whole.gradients == sum(each.gradients for each in alone)


def test_passes_of_ascent_are_its_steps():
    model = make_clip()
    assert passes_of_ascent(make_attack("pgd", steps=7), model, THREAT) == Passes(7, 1)
    assert passes_of_ascent(make_attack("pgd", steps=7, keep_best=False), model, THREAT) == Passes(7, 0)
    twice = passes_of_ascent(make_attack("pgd", steps=7, restarts=2), model, THREAT)
    assert twice.gradients == 14


def labelled(pairs):
    texts = [pairs.texts[pairs.texts_of(i)[0]] for i in range(len(pairs.images))]
    return cg.as_images([(pairs.image(i), text) for i, text in enumerate(texts)])


def test_a_table_is_counted_set_by_set(clock, toy_pairs):
    data = labelled(toy_pairs)
    sets, threats = {"all": data, "few": data.head(5)}, [THREAT, cg.ThreatModel(image=cg.LInf(4 / 255))]
    how = {"attacks": {"pgd": NamedAttack("pgd", {"steps": 3})}, "threats": threats, "objective": "margin"}
    cost = estimate_zero_shot(make_clip(), sets, sample=2, **how)
    pictures = len(data) + 5
    named = {part.what: part for part in cost.parts}
    assert {what: part.count for what, part in named.items()} == {
        "decode and resize": 2 * pictures,
        "embed prompts": 2 * 2 * len(data.classes),
        "clean answers": 2 * pictures,
        **{f"pgd (L-inf {eps}/255), gradients": 3 * pictures for eps in (2, 4)},
        **{f"pgd (L-inf {eps}/255), forwards": named["pgd (L-inf 2/255), forwards"].count for eps in (2, 4)},
    }
    assert named["pgd (L-inf 2/255), gradients"].per_second == 2 / 2
    assert cost.memory == 4 * sum(p.numel() for p in make_clip().parameters())
    assert str(cost).splitlines()[-1].startswith("at most ")
    half = estimate_zero_shot(make_clip(), sets, sample=2, half_first=True, **how)
    assert half.parts[3].what == "pgd (L-inf 2/255), gradients in half precision"
    assert half.parts[3].count == 3 * pictures


def test_models_that_write_are_counted(clock, toy_pairs, tmp_path):
    llava(tmp_path / "llava")
    task = make_task(
        TASKS["captioning"], load_model(tmp_path / "llava"), toy_pairs, 4, {"beams": 1, "half_first": True}
    )
    cost = estimate_writing(task, attacks={"pgd": make_attack("pgd", steps=5)}, threats=[THREAT])
    pictures = len(toy_pairs.images)
    assert {part.what: part.count for part in cost.parts} == {
        "decode and resize": pictures,
        "write": 3 * pictures,  # clean, after half precision, and at the end
        "pgd (L-inf 2/255), gradients in half precision": 5 * pictures,
        "pgd (L-inf 2/255), gradients": 5 * pictures,
        "pgd (L-inf 2/255), forwards": 2 * pictures,
    }
    assert {part.unit for part in cost.parts} == {"images"}


def test_a_model_is_left_as_it_was(toy_pairs):
    model = make_clip().train()
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    estimate_zero_shot(model, {"all": labelled(toy_pairs)}, attacks={}, threats=[])
    assert model.training
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
