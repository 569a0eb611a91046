"""Noise beside sub-sampling: thresholds are those of the worst case, drawn noise is normal, claims hold under attack."""

from itertools import product

import numpy as np
import pytest
import torch
from certify_toys import KEEP, SignNet
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest, norm
from torch import nn

import crossguard as cg
from crossguard.certify import (
    Counts,
    certify,
    certify_counts,
    certify_early,
    certify_segmentation,
    overlap,
    preflight,
    worst_case,
)
from crossguard.certify.noise import NoisyMargins, margins_with_noise
from crossguard.certify.subsample import gaussian
from crossguard.certify.thresholds import Margins
from crossguard.data import MultiModalSamples
from crossguard.threat import Elements


@settings(deadline=None, max_examples=80)
@given(
    st.integers(2, 40),
    st.data(),
    st.floats(0, 3),
    st.sampled_from(["substitution", "insertion", "deletion", "edit"]),
    st.booleans(),
)
def test_margins_are_where_the_worst_case_turns(n, data, shift, kind, joint):
    k, r = data.draw(st.integers(0, n)), data.draw(st.integers(0, n))
    sigma = data.draw(st.floats(0.1, 4))
    margins = margins_with_noise("joint" if joint else "independent", (n,), (k,), kind, noise=(sigma,))
    margin = margins.at([(r, shift * sigma)])[0]
    found = overlap(n=(n,), k=(k,), edits=(Elements(r, kind),))
    for p in (0.5, 0.8, 0.99, 1.0, (1 + margin) / 2 + 1e-6):
        if p <= 1 and abs(2 * p - 1 - margin) > 1e-7:
            low, high = worst_case(p, 1 - p, found, shift=shift)
            assert (2 * p - 1 > margin) == (low > high) or abs(low - high) < 1e-7


def test_without_noise_or_without_sub_sampling_it_is_what_is_known():
    plain, noisy = Margins((20,), (4,)), NoisyMargins(Margins((20,), (4,)), (0.5,))
    radii = list(range(8))
    assert (noisy.at([(r, 0.0) for r in radii]) == plain.at([(r,) for r in radii])).all()
    cohen = NoisyMargins(None, (0.5,))
    for p in (0.6, 0.9, 0.999):  # Cohen et al.: eps = sigma Phi^-1(p)
        assert cohen.reach(2 * p - 1)[0] == pytest.approx(0.5 * norm.ppf(p), abs=1e-8)
    two = NoisyMargins(None, (0.5, 2.0))
    assert two.at([(0.3, 1.6)])[0] == pytest.approx(2 * norm.cdf(1.0) - 1, abs=1e-9)
    assert two.frontier(0.8)[0].tolist() == pytest.approx([norm.ppf(0.9)], abs=1e-8)


@given(st.floats(-0.5, 0.99), st.lists(st.tuples(st.integers(1, 12), st.integers(0, 12)), min_size=1, max_size=2))
@settings(deadline=None, max_examples=30)
def test_frontiers_are_maximal(gap, sizes):
    n, k = tuple(a for a, _ in sizes), tuple(min(a, b) for a, b in sizes)
    margins = NoisyMargins(Margins(n, k), (0.5,))
    table = margins.frontier(gap)
    assert (gap < 0) <= (len(table) == 0)
    inside = {tuple(r) for r in product(*[range(a + 1) for a in n]) if gap >= 0 and margins.at([(*r, 0.0)])[0] <= gap}
    for row in table.tolist():
        assert margins.at([row])[0] <= gap
        assert margins.at([(*row[:-1], row[-1] + 1e-6)])[0] > gap
    covered = {r for r in inside if any((row[:-1] >= r).all() for row in table)}
    assert covered == inside


def test_the_noise_is_normal_and_depends_on_no_batch():
    names, draw = torch.tensor([5, 5, 9]), torch.tensor([0, 1, 1])
    drawn = gaussian(3, names, 0, draw, (4, 5000))
    assert drawn.dtype == torch.float32
    assert kstest(drawn.double().flatten().numpy(), norm.cdf).pvalue > 1e-3
    assert np.abs(np.corrcoef(drawn.reshape(12, -1)) - np.eye(12)).max() < 0.06
    assert torch.equal(gaussian(3, names[1:2], 0, draw[1:2], (4, 5000))[0], drawn[1])
    for other in (gaussian(4, names, 0, draw, (4, 5000)), gaussian(3, names, 1, draw, (4, 5000))):
        assert not torch.equal(other, drawn)


class Together(nn.Module):
    """The interaction alone decides: the sign of a noisy picture's mean times the sign of most kept words."""

    name, modalities, classes = "together", ("text", "image"), ("unlike", "alike")

    def forward(self, inputs, kept=None):
        words = (inputs["text"] * kept["text"]).sum(dim=1)
        score = words.sign() * inputs["image"].mean(dim=(1, 2, 3)).sign()
        return torch.stack([-score, score], dim=1)


@pytest.fixture
def pairs():
    rng = np.random.default_rng(0)
    text, image = rng.choice([-1.0, 1.0], 12), rng.choice([-1.0, 1.0], 12)
    values = {
        "text": np.repeat(text[:, None], 10, axis=1).astype(np.float32),
        "image": (image[:, None, None, None] * np.full((1, 3, 4, 4), 0.5)).astype(np.float32),
    }
    labels = (text * image > 0).astype(int)
    return MultiModalSamples("pairs", "test", values, labels, Together.classes, np.arange(12))


def test_where_only_both_together_decide_one_alone_certifies_nothing(pairs):
    """The three methods: sub-sampling of both, noise on the picture beside sub-sampled words, ablation of all."""
    model = Together()
    both = certify(model, pairs, keep={"text": 3}, noise={"image": 1.0}, draws=1000, seed=0)
    assert both.modalities == ("text", "image")
    assert both.accuracy({"text": 1, "image": 0.5}) == 1.0
    row = both.frontier(0)
    assert row[0, 0] == 0
    assert (np.diff(row[:, 1]) < 0).all()
    p = (1 + both.gaps[0]) / 2  # the picture's mean over 48 values is surely of its sign
    assert row[0, 1] == pytest.approx(norm.ppf(p), abs=1e-7)
    alone = [both.frontier(i)[0, 1] for i in range(len(pairs))]
    assert both.radii()["image"] == pytest.approx(np.mean(alone), abs=1e-9)
    assert both.area() == pytest.approx(np.mean([both.frontier(i)[:, 1].sum() for i in range(len(pairs))]))
    grid = both.grid()
    assert grid.accuracy.shape == (len(grid.radii["text"]), 9)
    assert grid.accuracy[0, 0] == 1.0
    assert both.rows()[0]["noise"] == {"image": 1.0}
    assert both.rows()[0]["kind"] == {"text": "substitution", "image": "l2"}
    # The same L2 budget spread over all 16 pixels reaches every sub-sample of pixels, drawn apart or together.
    for scheme in ("independent", "joint"):
        sampled = certify(model, pairs, keep={"text": 3, "image": 4}, draws=1000, seed=0, scheme=scheme)
        assert sampled.accuracy() == 1.0
        assert sampled.accuracy({"text": 1, "image": 16}) == 0.0
    # Without the picture nothing is known: it always answers "unlike".
    assert (
        certify(model, pairs, keep={"text": 3, "image": 0}, draws=1000, seed=0).accuracy() == (pairs.labels == 0).mean()
    )


def test_early_stopping_beside_noise_claims_what_all_draws_would(pairs):
    options = {"keep": {"text": 3}, "noise": {"image": 1.0}, "draws": 1000, "alpha": 0.01, "seed": 0}
    full = certify(Together(), pairs, **options)
    for radii in ({"text": 1, "image": 0.5}, {"image": 2.0}):
        early = certify_early(Together(), pairs, radii=radii, **options)
        assert (early.certified <= full.certified(radii)).all()
        assert early.certified.all() == full.certified(radii).all()
        assert early.draws.max() < 600
    with pytest.raises(ValueError, match="within reach of some number of draws"):
        certify_early(Together(), pairs, radii={"text": 2}, **options)
    with pytest.raises(ValueError, match="did you mean 'image'"):
        certify_early(Together(), pairs, radii={"imag": 0.5}, **options)


def test_counts_resume_bit_for_bit_and_are_told_from_others(pairs, tmp_path):
    options = {"keep": {"text": 3}, "noise": {"image": 1.0}, "alpha": 0.01}
    once = certify(Together(), pairs, draws=300, folder=tmp_path / "a", seed=4, batch_size=7, **options)
    certify(Together(), pairs, draws=100, folder=tmp_path / "b", seed=4, **options)
    more = certify(Together(), pairs, draws=300, folder=tmp_path / "b", seed=4, **options)
    assert (once.counts.votes == more.counts.votes).all()
    assert Counts.load(tmp_path / "a" / "votes.npz").noise == {"image": 1.0}
    with pytest.raises(ValueError, match="the same `noise`"):
        certify(Together(), pairs, draws=300, folder=tmp_path / "a", seed=4, **{**options, "noise": {"image": 0.5}})


def test_noise_alone_is_randomized_smoothing(pairs):
    class Mean(nn.Module):
        name, modalities, classes = "mean", ("image",), Together.classes

        def forward(self, inputs, kept=None):
            score = inputs["image"].mean(dim=(1, 2, 3)) * 6
            return torch.stack([-score, score], dim=1)

    found = certify(Mean(), pairs, keep={}, noise={"image": 2.0}, draws=4000, alpha=0.01, seed=1)
    true = norm.cdf(0.5 * np.sqrt(48) / 2.0)  # a linear model: smoothing certifies at most its distance to the border
    assert np.abs(found.votes / 4000 - true).max() < 0.02
    assert (found.frontier(0)[:, -1] <= 0.5 * np.sqrt(48)).all()
    assert found.frontier(0)[0, -1] > 0.9 * 0.5 * np.sqrt(48)
    told = certify_counts(found.counts.votes[0], n=(), k=(), radii=[(3.0,), (3.6,)], alpha=0.01, noise=(2.0,))
    assert told.certified.tolist() == [True, False]
    assert preflight(n=(), k=(), draws=4000, alpha=0.01, noise=(2.0,)).reach[0] > 3.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"noise": {"image": 0.0}}, "finite sigma > 0"),
        ({"noise": {"image": -1.0}}, "finite sigma > 0"),
        ({"noise": {"image": float("nan")}}, "finite sigma > 0"),
        ({"noise": {"image": "much"}}, "finite sigma > 0"),
        ({"noise": {"picture": 1.0}}, "image"),
        ({"noise": {"image": 1.0}, "keep": {"text": 3, "image": 2}}, "got it in both"),
        ({"noise": {"image": 1.0}, "design": "fixed"}, "published design"),
        ({"noise": {"image": 1.0}, "bound": "gap"}, "not proven"),
        ({"noise": {"image": 1.0}, "kind": {"image": "deletion"}}, "modality in `kind`"),
        ({"noise": {}}, "every modality"),
    ],
)
def test_what_cannot_hold_is_refused_before_anything_is_drawn(pairs, changes, message, unchecked):
    class Never(Together):
        def forward(self, inputs, kept=None):
            raise AssertionError("asked")

    with pytest.raises(ValueError, match=message):
        certify(Never(), pairs, **{"keep": {"text": 3}, "draws": 300, **changes})


def test_radii_beside_noise_are_checked(pairs, unchecked):
    found = certify(Together(), pairs, keep={"text": 3}, noise={"image": 1.0}, draws=300, seed=0)
    for radii, message in (({"image": -0.1}, ">= 0"), ({"text": 0.5}, "whole"), ({"text": 11}, "r <= n")):
        with pytest.raises(ValueError, match=message):
            found.accuracy(radii)


def test_packed_words_beside_noise_and_predictions(sign_net, sensors):
    found = certify(SignNet(), sensors, keep={"left": KEEP["left"]}, noise={"right": 0.5}, draws=500, seed=3)
    said = cg.predict(SignNet(), sensors, keep={"left": KEEP["left"]}, noise={"right": 0.5}, draws=500, seed=3)
    assert (said[said >= 0] == found.labels[said >= 0]).all()
    assert (said >= 0).any()


def test_pixels_of_a_scene_under_noise():
    class Bright(nn.Module):
        name, modalities, classes = "bright", ("rgb", "depth"), ("no", "yes")

        def forward(self, inputs, kept=None):
            seen = inputs["rgb"][:, :1].mean(dim=(2, 3), keepdim=True)
            score = inputs["depth"] + 0 * seen
            return torch.cat([-score, score], dim=1)

    rng = np.random.default_rng(0)
    depth = np.where(np.arange(8) < 4, -1.0, 1.0).astype(np.float32) * np.ones((2, 1, 6, 8), np.float32)
    values = {"rgb": rng.normal(size=(2, 3, 6, 8)).astype(np.float32), "depth": depth}
    scenes = MultiModalSamples("toy", "test", values, (depth[:, 0] > 0).astype(int), Bright.classes, np.arange(2))
    found = certify_segmentation(Bright(), scenes, keep={"rgb": 4}, noise={"depth": 0.25}, draws=400, seed=0)
    # Votes of a pixel under noise of its own value alone: right with Phi(4); all of them stand a move of half a sigma.
    assert found.bounds([{"depth": 0.12}])[0].accuracy == 1.0
    assert found.bounds([{"depth": 1.01}])[0].accuracy == 0.0  # no certificate beyond the distance to the border
    assert found.radii()["depth"] < 1.0
    assert found.summary()["noise"] == {"depth": 0.25}
