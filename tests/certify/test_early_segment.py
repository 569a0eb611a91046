"""Early stopping of segmentations: nothing is claimed that all looks have not paid for, and draws are saved."""

from itertools import product

import numpy as np
import pytest
import torch
from certify_toys import ALONE, Interrupting
from test_segment import TwoRegions, attacked, exact, samples  # noqa: F401  (a fixture)
from torch import nn

from crossguard.certify import certify_segmentation, certify_segmentation_early
from crossguard.data import MultiModalSamples

KEEP = {"image": 2, "depth": 1}
PROBING = 4  # calls by which a segmenter is told from others: two images, twice
OPTIONS = {
    "keep": KEEP,
    "radii": {"image": 1},
    "draws": 1500,
    "alpha": 0.01,
    "batch_size": 100,
    "undecided": 0.2,
    "seed": 0,
}


class Counting(TwoRegions):
    """Counts its calls."""

    def __init__(self):
        super().__init__()
        self._calls = 0

    @property
    def calls(self):
        return self._calls

    def forward(self, inputs, kept=None):
        self._calls += 1
        return super().forward(inputs, kept)


def test_certified_pixels_withstand_every_attack_and_draws_are_saved(samples):  # noqa: F811
    found = certify_segmentation_early(TwoRegions(), samples, **OPTIONS)
    assert found.certified.shape == found.labels.shape == (5, 2, 3)
    assert set(found.draws.tolist()) <= set(found.rounds)
    assert found.saved == pytest.approx(1 - found.draws.mean() / 1500)
    assert found.saved > 0.3
    assert found.draws.min() == found.rounds[0]
    checked = 0
    for i, x in product(range(5), range(3)):
        part, k = ("image", 2) if x == 0 else ("depth", 1)
        values = samples.modalities[part][i, 0]
        if found.certified[i, :, x].any():
            for other in attacked(values, 1 if part == "image" else 0):
                assert (exact(other, k) > 0.5) == found.labels[i, 0, x]
                checked += 1
    assert checked > 20
    full = certify_segmentation(TwoRegions(), samples, keep=KEEP, draws=1500, alpha=0.01, batch_size=500, seed=0)
    for i in range(5):
        assert (found.certified[i] <= full.image(i, [{"image": 1}]).certified[0]).all()


def test_interrupted_is_uninterrupted(samples, tmp_path):  # noqa: F811
    whole = certify_segmentation_early(TwoRegions(), samples, **OPTIONS)
    assert len(set(whole.draws.tolist())) > 1
    for last in (1, 2, 5):
        with pytest.raises(KeyboardInterrupt):
            certify_segmentation_early(Counting(), samples, folder=tmp_path, progress=Interrupting(last), **OPTIONS)
    found = certify_segmentation_early(Counting(), samples, folder=tmp_path, **OPTIONS)
    for name in ("labels", "certified", "draws"):
        assert (getattr(found, name) == getattr(whole, name)).all()
    again = Counting()
    assert (certify_segmentation_early(again, samples, folder=tmp_path, **OPTIONS).draws == whole.draws).all()
    assert again.calls == PROBING + ALONE
    # The counts are those of `certify_segmentation`, which goes on from them.
    more = certify_segmentation(
        Counting(), samples, keep=KEEP, draws=1500, alpha=0.01, folder=tmp_path, batch_size=500, seed=0
    )
    full = certify_segmentation(TwoRegions(), samples, keep=KEEP, draws=1500, alpha=0.01, batch_size=500, seed=0)
    assert all((one.votes == other.votes).all() for one, other in zip(more.counts, full.counts, strict=True))


class OnTheThreshold(nn.Module):
    """Says "road" for a whole image with the probability that the first pixel is kept."""

    name, modalities, classes = "threshold", ("image",), ("other", "road")

    def forward(self, inputs, kept=None):
        seen = kept["image"][:, 0, :1].float() * 2 - 1
        score = seen[:, :, None].expand(-1, 2, 2)
        return torch.stack([-score, score], dim=1)


def test_error_under_the_null_is_at_most_alpha():
    """Half of the sub-samples keep the first pixel: p_A is at its threshold at radius 0, every certificate is wrong."""
    images, alpha = 50, 0.1
    none = MultiModalSamples(
        "toy",
        "test",
        {"image": np.random.default_rng(0).normal(size=(images, 1, 2, 2)).astype(np.float32)},
        np.zeros((images, 2, 2), dtype=np.int64),
        ("other", "road"),
        np.arange(images),
    )
    found = certify_segmentation_early(
        OnTheThreshold(),
        none,
        keep={"image": 2},
        radii={},
        draws=150,
        alpha=alpha,
        undecided=0.0,
        batch_size=150,
        seed=0,
    )
    assert len(found.rounds) > 2
    wrong = found.certified.any(axis=(1, 2)).mean()
    assert wrong <= alpha + 4 * np.sqrt(alpha / images)


def test_wrong_arguments_are_refused(unchecked, samples):  # noqa: F811
    model = Counting()
    for changes, message in (
        ({"radii": {"imag": 1}}, "did you mean 'image'"),
        ({"radii": {"image": 5}}, "within reach"),
        ({"draws": 3}, "draw at least"),
        ({"undecided": 1.2}, r"`undecided` in \[0, 1\]"),
        ({"scheme": "joined"}, "did you mean 'joint'"),
    ):
        with pytest.raises(ValueError, match=message):
            certify_segmentation_early(model, samples, **(OPTIONS | changes))
    assert model.calls == 0
