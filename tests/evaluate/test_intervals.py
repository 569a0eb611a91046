"""Intervals against statsmodels and against the definition."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.proportion import proportion_confint

from crossguard.evaluate import paired_drop, wilson


@given(st.integers(1, 400).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total))))
def test_wilson_is_that_of_statsmodels(counts):
    hits, total = counts
    low, high = proportion_confint(hits, total, alpha=0.05, method="wilson")
    assert wilson(hits, total) == pytest.approx((100 * low, 100 * high), abs=1e-9)
    assert wilson(hits, total)[0] <= 100 * hits / total <= wilson(hits, total)[1]


@pytest.mark.parametrize(("before", "after"), [(0.7, 0.2), (0.5, 0.5), (0.05, 0.03)])
def test_the_drop_is_covered_about_95_times_in_100(before, after):
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(2000):
        first, second = rng.random((2, 150))
        hit_before, hit_after = first < before, np.where(rng.random(150) < 0.5, first, second) < after
        low, high = paired_drop(int((hit_before & ~hit_after).sum()), int((~hit_before & hit_after).sum()), 150)
        covered += low <= 100 * (before - after) <= high
    assert 0.93 <= covered / 2000 <= 0.985


def test_the_drop_without_change_lies_around_zero():
    low, high = paired_drop(0, 0, 50)
    assert low == pytest.approx(-high)
    assert low < 0


@pytest.mark.parametrize("counts", [(3, 2), (-1, 2), (0, 0)])
def test_wilson_refuses(counts):
    with pytest.raises(ValueError, match="hits <= total"):
        wilson(*counts)


@pytest.mark.parametrize("counts", [(3, 3, 5), (-1, 0, 5), (0, 0, 0)])
def test_the_drop_refuses(counts):
    with pytest.raises(ValueError, match="sum to at most"):
        paired_drop(*counts)
