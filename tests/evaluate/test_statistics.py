"""Intervals over groups: against Wilson's, against slow formulas, and by how often they hold the truth."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from crossguard.evaluate import NoInterval, Ratio, clustered_interval, wilson
from crossguard.evaluate.statistics import (
    Estimate,
    bootstrap_figure,
    group_draws,
    jackknife_bounds,
    lost_and_won_bounds,
    share_bounds,
)

COVERED = 0.93
SHARES = (0.01, 0.02, 0.05, 0.1, 0.3, 0.5, 0.9, 0.99)


def group_sizes(kind, groups, draws, rng):
    """Samples per group: five each, geometric with mean five, log-normal, or sixty each."""
    if kind == "geometric":
        return rng.geometric(0.2, (draws, groups)).astype(float)
    if kind == "log-normal":
        return np.maximum(1, np.exp(rng.normal(1, 1, (draws, groups))).astype(int)).astype(float)
    return np.full((draws, groups), {"one": 1.0, "five": 5.0, "sixty": 60.0}[kind])


def draw_hits(share, rho, sizes, rng):
    """Hits of groups whose own share is a beta variable with intraclass correlation `rho`."""
    if share in (0, 1):
        return sizes * share
    if rho == 1:
        return sizes * (rng.random(sizes.shape) < share)
    if rho == 0:
        return rng.binomial(sizes.astype(int), share).astype(float)
    spread = (1 - rho) / rho
    own = rng.beta(share * spread, (1 - share) * spread, sizes.shape)
    return rng.binomial(sizes.astype(int), own).astype(float)


def coverage(kind, rho, share, *, groups, draws, seed=0):
    rng = np.random.default_rng(seed)
    sizes = group_sizes(kind, groups, draws, rng)
    low, high = share_bounds(draw_hits(share, rho, sizes, rng), sizes)
    return float(((low <= 100 * share + 1e-9) & (100 * share - 1e-9 <= high)).mean())


@pytest.mark.parametrize("rho", [0, 0.1, 0.3, 0.6, 1])
@pytest.mark.parametrize("kind", ["five", "geometric", "log-normal", "sixty"])
def test_intervals_of_64_groups_hold_the_truth(kind, rho):
    for share in SHARES:
        assert coverage(kind, rho, share, groups=64, draws=2500) >= COVERED, share


@pytest.mark.parametrize("share", SHARES)
def test_intervals_of_64_single_samples_hold_the_truth(share):
    assert coverage("one", 0, share, groups=64, draws=2500) >= COVERED


@pytest.mark.slow
@pytest.mark.parametrize("groups", [8, 16, 32, 64, 200])
@pytest.mark.parametrize("kind", ["five", "geometric", "log-normal", "sixty"])
def test_intervals_hold_the_truth_for_any_number_of_groups(kind, groups):
    for rho in (0, 0.03, 0.1, 0.3, 0.6):
        for share in (0.03, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 0.9, 0.97):
            assert coverage(kind, rho, share, groups=groups, draws=10_000) >= COVERED, (rho, share)


def test_an_interval_that_takes_samples_for_independent_does_not_hold_the_truth():
    rng = np.random.default_rng(0)
    sizes = group_sizes("five", 64, 1000, rng)
    hits = draw_hits(0.3, 0.6, sizes, rng).sum(axis=1)
    ends = np.array([wilson(int(h), 320) for h in hits])
    assert ((ends[:, 0] <= 30) & (ends[:, 1] >= 30)).mean() < 0.8


@pytest.mark.parametrize(("lost", "won"), [(0.01, 0), (0.05, 0.02), (0.1, 0.1), (0.3, 0.01), (0.6, 0), (0.95, 0)])
@pytest.mark.parametrize("rho", [0, 0.3, 1])
def test_drops_hold_the_truth(lost, won, rho):
    rng = np.random.default_rng(1)
    for kind in ("five", "geometric"):
        sizes = group_sizes(kind, 64, 1000, rng)
        changed = draw_hits(lost + won, rho, sizes, rng)
        gone = draw_hits(lost / (lost + won), rho, changed, rng)
        low, high = lost_and_won_bounds(gone, changed - gone, sizes)
        difference = 100 * (lost - won)
        assert ((low <= difference + 1e-9) & (difference - 1e-9 <= high)).mean() >= COVERED


def test_differences_of_models_are_narrower_than_what_their_intervals_leave():
    rng = np.random.default_rng(2)
    groups = np.arange(600) // 4
    first = rng.random(600) < 0.6
    second = first & (rng.random(600) < 0.95)
    figure = Ratio.of_hits(first, groups).minus(Ratio.of_hits(second, groups))
    mine, other = (Ratio.of_hits(h, groups).figure() for h in (first, second))
    assert mine.low < other.high  # they overlap
    assert 0 < figure.low < figure.value < figure.high
    assert figure.value == pytest.approx(mine.value - other.value)


@pytest.mark.parametrize(("iou", "spread"), [(0.9, 0.03), (0.9, 0.15), (0.98, 0.03), (0.5, 0.2)])
def test_ratios_of_pixels_and_their_drops_hold_the_truth(iou, spread):
    rng = np.random.default_rng(3)
    strength = iou * (1 - iou) / spread**2 - 1
    union = np.exp(rng.normal(6, 0.7, (1000, 64))).astype(int)
    hits = rng.binomial(union, rng.beta(iou * strength, (1 - iou) * strength, union.shape))
    left = rng.binomial(hits, rng.beta(19, 1, union.shape)).astype(float)
    more = union + rng.poisson(union * 0.05)
    before = (hits.astype(float), union.astype(float))
    low, high = share_bounds(*before)
    assert ((low <= 100 * iou) & (100 * iou <= high)).mean() >= COVERED
    low, high = jackknife_bounds(before, (left, more.astype(float)))
    drop = 100 * (iou - 0.95 * iou / 1.05)
    assert ((low <= drop) & (drop <= high)).mean() >= 0.91


@settings(max_examples=25, deadline=None)
@given(st.integers(8, 400).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total))))
def test_samples_that_are_groups_get_the_interval_of_wilson(counts):
    hits, total = counts
    low, high = proportion_confint(hits, total, alpha=0.05, method="wilson")
    found = clustered_interval(np.arange(total) < hits, np.arange(total))
    assert found == pytest.approx((100 * low, 100 * high), abs=1e-9)
    assert wilson(hits, total) == pytest.approx(found, abs=1e-9)


def test_groups_that_hit_or_miss_as_one_are_one_sample_each():
    """The size of 40 groups of 5 equal answers is 40, and its quantile is Student's."""
    hits = np.repeat(np.arange(40) < 13, 5)
    low, high = clustered_interval(hits, np.repeat(np.arange(40), 5))
    t, share, size = stats.t.ppf(0.975, 39), 13 / 40, 40
    centre = (share + t * t / (2 * size)) / (1 + t * t / size)
    half = t / (1 + t * t / size) * np.sqrt(share * (1 - share) / size + t * t / (4 * size**2))
    # The two small groups that are added weigh least where many groups decide.
    assert (low, high) == pytest.approx((100 * (centre - half), 100 * (centre + half)), rel=0.02)


@pytest.mark.parametrize("value", [0, 1])
def test_none_or_all_hits_are_worth_the_number_of_groups(value):
    low, high = clustered_interval(np.full(100, value), np.arange(100) // 5)
    t = stats.t.ppf(0.975, 19)
    reach = 100 * t * t / (20 + t * t)
    assert (low, high) == pytest.approx((0, reach) if value == 0 else (100 - reach, 100))


GROUPED = st.integers(0, 2**32 - 1).map(np.random.default_rng)


def _sample(rng):
    groups = np.concatenate([np.arange(8), rng.integers(0, rng.integers(8, 40), rng.integers(30, 200))])
    return rng.random(len(groups)) < rng.random(), groups


@settings(max_examples=25, deadline=None)
@given(GROUPED)
def test_order_and_names_of_groups_change_nothing(rng):
    hits, groups = _sample(rng)
    found = clustered_interval(hits, groups)
    order, names = rng.permutation(len(hits)), rng.permutation(groups.max() + 1)
    assert clustered_interval(hits[order], groups[order]) == found
    assert clustered_interval(hits, names[groups]) == found
    assert clustered_interval(hits.tolist(), [f"picture {name}" for name in names[groups]]) == found
    assert clustered_interval(hits, groups, seed=7) == found


@settings(max_examples=25, deadline=None)
@given(GROUPED, st.floats(0.5, 0.999))
def test_intervals_hold_the_share_and_stay_within_0_and_100(rng, level):
    hits, groups = _sample(rng)
    low, high = clustered_interval(hits, groups, level=level)
    assert 0 <= low <= 100 * hits.mean() + 1e-12
    assert 100 * hits.mean() - 1e-12 <= high <= 100
    wider = clustered_interval(hits, groups, level=(1 + level) / 2)
    assert wider[0] <= low
    assert high <= wider[1]


@settings(max_examples=25, deadline=None)
@given(GROUPED)
def test_misses_mirror_hits_and_differences_change_sign(rng):
    hits, groups = _sample(rng)
    low, high = clustered_interval(hits, groups)
    assert clustered_interval(~hits, groups) == pytest.approx((100 - high, 100 - low), abs=1e-9)
    one, other = Ratio.of_hits(hits, groups), Ratio.of_hits(rng.random(len(hits)) < 0.5, groups)
    there, back = one.minus(other), other.minus(one)
    assert (there.low, there.value, there.high) == pytest.approx((-back.high, -back.value, -back.low), abs=1e-9)
    assert -100 <= there.low <= there.value <= there.high <= 100


def test_many_figures_at_once_are_those_one_by_one():
    rng = np.random.default_rng(4)
    wholes = rng.integers(0, 9, (3, 2, 20)).astype(float)
    parts = np.floor(rng.random((3, 2, 20)) * (wholes + 1))
    low, high = share_bounds(parts, wholes)
    for place in np.ndindex(3, 2):
        one = share_bounds(parts[place][wholes[place] > 0], wholes[place][wholes[place] > 0])
        assert (low[place], high[place]) == pytest.approx(one)


def test_too_few_groups_give_their_values_and_the_reason():
    figure = Ratio.of_hits(np.array([1, 1, 0, 1, 0, 0]), np.array(["ann", "ann", "ann", "bob", "bob", "bob"])).figure()
    assert figure.interval is None
    assert figure.by_group == pytest.approx({"ann": 200 / 3, "bob": 100 / 3})
    assert figure.why == "there are 2 groups, fewer than 8"
    assert (figure.n, figure.groups, figure.value) == (6, 2, 50.0)


def test_what_an_attack_could_not_break_counts_only_the_groups_that_had_it():
    right, lost = np.array([1, 1, 0, 0] * 10), np.array([1, 0, 0, 0] * 10)
    figure = Ratio(lost, right, np.arange(40) // 2).figure()
    assert (figure.value, figure.n, figure.groups) == (50.0, 20, 10)
    assert figure.interval == clustered_interval([1, 0] * 10, np.arange(20) // 2)
    assert Ratio(np.zeros(4), np.zeros(4), np.arange(4)).figure() is None


@pytest.mark.parametrize(
    ("groups", "why"),
    [
        (np.zeros(50), "one group holds all samples"),
        (np.arange(50) // 10, "there are 5 groups, fewer than 8"),
        (np.maximum(0, np.arange(50) - 35), "one group holds 72 % of the samples"),
    ],
)
def test_groups_that_allow_no_interval_are_refused_with_the_reason(groups, why):
    with pytest.raises(NoInterval, match=why):
        clustered_interval(np.arange(50) < 20, groups)


@pytest.mark.parametrize(
    ("hits", "groups", "level", "message"),
    [
        ([], [], 0.95, "at least one"),
        ([1, 0], [1], 0.95, "one group per hit"),
        ([0.5] * 9, range(9), 0.95, "0 and 1"),
        ([np.nan] * 9, range(9), 0.95, "0 and 1"),
        ([1] * 9, range(9), 1.0, "level"),
    ],
)
def test_wrong_arguments_are_refused(unchecked, hits, groups, level, message):
    with pytest.raises(ValueError, match=message):
        clustered_interval(hits, list(groups), level=level)


@pytest.mark.parametrize("counts", [(3, 2), (-1, 2), (0, 0)])
def test_wilson_refuses(counts):
    with pytest.raises(ValueError, match="hits <= total"):
        wilson(*counts)


def test_other_samples_cannot_be_compared():
    with pytest.raises(ValueError, match="same samples"):
        Ratio.of_hits(np.ones(9), np.arange(9)).minus(Ratio.of_hits(np.ones(9), np.arange(9)[::-1]))


def test_parts_beyond_their_wholes_are_refused():
    with pytest.raises(ValueError, match="between 0 and their wholes"):
        Ratio(np.array([2.0]), np.array([1.0]), np.array([0]))


def test_a_drop_without_any_change_lies_around_zero():
    groups = np.arange(60) // 3
    hits = groups % 2 == 0
    for other in (Ratio.of_hits(hits, groups), Ratio(3.0 * hits, np.full(60, 4.0), groups)):
        figure = other.minus(other)
        assert figure.value == 0
        assert figure.low == pytest.approx(-figure.high)
        assert figure.low < -1


def test_resampled_figures_have_the_width_of_students_t():
    values = np.random.default_rng(0).normal(10, 2, 40)
    draws = group_draws(40, seed=1, draws=20_000)
    figure = bootstrap_figure(float(values.mean()), draws @ values / 40, n=40, groups=40)
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert figure.interval == pytest.approx((low, high), abs=0.06)
    assert (draws.sum(axis=1) == 40).all()
    assert np.array_equal(group_draws(7, seed=3), group_draws(7, seed=3))
    few = bootstrap_figure(3.0, np.empty(0), n=9, groups=2, by_group={"a": 2.0, "b": 4.0})
    assert few == Estimate(3.0, None, None, 9, 2, {"a": 2.0, "b": 4.0}, "there are 2 groups, fewer than 8")
