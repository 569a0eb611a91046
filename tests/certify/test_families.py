"""Holm's step-down against statsmodels, a sort-based reference, and simulated families under the null."""

import gc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from crossguard.certify import Margins, certify_counts, holm
from crossguard.certify.bounds import log_p_values
from crossguard.certify.families import holm_critical_counts


@pytest.mark.parametrize("elements", [1, 2, 7, 60])
def test_holm_equals_statsmodels(elements, monkeypatch):
    monkeypatch.setattr(gc, "collect", lambda: 0)  # theirs looks for garbage each time
    rng = np.random.default_rng(elements)
    rejected = 0
    for _ in range(5):
        p = rng.random(elements) ** 4  # many small ones
        found = holm(p, 0.05)
        assert (found == multipletests(p, 0.05, method="holm")[0]).all()
        rejected += found.sum()
    assert rejected


def holm_by_sorting(p, alpha):
    rejected, order = np.zeros(len(p), dtype=bool), np.argsort(p, kind="stable")
    for j, i in enumerate(order):
        if not p[i] <= alpha / (len(p) - j):
            break
        rejected[i] = True
    return rejected


@settings(deadline=None)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=80), st.floats(0.5, 0.9), st.floats(0.001, 0.4))
def test_histogram_form_equals_sorting(counts, threshold, alpha):
    counts = np.array(counts)
    p = np.exp(log_p_values(counts, 30, threshold))
    occurring, histogram = np.unique(counts, return_counts=True)
    passing = holm_critical_counts(histogram, log_p_values(occurring, 30, threshold)[None], alpha)[0]
    certified = np.isin(counts, occurring[len(occurring) - passing :])
    assert (certified == holm_by_sorting(p, alpha)).all()


def test_a_failure_stops_all_that_follow():
    # The second fails its threshold alpha / 2; the third would pass alpha / 1 and yet is not rejected.
    assert holm(np.array([0.01, 0.03, 0.04]), 0.05).tolist() == [True, False, False]


@pytest.mark.parametrize("dependence", ["independent", "equal", "blocks"])
@pytest.mark.parametrize("correction", ["holm", "bonferroni"])
def test_family_wise_error_under_the_complete_null(dependence, correction):
    """Every element has p_A exactly at its threshold, so every certificate is wrong."""
    rng = np.random.default_rng(0)
    alpha, draws, elements, families = 0.1, 60, 24, 500
    n, k, radii = (40,), (3,), [(2,)]
    threshold = 0.5 + Margins(n, k).at(radii)[0] / 2
    groups = {"independent": np.arange(elements), "equal": np.zeros(elements, int), "blocks": np.arange(elements) // 6}
    wrong = 0
    for _ in range(families):
        uniform = rng.random((draws, elements))[:, groups[dependence]]
        yes = (uniform < threshold).sum(axis=0)
        counts = np.stack([yes, draws - yes], axis=1)
        certified = certify_counts(counts, n=n, k=k, radii=radii, alpha=alpha, correction=correction).certified
        wrong += certified.any()
    error = wrong / families
    assert error <= alpha + 4 * np.sqrt(alpha / families)
    if dependence == "equal":
        assert error <= alpha / elements + 4 * np.sqrt(alpha / elements / families)
