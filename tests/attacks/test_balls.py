"""The balls of budgets: projections, starts, steps and rounding against brute force, closed forms and other solvers."""

from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from quick import QUICK

import crossguard as cg
from crossguard.attacks import (
    ATTACKS,
    ElementsBall,
    JointBall,
    L2Ball,
    LInfBall,
    PatchBall,
    Storage,
    attack_samples,
    ball_of,
    make_attack,
    maximise,
)
from crossguard.attacks.parts import as_elements
from crossguard.attacks.placement import SparseSearch, Windows, sparse_ascent
from crossguard.data import MultiModalSamples
from crossguard.threat import L2, Elements, LInf, Patch, ThreatModel, WordEdits
from shared import make_clip

SEEDS = st.integers(0, 10_000)
BUDGETS = [LInf(0.1), L2(0.8), Elements(3), Patch(2, 3)]


def drawn(seed, *shape, scale=1.0):
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def pictures(seed, count=3, sides=(4, 6)):
    return torch.rand(count, 2, *sides, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("budget", BUDGETS)
@given(seed=SEEDS, scale=st.sampled_from([0.01, 0.3, 2.0]))
def test_starts_and_projections_lie_within_and_stay(budget, seed, scale):
    clean = pictures(seed)
    ball, ids = ball_of(budget, clean), torch.tensor([5, 1, 9])
    for values in (ball.start(ids, seed=seed), ball.project(clean + drawn(seed + 1, *clean.shape, scale=scale))):
        assert ball.holds(values)
        assert 0 <= values.min() <= values.max() <= 1
        assert torch.allclose(ball.project(values), values, atol=1e-6)
    alone = ball_of(budget, clean[1:2]).start(ids[1:2], seed=seed)
    assert torch.equal(ball.start(ids, seed=seed)[1:2], alone)
    assert torch.equal(ball.rows(torch.tensor([1])).start(ids[1:2], seed=seed), alone)
    assert not torch.equal(ball.start(ids, seed=seed + 1), ball.start(ids, seed=seed))


@pytest.mark.parametrize("budget", BUDGETS)
@given(seed=SEEDS)
def test_eight_bits_keep_the_budget_and_what_was_not_moved(budget, seed):
    clean = (pictures(seed) * 255).round() / 255
    ball = ball_of(budget, clean)
    wanted = ball.project(clean + drawn(seed, *clean.shape, scale=0.3))
    stored = ball.to_pixels(wanted)
    grey = stored.double() * 255
    assert (grey - grey.round()).abs().max() < 1e-4
    assert torch.equal(stored[wanted == clean], clean[wanted == clean])
    assert torch.equal(ball.to_pixels(stored), stored)
    assert ball.holds(stored)
    assert (stored - wanted).abs().max() <= (1.0 if isinstance(budget, L2) else 0.5) / 255 + 1e-6
    if isinstance(budget, L2):
        assert ((stored - clean).abs() <= (wanted - clean).abs() + 1e-6).all()


def test_pixels_off_the_grid_do_not_move_away_under_l2():
    clean = torch.full((1, 3, 1, 2), 10.5 / 255)
    values = clean + torch.tensor([0.3, 1.2]) / 255
    assert torch.allclose(L2Ball(clean, 1.0).to_pixels(values) * 255, torch.tensor([10.5, 11.0]).expand(1, 3, 1, 2))


def slow_l2(values, clean, eps):
    """The nearest point by bisection for the one number that it depends on, in float64."""
    change = values.double() - clean.double()

    def at(share):
        return (clean.double() + share * change).clamp(0, 1)

    low, high = 0.0, 1.0
    if (at(1.0) - clean).norm() <= eps:
        return at(1.0)
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if (at(middle) - clean).norm() <= eps else (low, middle)
    return at(low)


@given(seed=SEEDS, eps=st.sampled_from([0.1, 0.8, 1.5, 3.0]), scale=st.sampled_from([0.1, 0.5, 3.0]))
def test_the_nearest_point_of_an_l2_ball_within_the_box(seed, eps, scale):
    clean = pictures(seed)
    values = clean + drawn(seed, *clean.shape, scale=scale)
    found = L2Ball(clean, eps).project(values)
    for i in range(len(clean)):
        expected = slow_l2(values[i], clean[i], eps)
        assert torch.allclose(found[i].double(), expected, atol=2e-4)
        # No point of the ball is nearer: the way on to any of them does not lead towards the values.
        other = L2Ball(clean[i : i + 1], eps).start(torch.tensor([seed]), seed=seed)[0]
        assert ((values[i] - found[i]) * (other - found[i])).sum() <= 1e-3 * scale


@given(seed=SEEDS, rise=st.floats(-3, 3))
def test_the_way_to_a_plane_is_the_shortest_in_l2(seed, rise):
    point, normal = torch.rand(1, 6, generator=torch.Generator().manual_seed(seed)), drawn(seed, 1, 6)
    step = L2Ball(point, 1.0).to_plane(point, normal, torch.tensor([rise]))
    assert -1e-6 < (point + step).min() <= (point + step).max() < 1 + 1e-6
    x, w = point[0].double().numpy(), np.sign(rise) * normal[0].double().numpy()

    def at(size):
        return np.clip(size * w, -x, 1 - x)

    if at(1e9) @ w <= abs(rise):
        assert torch.allclose(point + step, torch.from_numpy(x + at(1e9)).float()[None], atol=1e-4)
        return
    low, high = 0.0, 1e9
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if at(middle) @ w < abs(rise) else (low, middle)
    assert float((step * normal).sum()) == pytest.approx(rise, abs=1e-4)
    assert float(step.norm()) == pytest.approx(np.linalg.norm(at(high)), rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("budget", [Elements(2), Patch(2, 3)])
@given(seed=SEEDS)
def test_the_nearest_values_in_a_few_places_are_found_among_all_places(budget, seed):
    clean = pictures(seed, count=2, sides=(3, 4))
    values = (clean + drawn(seed, *clean.shape)).clamp(0, 1)
    found = ball_of(budget, clean).project(values)
    if isinstance(budget, Elements):
        places = [set(chosen) for chosen in combinations([(i, j) for i in range(3) for j in range(4)], 2)]
    else:
        places = [{(i + a, j + b) for a in range(2) for b in range(3)} for i in range(2) for j in range(2)]
    for i in range(2):
        left = [
            sum(float((values[i, :, a, b] - clean[i, :, a, b]).square().sum()) for a in range(3) for b in range(4))
            - sum(float((values[i, :, a, b] - clean[i, :, a, b]).square().sum()) for a, b in chosen)
            for chosen in places
        ]
        assert float((values[i] - found[i]).square().sum()) == pytest.approx(min(left), abs=1e-5)


@given(seed=SEEDS, height=st.integers(1, 4), width=st.integers(1, 6))
def test_patches_are_one_rectangle_and_any_other_is_refused(seed, height, width):
    clean = pictures(seed)
    ball = PatchBall(clean, height, width)
    moved = (ball.project(clean + drawn(seed, *clean.shape, scale=3)) != clean).any(dim=1)
    for one in moved:
        down, across = one.any(dim=1).nonzero().flatten(), one.any(dim=0).nonzero().flatten()
        assert int(down.max() - down.min()) < height
        assert int(across.max() - across.min()) < width
    change = torch.zeros_like(clean)
    change[:, 0, 0, 0] = change[:, 1, -1, -1] = 0.1
    assert ball.holds(clean + change) == ((height, width) == (4, 6))
    assert ball.holds(clean)


def test_elements_are_cells_of_a_grid():
    clean = torch.zeros(1, 3, 4, 6)
    ball = ElementsBall(clean, 2, grid=(2, 3))
    values = clean.clone()
    values[0, 1, 0, 0], values[0, 2, 1, 1], values[0, 0, 3, 5], values[0, 0, 2, 0] = 0.9, 0.5, 0.7, 0.1
    assert ball.length(values).tolist() == [3]
    kept = ball.project(values)
    assert ball.length(kept).tolist() == [2]
    assert float(kept.sum()) == pytest.approx(0.9 + 0.5 + 0.7)


@pytest.mark.parametrize("eps", [0.2, 1.0])
def test_a_linear_loss_is_solved_exactly_in_l2(eps):
    clean, slope = 0.3 + 0.4 * pictures(0), drawn(1, 3, 2, 4, 6)
    found = maximise(lambda x: (slope * x).sum(dim=(1, 2, 3)), L2Ball(clean, eps), steps=1, step_size=eps)
    expected = clean + eps * slope / slope.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    assert torch.allclose(found, expected.clamp(0, 1), atol=1e-6)


def test_several_balls_are_one():
    clean = pictures(0)
    parts = [LInfBall(clean.flatten(1), 0.1), L2Ball(clean, 0.5), PatchBall(clean, 1, 2)]
    joint = JointBall.of(parts)
    values = joint.project(joint.clean + drawn(2, *joint.clean.shape))
    assert joint.holds(values)
    sizes = [part.clean[0].numel() for part in parts]
    for part, found in zip(parts, values.split(sizes, dim=1), strict=True):
        assert part.holds(found.view_as(part.clean))
        assert torch.equal(found, part.project(found.view_as(part.clean)).flatten(1)) or isinstance(part, L2Ball)
    assert joint.holds(joint.start(torch.arange(3), seed=1))
    assert joint.length(values - joint.clean).tolist() == pytest.approx([1.0] * 3, abs=1e-5)
    norms = JointBall.of(parts[:2])
    slope = drawn(3, *norms.clean.shape)
    step = norms.to_plane(norms.clean, slope, torch.full((3,), 0.02))
    assert (step * slope).sum(dim=1).tolist() == pytest.approx([0.02] * 3, abs=1e-4)
    with pytest.raises(ValueError, match="Expected LInf or L2 budgets, but got a PatchBall"):
        joint.scaled(0.5)


@given(seed=SEEDS)
def test_the_sparse_attack_finds_the_best_rectangle_of_a_linear_loss(seed):
    clean = pictures(seed, sides=(5, 6))
    slope = drawn(seed + 1, *clean.shape)
    part, weight = as_elements(clean), as_elements(slope)
    for placement in ("greedy", "gradient"):
        found = sparse_ascent(
            lambda parts, rows: (parts["x"] * weight[rows]).sum(dim=(1, 2)),
            {"x": part},
            sites={"x": Windows(Patch(2, 3), (5, 6))},
            search=SparseSearch(placement, steps=4),
            ids=torch.arange(3),
            seed=seed,
        )["x"]
        gain = torch.maximum(slope * (1 - clean), -slope * clean).sum(dim=1)
        best = [max(float(g[i : i + 2, j : j + 3].sum()) for i in range(4) for j in range(4)) for g in gain]
        assert ((found - part) * weight).sum(dim=(1, 2)).tolist() == pytest.approx(best, rel=1e-4)


IMAGE_BUDGETS = [L2(0.7), Patch(5, 4), Elements(1)]


@pytest.mark.parametrize(
    ("name", "budget"),
    [(n, b) for n in QUICK for b in IMAGE_BUDGETS if isinstance(b, ATTACKS[n].takes)],
)
def test_attacks_on_images_keep_every_budget_and_lower_the_cosine(tiny_clip, toy_batch, name, budget):
    threat = ThreatModel(image=budget, text=WordEdits(1))
    found = make_attack(name, **QUICK[name])(tiny_clip, toy_batch, threat=threat, seed=0)
    change = found.pixels - toy_batch.pixels
    grid = tiny_clip.patch_grid if isinstance(budget, Elements) else None
    ball = ball_of(budget, toy_batch.pixels, grid=grid)
    assert ball.holds(found.pixels)
    assert torch.equal((found.pixels * 255).round() / 255, found.pixels)
    if isinstance(budget, L2):
        assert found.l2.tolist() == pytest.approx(change.flatten(1).norm(dim=1).tolist())
    else:
        assert found.l2 is None
    if name in ("pgd", "apgd", "sga", "co-attack", "sparse"):
        assert (change != 0).flatten(1).any(dim=1).all()
        assert found.image_drop.mean() > 0.01


@pytest.mark.parametrize("name", ["pgd", "apgd"])
@pytest.mark.parametrize("make", [lambda x: L2(x), lambda x: Patch(int(4 * x), int(4 * x))])
def test_more_of_a_budget_is_no_weaker(tiny_clip, toy_batch, name, make):
    attack = make_attack(name, steps=10)
    drops = [
        float(attack(tiny_clip, toy_batch, threat=ThreatModel(image=make(size)), seed=0).image_drop.mean())
        for size in (0.5, 1.0, 2.0)
    ]
    assert 0 < drops[0] < drops[1] < drops[2]


class Series(torch.nn.Module):
    """A classifier of a series and of pictures, each by a fixed random weight."""

    name, modalities, classes = "series", ("turn", "rgb"), ("a", "b")

    def __init__(self):
        super().__init__()
        self.turn, self.rgb = drawn(0, 20, 2), drawn(1, 3 * 6 * 5, 2, scale=0.3)

    def forward(self, inputs):
        return (inputs["turn"].flatten(1) @ self.turn).tanh() + (inputs["rgb"] - 0.5).flatten(1) @ self.rgb


def series(count=6):
    generator = np.random.default_rng(0)
    return MultiModalSamples(
        name="series",
        split="test",
        modalities={
            "turn": generator.normal(size=(count, 10, 2)).astype(np.float32),
            "rgb": (generator.integers(0, 256, (count, 3, 6, 5)) / 255).astype(np.float32),
        },
        labels=generator.integers(0, 2, count),
        classes=("a", "b"),
        groups=np.arange(count),
    )


@pytest.mark.parametrize("attack", ["pgd", "apgd", "adaptive", "apgd-ce", "apgd-t", "fab-t", "sparse"])
@pytest.mark.parametrize("threat", [{"turn": L2(0.6), "rgb": LInf(0.02)}, {"turn": Patch(1, 3), "rgb": Patch(2, 3)}])
def test_samples_take_every_budget_in_every_modality(attack, threat):
    if not all(isinstance(budget, ATTACKS[attack].takes) for budget in threat.values()):
        pytest.skip("a budget that this attack refuses, which is tested elsewhere")
    samples = series()
    found = attack_samples(Series(), samples, threat=ThreatModel(**threat), attack=attack)
    for m, budget in threat.items():
        change = found.samples.modalities[m].astype(np.float64) - samples.modalities[m]
        low, high = samples.modalities[m].min(), samples.modalities[m].max()
        if isinstance(budget, L2):
            share = np.linalg.norm((change / (high - low)).reshape(6, -1), axis=1)
            assert found.l2[m] == pytest.approx(share, rel=1e-4)
            assert share.max() <= budget.eps + 1e-5
        elif isinstance(budget, Patch):
            moved = (change != 0).any(axis=2)[:, None] if m == "turn" else (change != 0).any(axis=1)
            for one in moved:
                rows, columns = np.flatnonzero(one.any(axis=1)), np.flatnonzero(one.any(axis=0))
                assert len(rows) == 0 or np.ptp(rows) < budget.height
                assert len(columns) == 0 or np.ptp(columns) < budget.width
    grey = found.samples.modalities["rgb"].astype(np.float64) * 255
    assert np.abs(grey - grey.round()).max() < 1e-3
    assert found.robust_accuracy < found.clean_accuracy
    assert ("l2" in found.rows()[0]) == ("l2" in str(threat).lower())


@given(seed=SEEDS, step=st.sampled_from([None, 0.001, 1.0]))
def test_stored_values_move_towards_the_source(seed, step):
    generator = np.random.default_rng(seed)
    storage = Storage(0.0, 7.0, step)
    source = generator.uniform(0, 7, (5, 4))
    if step is not None:
        source = (source / step).round() * step
    shares = generator.uniform(0, 1, (5, 4))
    found = storage.stored(shares, source, moved=np.ones((5, 4), bool), inwards=True)
    assert (np.abs(found - source) <= np.abs(shares * 7 - source) + 2e-3 * (step or 1e-9)).all()
    assert (np.abs(found - shares * 7) <= (step or 1e-9) * 1.01).all()


@pytest.mark.parametrize("start", ["uniform", "warm"])
@pytest.mark.parametrize("budget", [L2(0.5), Patch(6, 6)])
def test_training_hardens_within_any_ball(toy_pairs, budget, start):
    options = {"threat": ThreatModel(image=budget), "batch_size": 12, "seed": 0, "learning_rate": 1e-3}
    model = make_clip()
    hardened = cg.train(model, toy_pairs, defence="tecoa", steps=4, start=start, **options)
    other = cg.train(
        model, toy_pairs, defence="tecoa", steps=4, start=start, **options | {"threat": ThreatModel(image=LInf(0.03))}
    )
    weights, others = hardened.state_dict(), other.state_dict()
    assert any(not torch.equal(weights[name], others[name]) for name in weights)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: L2(-1), "Expected `eps` of L2 to be a finite number >= 0, but got -1"),
        (lambda: L2(float("nan")), "Expected `eps` of L2"),
        (lambda: Patch(2.5, 1), "Expected `height` to be a whole number >= 0, but got 2.5"),
        (lambda: Patch(2, -1), "Expected `width`"),
        (lambda: ball_of(Patch(7, 2), pictures(0)), "Expected a patch of at most 4 x 6, but got a patch of 7 x 2"),
        (lambda: ball_of(WordEdits(1), pictures(0)), "Expected LInf, L2, Patch or Elements"),
        (lambda: ThreatModel(image=0.1), "to be LInf, L2, Patch, Elements or WordEdits, but got 0.1"),
    ],
)
def test_wrong_budgets_are_refused(unchecked, make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("name", "options", "budget", "message"),
    [
        ("square", {}, L2(1.0), "Expected LInf as the budget of 'image' for attack 'square'"),
        ("fab-t", {}, Patch(2, 2), "Expected LInf or L2 as the budget"),
        ("sparse", {}, L2(1.0), "Expected Elements or Patch as the budget"),
        ("pgd", {}, Patch(17, 1), "Expected a patch of at most 16 x 16"),
        ("sparse", {}, Patch(17, 1), "Expected a patch of at most 16 x 16"),
        ("co-attack", {"compat": True}, L2(1.0), "Expected an LInf budget of the image with `compat`"),
        ("pgd", {}, Elements(1, "deletion"), "cannot insert or delete any"),
    ],
)
def test_attacks_refuse_what_they_cannot_keep(unchecked, tiny_clip, toy_batch, name, options, budget, message):
    with pytest.raises(ValueError, match=message):
        make_attack(name, **options)(tiny_clip, toy_batch, threat=ThreatModel(image=budget), seed=0)


def test_attacks_on_pairs_are_refused_for_samples():
    with pytest.raises(ValueError, match="Expected an attack on samples, such as 'adaptive', but 'sga' needs images"):
        attack_samples(Series(), series(), threat=ThreatModel(rgb=LInf(0.1)), attack="sga")


@pytest.mark.parametrize("budget", [L2(1.5), Patch(3, 4)])
def test_threats_come_back_from_plain_values(budget):
    threat = ThreatModel(image=budget)
    assert ThreatModel.from_dict(threat.to_dict()) == threat
    assert str(budget) in str(threat)
