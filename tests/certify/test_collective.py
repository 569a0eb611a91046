"""The collective bound is never above what the worst attack on all pixels leaves, and never below each pixel alone."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_segment import TwoRegions, samples  # noqa: F401  (a fixture)

from crossguard.certify import certify_segmentation
from crossguard.certify.collective import certify_collective, collective_bound
from crossguard.certify.ensemble import leads


@settings(deadline=None, max_examples=60)
@given(st.integers(2, 3), st.integers(1, 7), st.integers(1, 12), st.integers(0, 4), st.integers(0, 10_000))
def test_it_bounds_the_worst_set_of_touched_draws(labels, draws, pixels, touched, seed):
    rng = np.random.default_rng(seed)
    votes = np.where(rng.random((draws, pixels)) < 0.8, 0, rng.integers(0, labels, (draws, pixels))).astype(np.uint8)
    counts = np.stack([(votes == label).sum(axis=0) for label in range(labels)], axis=-1)
    right = counts.argmax(axis=1) == 0
    found = collective_bound(votes, right, touched, labels=labels)
    worst = pixels
    for chosen in combinations(range(draws), min(touched, draws)):
        stays = right.copy()
        for p in range(pixels):  # the attacker may turn the touched votes of every pixel to its best rival
            for rival in range(1, labels):
                turned = votes[:, p].copy()
                turned[list(chosen)] = rival
                stays[p] &= np.bincount(turned, minlength=labels).argmax() == 0
        worst = min(worst, int(stays.sum()))
    alone = int((right & (leads(counts) >= 2 * touched)).sum())
    assert found.alone == alone
    assert alone <= found.together <= worst


def test_it_says_more_than_each_pixel_alone():
    rng = np.random.default_rng(0)  # forty regions whose votes are carried by seven draws of twelve, others for each
    regions = np.stack([rng.permutation(12) < 5 for _ in range(40)], axis=1).astype(np.uint8)
    votes, right = np.repeat(regions, 10, axis=1), np.ones(400, dtype=bool)
    assert collective_bound(votes, right, 1, labels=2).alone == 400
    found = collective_bound(votes, right, 2, labels=2)
    assert found.alone == 0
    assert found.together > 40


def test_a_certificate_and_its_model_give_it(samples):  # noqa: F811
    keep = {"image": 2, "depth": 1}
    certificate = certify_segmentation(TwoRegions(), samples, keep=keep, design="fixed", draws=30)
    radii = [{}, {"image": 1}, {"image": 1, "depth": 1}]
    for index in range(len(samples)):
        found = certify_collective(TwoRegions(), certificate, index, radii)
        for vector, bound in zip(radii, found, strict=True):
            image = certificate.image(index, [vector])
            truth = samples.labels[index]
            assert bound.alone == int((image.certified[0] & (image.label == truth)).sum())
            assert bound.alone <= bound.together <= bound.pixels == int((truth >= 0).sum())
    random = certify_segmentation(TwoRegions(), samples, keep=keep, draws=100)
    with pytest.raises(ValueError, match="at random"):
        certify_collective(TwoRegions(), random, 0, radii)

    class Other(TwoRegions):
        def forward(self, inputs, kept=None):
            return -super().forward(inputs, kept)

    with pytest.raises(ValueError, match="its votes are others"):
        certify_collective(Other(), certificate, 0, radii)
