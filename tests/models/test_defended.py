"""Test-time defences: what they do to a picture, and that attacks see through them as far as gradients come."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

import crossguard as cg
from crossguard.attacks import make_attack
from crossguard.checks import WrongKind
from crossguard.models import CounterAttack, Defended, TestTimeDefence, VisionLanguageModel
from families import make_albef
from shared import make_clip

THREAT = cg.ThreatModel(image=cg.LInf(4 / 255))


@dataclass(frozen=True)
class Rounded(TestTimeDefence):
    """Eight grey levels: no gradient comes through."""

    name: ClassVar[str] = "rounded"

    def embed(self, model, pixels):
        return model.encode_image((pixels * 7).round() / 7)


@dataclass(frozen=True)
class RoundedWithWay(Rounded):
    """The same, with a way for gradients."""

    def surrogate(self, model, pixels):
        return model.encode_image(pixels)


@pytest.fixture
def pixels():
    return torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def counterattack_by_hand(model, image, how):
    """The authors' description, one picture and one pixel rule after the other."""
    noise = how.eps * (2 * torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(how.seed)) - 1)
    x = image[None]
    delta = torch.min(torch.max(noise[None], 0 - x), 1 - x)
    start = model.encode_image(x).detach()
    steps, ratio = [delta], ((model.encode_image(x + delta) - start).norm() / start.norm()).item()
    for _ in range(how.steps):
        leaf = steps[-1].clone().requires_grad_(True)
        ((model.encode_image(x + leaf) - start) ** 2).sum().backward()
        moved = torch.clamp(steps[-1] + how.step * leaf.grad.sign(), -how.eps, how.eps)
        steps.append(torch.min(torch.max(moved, 0 - x), 1 - x))
    if ratio >= how.threshold:
        return model.encode_image(x + steps[0]), ratio
    weights = [2.718281828459045 ** (how.beta * i) for i in range(len(steps))]
    mean = sum(w * d for w, d in zip(weights, steps, strict=True)) / sum(weights)
    return model.encode_image(x + mean), ratio


@pytest.mark.parametrize("threshold", [0.0, 10.0])
def test_the_counterattack_is_the_one_described(pixels, threshold):
    model = make_clip(2)
    how = CounterAttack(steps=3, threshold=threshold, seed=4)
    expected = [counterattack_by_hand(model, image, how) for image in pixels]
    assert all(0 < ratio < 10 for _, ratio in expected)
    with torch.no_grad():
        got = Defended(model, how).encode_image(pixels)
        assert torch.allclose(got, torch.cat([embedding for embedding, _ in expected]), atol=1e-5)
        change = how.change(model, pixels)
        assert change.abs().max() <= how.eps + 1e-7
        assert 0 <= (pixels + change).min() <= (pixels + change).max() <= 1 + 1e-6


def test_a_picture_that_noise_shakes_gets_noise_alone(pixels):
    model = make_clip(2)
    ratios = sorted(counterattack_by_hand(model, image, CounterAttack())[1] for image in pixels)
    how = CounterAttack(threshold=(ratios[1] + ratios[2]) / 2)
    noise_alone = (
        (how.change(model, pixels) == CounterAttack(threshold=0.0).change(model, pixels)).flatten(1).all(dim=1)
    )
    assert int(noise_alone.sum()) == 3


def test_gradients_through_the_counterattack_are_exact():
    model = make_clip(2).double()
    generator = torch.Generator().manual_seed(1)
    # Some pixels near black and white, where the change is cut.
    image = torch.rand(1, 3, 16, 16, generator=generator, dtype=torch.float64).mul(1.02).sub(0.01).clamp(1e-4, 1 - 1e-4)
    defended = Defended(model, CounterAttack(threshold=10.0))
    way = torch.randn(image.shape, generator=generator, dtype=torch.float64)
    weights = torch.randn(16, generator=generator, dtype=torch.float64)

    def answer(x):
        return (defended.encode_image(x) @ weights).sum()

    leaf = image.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(answer(leaf), leaf)
    with torch.no_grad():
        numeric = (answer(image + 1e-7 * way) - answer(image - 1e-7 * way)) / 2e-7
    assert float((gradient * way).sum()) == pytest.approx(float(numeric), rel=1e-5)


def test_a_defended_model_is_one_that_attacks_take(toy_batch):
    model = make_clip(2)
    defended = Defended(model, CounterAttack())
    assert isinstance(defended, VisionLanguageModel)
    assert defended.name == "tiny behind ttc"
    threat = cg.ThreatModel(image=cg.LInf(4 / 255), text=cg.WordEdits(1))
    for name in ("sga", "word-swap", "apgd"):
        found = make_attack(name)(defended, toy_batch, threat=threat, seed=0)
        assert len(found.texts) == len(toy_batch.texts)


def test_attacks_that_see_the_defence_leave_less(toy_pairs):
    defended = Defended(make_clip(2), CounterAttack(eps=12 / 255, step=6 / 255))
    threat = cg.ThreatModel(image=cg.LInf(6 / 255))

    def loss(victim):
        batch = toy_batch_of(defended, toy_pairs)
        found = make_attack("apgd", steps=10)(victim, batch, threat=threat, seed=0)
        with torch.no_grad():
            cosines = torch.nn.functional.cosine_similarity(
                defended.encode_image(found.pixels), defended.encode_text(batch.texts)
            )
        return float(cosines.mean())

    assert loss(defended) < loss(defended.model) - 1e-3


def toy_batch_of(model, pairs):
    from crossguard.data import PairBatch

    images = list(range(8))
    return PairBatch(
        model.preprocess([pairs.image(i) for i in images]),
        tuple(pairs.texts[pairs.texts_of(i)[0]] for i in images),
        torch.stack([torch.arange(8)] * 2, dim=1),
        torch.arange(8),
        torch.arange(8),
    )


@pytest.mark.parametrize("kind", ["pairs", "images"])
def test_a_defence_that_cuts_gradients_is_told_of(toy_pairs, kind):
    quick = {"attack": "pgd", "attack_options": {"steps": 2}, "threat": THREAT, "batch_size": 8}
    data = toy_pairs
    if kind == "images":
        texts = [toy_pairs.texts[toy_pairs.texts_of(i)[0]] for i in range(len(toy_pairs.images))]
        data = cg.as_images([(toy_pairs.image(i), text) for i, text in enumerate(texts)])
    cut = cg.evaluate(Defended(make_clip(2), Rounded()), data, **quick)
    assert any("Gradients to the pixels are zero for 8 of 8" in warning for warning in cut.warnings)
    approximated = cg.evaluate(Defended(make_clip(2), RoundedWithWay()), data, **quick)
    assert any("those of the surrogate of 'rounded'" in warning for warning in approximated.warnings)
    assert not any("are zero" in warning for warning in approximated.warnings)
    seen = cg.evaluate(Defended(make_clip(2), CounterAttack()), data, **quick)
    assert not any("surrogate" in warning or "are zero" in warning for warning in seen.warnings)


def test_a_surrogate_changes_gradients_and_not_answers(pixels):
    model = make_clip(2)
    defended = Defended(model, RoundedWithWay())
    leaf = pixels.clone().requires_grad_(True)
    embedding = defended.encode_image(leaf)
    assert torch.equal(embedding, model.encode_image((pixels * 7).round() / 7))
    plain = pixels.clone().requires_grad_(True)
    (got,) = torch.autograd.grad(embedding.sum(), leaf)
    (expected,) = torch.autograd.grad(model.encode_image(plain).sum(), plain)
    assert torch.equal(got, expected)


def test_what_cannot_be_defended_or_saved_is_refused(tmp_path, unchecked):
    with pytest.raises(WrongKind, match="two towers alone"):
        Defended(make_albef(tmp_path), CounterAttack())
    with pytest.raises(WrongKind, match="Linear is none"):
        Defended(torch.nn.Linear(2, 2), CounterAttack())
    with pytest.raises(ValueError, match=r"save `.model`"):
        Defended(make_clip(), CounterAttack()).save_pretrained(tmp_path / "saved")
    for bad in ({"eps": 2.0}, {"steps": 0}, {"beta": -1.0}, {"threshold": float("nan")}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            CounterAttack(**bad)
