import numpy as np
import pytest
import torch

from crossguard.attacks import L2Ball, LInfBall, auto_maximise, make_attack, maximise, step_size
from crossguard.attacks.apgd import checkpoints
from crossguard.threat import LInf, ThreatModel

EPS = 0.1


@pytest.fixture
def pixels():
    return torch.rand(5, 3, 4, 4, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def slope():
    return torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(1))


def wavy(x):
    """A loss with many local maxima, another one for every sample."""
    k = torch.arange(1, len(x) + 1).view(-1, 1, 1, 1) * 9.0
    return (torch.sin(k * x) + 0.3 * torch.cos(3.1 * k * x.flip(-1))).sum(dim=(1, 2, 3))


@pytest.mark.parametrize("search", [maximise, auto_maximise])
def test_a_linear_loss_is_solved_exactly(search, pixels, slope):
    options = {"step_size": EPS / 4} if search is maximise else {}
    found = search(lambda x: (slope * x).sum(dim=(1, 2, 3)), LInfBall(pixels, EPS), steps=8, **options)
    assert torch.allclose(found, (pixels + EPS * slope.sign()).clamp(0, 1))


@pytest.mark.parametrize("search", [maximise, auto_maximise])
def test_within_the_ball_never_worse_than_the_start_and_nothing_leaks(search, pixels):
    weight = torch.nn.Parameter(torch.tensor(1.0))
    before = pixels.clone()
    options = {"step_size": 0.05} if search is maximise else {}
    found = search(lambda x: weight * wavy(x), LInfBall(pixels, EPS), steps=7, **options)
    assert (found - pixels).abs().max() <= EPS + 1e-6
    assert found.min() >= 0
    assert found.max() <= 1
    assert (wavy(found) >= wavy(pixels)).all()
    assert weight.grad is None
    assert not found.requires_grad
    assert torch.equal(pixels, before)


@pytest.mark.parametrize("keep_best", [True, False])
def test_maximise_equals_plain_steps_of_one_sample_at_a_time(pixels, keep_best):
    found = maximise(wavy, LInfBall(pixels, EPS), steps=6, step_size=0.03, keep_best=keep_best)
    for i in range(len(pixels)):
        x, visited = pixels.clone(), [pixels.clone()]
        for _ in range(6):
            leaf = x.clone().requires_grad_(True)
            gradient = torch.autograd.grad(wavy(leaf)[i], leaf)[0]
            x = (x + 0.03 * gradient.sign()).clamp(pixels - EPS, pixels + EPS).clamp(0, 1)
            visited.append(x)
        expected = max(visited, key=lambda v: float(wavy(v)[i])) if keep_best else x
        assert torch.equal(found[i], expected[i])


def slow_apgd(loss, clean, *, eps, steps):
    """Algorithm 1 of Croce & Hein (2020) for one sample, line by line."""

    def gradient(x):
        x = x.clone().requires_grad_(True)
        return torch.autograd.grad(loss(x), x)[0]

    def project(x):
        return x.clamp(clean - eps, clean + eps).clamp(0, 1)

    places = [0, *checkpoints(steps)]
    eta = 2 * eps
    xs = [clean, project(clean + eta * gradient(clean).sign())]
    f = [float(loss(x)) for x in xs]
    best = max(range(2), key=lambda i: f[i])
    f_max, x_max = f[best], xs[best]
    # The history of steps is kept as the sequence of values between which an increase is counted.
    rises = [f[1] > f[0]]
    etas, f_maxes = {0: eta}, {0: f[0]}
    x, x_before, value = xs[1], xs[0], f[1]
    if 1 in places:
        raise AssertionError("The test's steps put no checkpoint at 1.")
    for k in range(1, steps):
        z = project(x + eta * gradient(x).sign())
        x, x_before = project(x + 0.75 * (z - x) + 0.25 * (x - x_before)), x
        new = float(loss(x))
        rises.append(new > value)
        value = new
        if value > f_max:
            f_max, x_max = value, x
        if k + 1 in places:
            j = places.index(k + 1)
            since = rises[places[j - 1] :]
            etas[j], f_maxes[j] = eta, f_max
            few = sum(since) < 0.75 * (places[j] - places[j - 1])
            same = (j == 1 or etas[j] == etas[j - 1]) and f_maxes[j] == f_maxes[j - 1]
            if few or same:
                eta /= 2
                x, value = x_max, f_max
    return x_max


def test_apgd_equals_its_algorithm_one_sample_at_a_time(pixels):
    found = auto_maximise(wavy, LInfBall(pixels, EPS), steps=20)
    for i in range(len(pixels)):
        # `wavy` numbers its samples: stand the sample at its place.
        def loss(x, i=i):
            stack = torch.zeros(i + 1, 3, 4, 4)
            return wavy(torch.cat([stack[:i], x], dim=0))[i]

        assert torch.allclose(found[i], slow_apgd(loss, pixels[i : i + 1], eps=EPS, steps=20)[0], atol=1e-6)


def test_checkpoints_are_the_papers():
    assert checkpoints(100) == (22, 41, 57, 70, 80, 87, 93, 99)
    assert all(b - a >= 1 for a, b in zip(checkpoints(10), checkpoints(10)[1:], strict=False))


def test_step_rules():
    ball = LInfBall(torch.zeros(1), 2 / 255)
    assert step_size("co-attack", ball, steps=10) == pytest.approx(0.25 / 255)
    assert step_size("sga", ball, steps=10) == pytest.approx(0.5 / 255)
    assert step_size(0.01, ball, steps=10) == 0.01
    assert step_size("sga", L2Ball(torch.zeros(1), 3.0), steps=10) == pytest.approx(0.75)


def test_random_starts_fill_the_ball(toy_batch):
    inside = (toy_batch.pixels > EPS) & (toy_batch.pixels < 1 - EPS)
    moved = (LInfBall(toy_batch.pixels, EPS).start(toy_batch.image_ids, seed=0) - toy_batch.pixels)[inside]
    assert np.quantile(moved.abs().numpy(), [0.5, 1]) == pytest.approx([EPS / 2, EPS], rel=0.1)
    assert abs(float(moved.mean())) < EPS / 10


@pytest.mark.parametrize("name", ["pgd", "apgd"])
@pytest.mark.parametrize("objective", ["cosine", "contrastive"])
def test_restarts_and_steps_never_weaken(tiny_clip, toy_batch, name, objective):
    def drop(**options):
        found = make_attack(name, objective=objective, **options)(
            tiny_clip, toy_batch, threat=ThreatModel(image=LInf(4 / 255)), seed=0
        )
        return float(found.image_drop.mean())

    few, more, restarted = drop(steps=1), drop(steps=10), drop(steps=10, restarts=3)
    assert 0 < few < more
    # Restarts keep the best before rounding to 8 bits, and by the attack's own objective.
    assert restarted >= more - 1e-3 or objective != "cosine"


@pytest.mark.parametrize("name", ["pgd", "apgd"])
def test_distance_drives_the_embedding_away_from_the_clean_one(tiny_clip, toy_batch, name):
    def moved(**options):
        found = make_attack(name, **options)(tiny_clip, toy_batch, threat=ThreatModel(image=LInf(4 / 255)), seed=0)
        with torch.no_grad():
            away = tiny_clip.encode_image(found.pixels) - tiny_clip.encode_image(toy_batch.pixels)
        return away.norm(dim=1)

    assert (moved(objective="distance") > moved(objective="cosine")).float().mean() > 0.5
    assert moved(objective="distance", steps=10).mean() > moved(objective="distance", steps=1).mean() > 0
