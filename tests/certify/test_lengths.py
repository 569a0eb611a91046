"""Samples of different lengths: each is certified as it would be alone, padding is never seen."""

import itertools

import numpy as np
import pytest
import torch
from certify_toys import SignNet
from torch import nn

from crossguard.certify import Counts, certify, certify_counts, certify_lengths, predict
from crossguard.certify.design import ANY_NUMBER
from crossguard.certify.subsample import rate_masks
from crossguard.certify.thresholds import Margins, RateMargins
from crossguard.data import MultiModalSamples
from crossguard.report import certificate_view


class Guarded(SignNet):
    """Fails on padding that is kept."""

    def forward(self, inputs, kept=None):
        for m in self.modalities:
            assert (inputs[m] != 99).all()
        return super().forward(inputs, kept)


@pytest.fixture
def varied():
    rng = np.random.default_rng(0)
    lengths = {"left": rng.integers(3, 9, 14), "right": np.full(14, 5)}
    values = {m: rng.normal(size=(14, size, 1)).astype(np.float32) + 1.5 for m, size in (("left", 8), ("right", 5))}
    for i, n in enumerate(lengths["left"]):
        values["left"][i, n:] = 99.0
    return MultiModalSamples(
        "toy", "test", values, np.ones(14, dtype=int), ("no", "yes", "never"), np.arange(14)
    ), lengths


def test_every_sample_is_certified_for_its_own_n_and_k(varied):
    samples, lengths = varied
    found = certify_lengths(Guarded(), samples, lengths=lengths, keep={"left": 4, "right": 2}, draws=300, seed=0)
    assert len(found.parts) == len(set(lengths["left"].tolist()))
    for i, row in enumerate(found.rows()):
        n = int(lengths["left"][i])
        assert row["sample"] == i
        assert row["n"] == {"left": n, "right": 5}
        assert row["k"] == {"left": min(4, n), "right": 2}
        margins = Margins((n, 5), (min(4, n), 2))
        for r in range(n + 1):
            assert found.certified({"left": r})[i] == (found.gaps[i] >= margins.at([(r, 0)])[0])
        assert found.certified({"left": n + 1})[i] == np.False_
        assert found.frontier(i).tolist() == row["frontier"]
    assert found.accuracy() == pytest.approx((found.certified({}) & (found.labels == 1)).mean())
    whole = certify(
        SignNet(), samples.select(np.flatnonzero(lengths["left"] == 8)), keep={"left": 4, "right": 2}, draws=300, seed=0
    )
    assert (whole.labels == found.labels[lengths["left"] == 8]).all()


def test_a_rate_keeps_a_share_of_what_there_is_and_counts_resume(varied, tmp_path):
    samples, lengths = varied
    options = {"lengths": lengths, "keep": {"left": 0.5, "right": 2}, "draws": 300, "folder": tmp_path}
    found = certify_lengths(Guarded(), samples, **options)
    for row in found.rows():
        assert row["k"]["left"] == max(1, round(0.5 * row["n"]["left"]))
    again = certify_lengths(Guarded(), samples, **options)
    assert (again.gaps == found.gaps).all()
    assert {path.name for path in tmp_path.iterdir()} == {f"n-{n}-5" for n in set(lengths["left"].tolist())}


@pytest.mark.parametrize("kind", ["substitution", "insertion", "deletion"])
def test_margins_at_a_rate_are_those_of_all_kept_sets(kind):
    p, n, r = 0.3, 6, 2
    after = {"substitution": n, "insertion": n + r, "deletion": n - r}[kind]
    common = n if kind == "insertion" else n - r

    def untouched(size):
        """Chance that a random part of so many elements has common ones only, by counting all parts."""
        parts = itertools.product((False, True), repeat=size)
        chances = [p ** sum(part) * (1 - p) ** (size - sum(part)) for part in parts if not any(part[common:])]
        return sum(chances)

    a, b = untouched(n), untouched(after)
    margin = RateMargins((n,), (p,), kind).at([(r,)])[0]
    assert margin == pytest.approx(1 + a / b - 2 * a) or (margin == 2 and 1 + a / b - 2 * a >= 1)


@pytest.mark.parametrize("p", [0.05, 0.2, 0.4])
def test_substitutions_are_the_worst_mix_at_a_rate(p):
    for r in range(1, 6):
        worst = RateMargins((9,), (p,), "edit").at([(r,)])[0]
        for s, d in itertools.product(range(r + 1), repeat=2):
            if s + d <= r:
                a, b = (1 - p) ** (r - s), (1 - p) ** (r - d)  # s inserted, d deleted, the others substituted
                assert 1 + a / b - 2 * a <= worst + 1e-12 or worst == 2


def test_elements_kept_at_a_rate():
    mask = rate_masks(3, torch.arange(4000), modality=0, draws=torch.arange(4000), n=9, rate=0.3)
    assert mask.float().mean(dim=0).numpy() == pytest.approx(np.full(9, 0.3), abs=0.03)
    assert np.abs(np.corrcoef(mask.numpy().T.astype(float)) - np.eye(9)).max() < 0.06
    again = rate_masks(3, torch.arange(7, 9), modality=0, draws=torch.arange(7, 9), n=9, rate=0.3)
    assert torch.equal(again, mask[7:9])


class Bag(nn.Module):
    """Whether most of the kept words are above 0; takes them packed, and is not told where they stood."""

    name, modalities, classes = "bag", ("text",), ("no", "yes")
    packs = position_free = ("text",)

    def __call__(self, inputs, kept=None):
        raise AssertionError("asked with words that are not dropped")

    def classify_kept(self, inputs, kept):
        packed = inputs["text"]
        assert packed.size == ANY_NUMBER
        real = torch.ones(packed.positions.shape, dtype=torch.bool) if packed.real is None else packed.real
        total = (packed.values[..., 0].sign() * real).sum(dim=1) - 0.5
        return torch.stack([-total, total], dim=1)


def test_edit_distance_of_texts_of_any_length(tmp_path):
    lengths = np.array([8, 12, 20, 20])
    values = np.zeros((4, 20, 1), dtype=np.float32)
    for i, n in enumerate(lengths):
        values[i, :n] = 1.0
    texts = MultiModalSamples("toy", "test", {"text": values}, np.ones(4, dtype=int), Bag.classes, np.arange(4))
    options = {"keep": {"text": 0.25}, "kind": "edit", "draws": 2000, "alpha": 0.01, "seed": 0}
    found = certify_lengths(Bag(), texts, lengths={"text": lengths}, **options)
    exact = 1 - 0.75 ** lengths.astype(float)  # some word is kept
    assert (found.gaps <= 2 * exact - 1).all()
    assert (found.gaps > 2 * exact - 1 - 0.12).all()
    reach = [int(row["frontier"][0][0]) for row in found.rows()]
    assert reach[0] <= reach[1] <= reach[2] == reach[3]
    assert reach[3] >= 2
    margins = [row["k"] for row in found.rows()]
    assert margins == [{"text": 0.25}] * 4
    one = certify(Bag(), texts.select([2, 3]), folder=tmp_path, **options)
    assert one.scheme == "rate"
    assert Counts.load(tmp_path / "votes-rate.npz").k == {"text": 0.25}
    assert certify_counts(
        one.counts.votes[0], n=(20,), k=(0.25,), radii=[(1,)], alpha=0.01, kind="edit", scheme="rate"
    ).certified.all()
    assert "kept with probability 0.25 (edit)" in certificate_view(one).drawn[0]
    said = predict(Bag(), texts, keep={"text": 0.25}, draws=300, seed=1)
    assert set(said.tolist()) <= {-1, 1}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"keep": {"left": 0.5, "right": 2}}, "to be a rate in"),
        ({"keep": {"left": 0.5, "right": 1.0}}, "to be a rate in"),
        ({"keep": {"left": 0.5, "right": 0.5}, "design": "fixed"}, "random draws alone"),
        ({"keep": {"left": 0.5, "right": 0.5}, "scheme": "joint"}, "random draws alone"),
    ],
)
def test_rates_that_do_not_fit_are_refused(unchecked, sign_net, sensors, changes, message):
    with pytest.raises(ValueError, match=message):
        certify(sign_net, sensors, **{"draws": 300, **changes})
    assert sign_net.calls == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lengths": {"left": np.full(14, 9)}}, "in 1..8, the elements there are, but got 9..9"),
        ({"lengths": {"left": np.zeros(14, dtype=int)}}, "in 1..8"),
        ({"lengths": {"left": np.full(13, 8)}}, r"integers \[14\]"),
        ({"lengths": {"left": np.full(14, 8.0)}}, r"integers \[14\]"),
        ({"lengths": {"lefd": np.full(14, 8)}}, "did you mean 'left'"),
        ({"keep": {"left": 1.5, "right": 2}}, "a rate in"),
        ({"keep": {"left": 2, "rihgt": 2}}, "did you mean 'right'"),
        ({"kind": "deletion"}, "kind 'substitution', or rates"),
        ({"keep": {"left": 0.5, "right": 0.5}, "kind": "edit"}, "may see where they stand"),
    ],
)
def test_wrong_lengths_are_refused_before_anything_is_drawn(unchecked, varied, changes, message):
    samples, lengths = varied
    model = SignNet()
    with pytest.raises(ValueError, match=message):
        certify_lengths(
            model, samples, **({"lengths": lengths, "keep": {"left": 4, "right": 2}, "draws": 300} | changes)
        )
    assert model.calls == 0
