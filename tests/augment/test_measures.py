"""Alignment, diversity and gap against closed forms and brute force."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm

from crossguard.augment import Measures, alignment, diversity, frechet_distance


def unit(generator, *shape):
    vectors = generator.normal(size=shape)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


@settings(deadline=None)
@given(seed=st.integers(0, 2**32 - 1), samples=st.integers(1, 12), dim=st.integers(1, 6))
def test_alignment_is_the_mean_cosine_with_the_partners(seed, samples, dim):
    generator = np.random.default_rng(seed)
    a, b = unit(generator, samples, dim), unit(generator, 7, dim)
    partners = [sorted(generator.choice(7, size=generator.integers(1, 7), replace=False)) for _ in range(samples)]
    pairs = np.array([(row, p) for row, own in enumerate(partners) for p in own], dtype=np.int64)
    pairs = generator.permutation(pairs)
    expected = [np.mean([a[row] @ b[p] for p in own]) for row, own in enumerate(partners)]
    np.testing.assert_allclose(alignment(a, b, pairs), expected, atol=1e-12)


@settings(deadline=None)
@given(seed=st.integers(0, 2**32 - 1), samples=st.integers(2, 14), dim=st.integers(1, 6))
def test_diversity_is_the_mean_distance_of_two_samples_of_an_item(seed, samples, dim):
    generator = np.random.default_rng(seed)
    vectors, items = unit(generator, samples, dim), generator.integers(0, 5, samples)
    means = []
    for item in np.unique(items):
        own = vectors[items == item]
        if len(own) > 1:
            means.append(np.mean([1 - u @ v for u, v in combinations(own, 2)]))
    found = diversity(vectors, items)
    assert found is None if not means else found == pytest.approx(np.mean(means), abs=1e-12)


def test_diversity_of_equal_opposite_and_orthogonal_samples():
    e = np.eye(3)
    items = np.zeros(2, dtype=np.int64)
    assert diversity(e[[0, 0]], items) == pytest.approx(0)
    assert diversity(e[[0, 1]], items) == pytest.approx(1)
    assert diversity(np.stack([e[0], -e[0]]), items) == pytest.approx(2)
    assert diversity(e[:2], np.array([0, 1])) is None


class TestFrechet:
    def test_a_shift_costs_its_square(self):
        a = np.random.default_rng(0).normal(size=(50, 4))
        shift = np.array([1.0, -2.0, 0.5, 0.0])
        assert frechet_distance(a, a + shift) == pytest.approx((shift**2).sum())
        assert frechet_distance(a, a[::-1].copy()) == pytest.approx(0, abs=1e-9)

    def test_gaussians_of_one_dimension(self):
        # Two points m - s, m + s have mean m and standard deviation s: distance (m - n)^2 + (s - t)^2.
        a, b = np.array([[1.0], [5.0]]), np.array([[-1.0], [0.0]])
        assert frechet_distance(a, b) == pytest.approx((3 + 0.5) ** 2 + (2 - 0.5) ** 2)

    def test_commuting_covariances(self):
        corners = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]], dtype=float)
        scale_a, scale_b = np.array([1.0, 3.0]), np.array([2.0, 0.5])
        distance = frechet_distance(corners * scale_a, corners * scale_b)
        assert distance == pytest.approx(((scale_a - scale_b) ** 2).sum())

    @settings(deadline=None, max_examples=30)
    @given(seed=st.integers(0, 2**32 - 1), dim=st.integers(1, 6), extra=st.integers(5, 20))
    def test_against_the_matrix_root_of_scipy(self, seed, dim, extra):
        generator = np.random.default_rng(seed)
        mix = np.eye(dim) + 0.3 * generator.normal(size=(dim, dim))
        a, b = generator.normal(size=(dim + extra, dim)), generator.normal(size=(2 * dim + extra, dim)) @ mix
        ca, cb = (np.atleast_2d(np.cov(x, rowvar=False, bias=True)) for x in (a, b))
        expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(ca + cb - 2 * sqrtm(ca @ cb).real)
        assert frechet_distance(a, b) == pytest.approx(expected, abs=1e-5)

    @settings(deadline=None, max_examples=30)
    @given(seed=st.integers(0, 2**32 - 1), dim=st.integers(1, 6), n=st.integers(2, 9), m=st.integers(2, 9))
    def test_symmetric_and_not_negative_for_any_rank(self, seed, dim, n, m):
        generator = np.random.default_rng(seed)
        a, b = generator.normal(size=(n, dim)), 3 * generator.normal(size=(m, dim))
        assert frechet_distance(a, b) >= 0
        assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), abs=1e-5)

    def test_one_sample_has_no_spread(self):
        assert frechet_distance(np.ones((1, 2)), np.ones((5, 2))) is None


def test_measures_round_trip():
    row = Measures("eda", "texts", made=9, repeats=2, filtered=3, alignment=0.5)
    assert row.added == 4
    assert Measures.from_dict(row.to_dict()) == row
