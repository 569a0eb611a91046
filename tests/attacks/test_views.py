"""Views of images at which gradients are taken, and what momentum and mixes make of them."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from crossguard.attacks import make_attack
from crossguard.attacks.ascent import ascend, with_gradient, with_momentum
from crossguard.attacks.ball import LInfBall
from crossguard.attacks.views import mixed_gradient, rescale, shrunk, simplex
from crossguard.threat import LInf, ThreatModel

EIGHT = ThreatModel(image=LInf(8 / 255))


def pictures(seed=0, samples=3, size=8):
    return torch.rand(samples, 3, size, size, generator=torch.Generator().manual_seed(seed))


def test_shrinking_by_half_into_a_corner_averages_and_blackens():
    pixels = pictures()
    # factor 1 - 1 * (1 - 0.5) would need a draw of 1: as near as can be; places 0, 0: the upper left corner.
    draws = torch.tensor([[0.0, 1 - 1e-7, 0.0, 0.0]]).expand(3, 4)
    small = shrunk(pixels, draws, chance=1.0, shrink=0.5)
    expected = torch.zeros_like(pixels)
    expected[..., :4, :4] = torch.nn.functional.avg_pool2d(pixels, 2)
    assert torch.allclose(small, expected, atol=1e-5)
    elsewhere = shrunk(pixels, torch.tensor([[0.0, 1 - 1e-7, 1 - 1e-7, 0.0]]).expand(3, 4), chance=1.0, shrink=0.5)
    assert torch.allclose(elsewhere[..., :4, 4:], expected[..., :4, :4], atol=1e-5)


@given(st.floats(0, 1), st.integers(0, 99))
def test_only_images_below_the_chance_are_shrunk(chance, seed):
    pixels = pictures(samples=5)
    draws = torch.rand(5, 4, generator=torch.Generator().manual_seed(seed))
    seen = shrunk(pixels, draws, chance=chance, shrink=0.6)
    same = torch.tensor([torch.equal(a, b) for a, b in zip(seen, pixels, strict=True)])
    assert torch.equal(same, draws[:, 0] >= chance)
    assert 0 <= float(seen.min()) <= float(seen.max()) <= 1 + 1e-6


def test_nothing_is_shrunk_by_a_factor_of_one():
    pixels = pictures()
    draws = torch.rand(3, 4, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(shrunk(pixels, draws, chance=1.0, shrink=1.0), pixels, atol=1e-5)


def test_rescaling_without_noise_at_the_same_size_changes_nothing():
    pixels = pictures()
    assert torch.allclose(rescale(pixels, torch.zeros_like(pixels)), pixels, atol=1e-6)


def test_momentum_is_the_decayed_sum_of_scaled_directions():
    directions = [pictures(seed) - 0.5 for seed in range(4)]
    queue = iter(directions)
    step = with_momentum(lambda pixels: (torch.zeros(3), next(queue)), decay=0.7)
    total = torch.zeros(3, 3, 8, 8)
    for direction in directions:
        total = 0.7 * total + torch.stack([d / d.abs().mean() for d in direction])
        assert torch.allclose(step(direction)[1], total, atol=1e-5)


def test_momentum_carries_over_a_gradient_that_flips():
    """One step forth, then a weaker gradient back: momentum goes on where plain steps return."""
    clean = torch.full((1, 3, 2, 2), 0.5)

    def loss(x):
        bump = x.mean(dim=(1, 2, 3)) - 0.5
        return torch.where(bump < 0.015, bump, 0.03 - bump)

    def last(gradient):
        return ascend(gradient, loss, LInfBall(clean, 0.1), steps=4, step_size=0.01, keep_best=False)

    assert float(last(with_gradient(loss)).mean()) == pytest.approx(0.52, abs=1e-5)
    assert float(last(with_momentum(with_gradient(loss), decay=2.0)).mean()) == pytest.approx(0.54, abs=1e-5)


def test_a_vanished_gradient_stays_finite():
    step = with_momentum(lambda pixels: (torch.zeros(3), torch.zeros_like(pixels)), decay=1.0)
    assert torch.equal(step(pictures())[1], torch.zeros(3, 3, 8, 8))


def test_weights_of_mixes_are_uniform_on_the_triangle(toy_batch):
    weights = torch.cat([simplex(toy_batch, seed=0, stream=stream) for stream in range(400)])
    assert torch.allclose(weights.sum(dim=1), torch.ones(len(weights)), atol=1e-6)
    assert float(weights.min()) >= 0
    # Dirichlet(1, 1, 1): mean 1/3, variance 1/18, covariance -1/36.
    assert torch.allclose(weights.mean(dim=0), torch.full((3,), 1 / 3), atol=0.02)
    covariance = torch.cov(weights.T)
    assert torch.allclose(covariance.diag(), torch.full((3,), 1 / 18), atol=0.006)
    assert float(covariance[0, 1]) == pytest.approx(-1 / 36, abs=0.006)


def test_mixes_lie_in_the_triangle_and_the_worst_is_taken(toy_batch):
    asked = []

    def loss(pixels):
        asked.append(pixels.clone())
        return -(pixels - 0.3).square().sum(dim=(1, 2, 3))

    places = []

    def gradient(pixels):
        places.append(pixels.clone())
        return torch.zeros(len(pixels)), torch.ones_like(pixels)

    at_worst = mixed_gradient(gradient, loss, toy_batch, draws=4, seed=0)
    first, second = (toy_batch.pixels + 0.1 * sign for sign in (1, -1))
    for now, before in ((first, first), (second, first)):
        asked.clear()
        value, direction = at_worst(now)
        assert torch.equal(asked[0], now)
        assert torch.allclose(value, loss(now))
        corners = torch.stack([toy_batch.pixels, before, now])
        mixes = torch.stack(asked[1:5])
        assert (mixes <= corners.amax(dim=0) + 1e-6).all()
        assert (mixes >= corners.amin(dim=0) - 1e-6).all()
        best = torch.stack([loss(mix) for mix in mixes]).argmax(dim=0)
        assert torch.equal(places[-1], mixes[best, torch.arange(len(now))])
        assert (direction == 1).all()


@pytest.mark.parametrize("options", [{"momentum": 1.0}, {"diversity": 1.0, "shrink": 0.8}])
def test_options_of_pgd_change_its_course_and_keep_its_best(tiny_clip, toy_batch, options):
    plain, other = (
        make_attack("pgd", steps=6, start="clean", **o)(tiny_clip, toy_batch, threat=EIGHT, seed=0)
        for o in ({}, options)
    )
    assert not torch.equal(plain.pixels, other.pixels)
    # The best iterate is judged on the image itself, the clean one among them.
    assert (other.image_drop > -1e-3).all()
    assert float(other.image_drop.mean()) > float(plain.image_drop.mean()) / 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"momentum": -0.5}, "Expected `momentum` >= 0, but got -0.5"),
        ({"diversity": 1.5}, r"Expected `diversity` in \[0, 1\], but got 1.5"),
        ({"shrink": 0.0}, r"Expected `shrink` in \(0, 1\], but got 0.0"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        make_attack("pgd", **options)
