"""Binomial statistics against exact fractions, statsmodels, and error probabilities computed without simulation."""

from fractions import Fraction
from itertools import product
from math import comb, exp, factorial, log, prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.proportion import proportion_confint

from crossguard.certify.bounds import (
    clopper_pearson,
    fewest_votes,
    gap_bounds,
    lead_bounds,
    log_p_values,
    log_tail,
    majority_bounds,
    p_value_table,
)


def exact_tail(c, draws, p):
    p = Fraction(p)
    return sum((comb(draws, i) * p**i * (1 - p) ** (draws - i) for i in range(c, draws + 1)), Fraction(0))


@settings(deadline=None)
@given(st.integers(1, 120), st.integers(0, 120), st.floats(0, 1))
def test_tail_equals_fractions_and_is_rounded_up(draws, c, p):
    c = min(c, draws)
    truth = exact_tail(c, draws, p)
    found = float(log_tail(np.array(c), draws, p))
    if truth == 0:
        assert found == -np.inf
    elif truth > Fraction(1, 10**250):
        assert found == pytest.approx(log(truth), abs=3e-10)
        assert found == 0 or found >= log(truth)
    else:
        assert found >= log(truth.numerator) - log(truth.denominator)


def test_far_tails_do_not_underflow():
    for c, draws, p in ((900, 1000, 0.2), (1000, 1000, 1e-3), (4000, 5000, 0.5)):
        truth = exact_tail(c, draws, p)
        truth = log(truth.numerator) - log(truth.denominator)
        found = float(log_tail(np.array(c), draws, p))
        assert truth <= found <= truth + 1e-2
    assert float(log_tail(np.array(10**6), 10**6, 0.6)) == pytest.approx(1e6 * log(0.6), rel=1e-9)


def test_the_table_is_indexed_by_the_count():
    table = p_value_table(9, 0.6)
    assert table.shape == (10,)
    assert (table[:5] == 0).all()
    for c in range(5, 10):
        assert exp(table[c]) == pytest.approx(float(exact_tail(c, 9, 0.6) + exact_tail(c, 9, 0.4)), rel=1e-9)
    alone = p_value_table(9, 0.6, separate=True)
    assert np.exp(alone) == pytest.approx([float(exact_tail(c, 9, 0.6)) for c in range(10)], rel=1e-9)


def outcomes(draws, labels):
    """All vote counts of `draws` votes for `labels` labels, and their multinomial coefficients."""
    for votes in product(range(draws + 1), repeat=labels - 1):
        if sum(votes) <= draws:
            full = (*votes, draws - sum(votes))
            yield full, factorial(draws) / prod(factorial(v) for v in full)


CHANCES = [
    (0.5, 0.5, 0.0),
    (0.52, 0.48, 0.0),
    (0.55, 0.45, 0.0),
    (0.6, 0.4, 0.0),
    (0.65, 0.3, 0.05),
    (0.7, 0.3, 0.0),
    (0.75, 0.25, 0.0),
    (0.8, 0.1, 0.1),
    (0.4, 0.35, 0.25),
    (0.9, 0.1, 0.0),
    (0.97, 0.03, 0.0),
]


@pytest.mark.parametrize("chances", CHANCES)
@pytest.mark.parametrize("alpha", [0.001, 0.02, 0.2])
def test_error_of_all_radii_at_once_is_at_most_alpha(chances, alpha):
    draws, wrong = 23, {"majority": 0.0, "gap": 0.0}
    votes, ways = zip(*outcomes(draws, 3), strict=True)
    votes, ways = np.array(votes), np.array(ways)
    weight = ways * np.prod(np.array(chances) ** votes, axis=1)
    assert weight.sum() == pytest.approx(1)
    label = votes.argmax(axis=1)
    p = np.array(chances)
    own = p[label]
    rival = np.array([np.delete(p, i).max() for i in label])
    bounds = majority_bounds(votes.max(axis=1), draws, alpha)
    wrong["majority"] = weight[bounds > np.maximum(own, 0.5 * (own <= 0.5))].sum()
    wrong["gap"] = weight[(gap_bounds(votes, draws, alpha) > own - rival)].sum()
    assert wrong["majority"] <= alpha * (1 + 1e-9)
    assert wrong["gap"] <= alpha * (1 + 1e-9)


@pytest.mark.parametrize("chances", CHANCES)
def test_error_at_one_threshold_is_at_most_alpha_and_not_without_the_correction(chances):
    draws, alpha = 23, 0.05
    votes, ways = zip(*outcomes(draws, 3), strict=True)
    votes = np.array(votes)
    weight = np.array(ways) * np.prod(np.array(chances) ** votes, axis=1)
    own = np.array(chances)[votes.argmax(axis=1)]
    for threshold in {0.5, max(0.5, max(chances))}:
        claimed = log_p_values(votes.max(axis=1), draws, threshold) <= np.log(alpha)
        assert weight[claimed & (own <= threshold)].sum() <= alpha
    if chances == (0.5, 0.5, 0.0):
        naive = log_p_values(votes.max(axis=1), draws, 0.5, separate=True) <= np.log(alpha)
        assert weight[naive].sum() > alpha


@pytest.mark.parametrize("separate", [False, True])
def test_majority_bounds_invert_the_p_values(separate):
    draws, alpha = 50, 0.01
    counts = np.arange(draws + 1)
    bounds = majority_bounds(counts, draws, alpha, separate=separate)
    fewest = fewest_votes(draws, alpha, separate=separate)
    assert (bounds[:fewest] == 0).all()
    assert (np.diff(bounds[fewest:]) > 0).all()
    for c in range(fewest, draws + 1):
        at, above = bounds[c], bounds[c] + 1e-9
        logs = [log_p_values(np.array(c), draws, t, separate=separate, fewest=fewest) for t in (at, above)]
        assert logs[0] <= np.log(alpha) < logs[1]
    if separate:  # then it is the one-sided Clopper-Pearson bound
        assert bounds[fewest:] == pytest.approx(clopper_pearson(counts[fewest:], draws, alpha, side="lower"), rel=1e-8)


def test_clopper_pearson_equals_statsmodels():
    counts, draws = np.arange(41), 40
    for alpha in (0.3, 0.01, 1e-6):
        low, high = proportion_confint(counts, draws, alpha=2 * alpha, method="beta")
        assert clopper_pearson(counts, draws, alpha, side="lower") == pytest.approx(low, rel=1e-8, abs=1e-12)
        assert clopper_pearson(counts, draws, alpha, side="upper") == pytest.approx(high, rel=1e-8)


@pytest.mark.parametrize("draws", [10, 11, 12, 100, 181, 182, 183, 1000, 10**4, 10**5, 10**6])
def test_unanimous_votes_stay_certifiable(draws):
    bound = majority_bounds(np.array(draws), draws, 0.01)
    assert bound >= 0.5
    assert bound == pytest.approx(0.01 ** (1 / draws), rel=1e-3)


def test_gap_is_better_where_votes_spread_and_refuses_bad_alpha():
    votes = np.array([480, 100, 90, 80, 70, 60, 120])
    assert majority_bounds(np.array(480), 1000, 0.001) == 0
    assert gap_bounds(votes, 1000, 0.001) > 0.2
    with pytest.raises(ValueError, match="alpha"):
        majority_bounds(votes, 1000, 0.7)
    with pytest.raises(ValueError, match="threshold"):
        p_value_table(10, 0.3)


def test_both_bounds_are_the_better_of_the_two_each_at_half_of_alpha():
    rng = np.random.default_rng(0)
    votes = np.concatenate([rng.multinomial(200, p, size=300) for p in ([0.55, 0.2, 0.15, 0.1], [0.7, 0.3, 0, 0])])
    top = votes.max(axis=1)
    both = lead_bounds(votes, top, 200, 0.01)
    majority, gap = (lead_bounds(votes, top, 200, 0.005, bound=bound) for bound in ("majority", "gap"))
    assert (both == np.maximum(majority, gap)).all()
    assert (majority > gap).any()
    assert (gap > majority).any()
    two = np.stack([top, 200 - top], axis=1)
    for separate in (False, True):  # nothing is left to share
        expected = 2 * majority_bounds(top, 200, 0.01, separate=separate) - 1
        assert (lead_bounds(two, top, 200, 0.01, separate=separate) == expected).all()


@pytest.mark.parametrize("chances", [(0.5, 0.5, 0.0), (0.4, 0.4, 0.2), (0.4, 0.3, 0.3), (0.6, 0.4, 0.0)])
def test_the_error_of_both_bounds_is_at_most_alpha(chances):
    rng, alpha, inputs = np.random.default_rng(0), 0.05, 40_000
    votes = rng.multinomial(60, chances, size=inputs)
    label, top = votes.argmax(axis=1), votes.max(axis=1)
    others = np.where(np.arange(3) == label[:, None], -1.0, np.array(chances)).max(axis=1)
    wrong = lead_bounds(votes, top, 60, alpha) > np.array(chances)[label] - others
    assert wrong.mean() <= alpha + 4 * np.sqrt(alpha / inputs)
