"""What a setting can do is known before it is tried."""

import numpy as np
import pytest

from crossguard.certify import certify_counts, draws_to_reach, preflight
from crossguard.certify.bounds import gap_bounds


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("draws", [5, 9, 10, 11, 50])
def test_fewest_votes_are_those_certify_counts_asks_for(draws, separate):
    found = preflight(n=(30, 30), k=(2, 2), draws=draws, alpha=0.002, separate=separate)
    needed = draws + 1
    for votes in range(draws + 1):
        counts = np.array([votes, draws - votes])
        selection = np.array([1, 0]) if separate else None
        arguments = {"n": (30, 30), "k": (2, 2), "radii": [(0, 0)], "alpha": 0.002, "selection": selection}
        c = certify_counts(counts, correction="bonferroni", **arguments)
        if c.certified[0] and c.label == 0:
            needed = min(needed, votes)
    assert found.fewest_votes == needed
    assert found.possible == (needed <= draws)


@pytest.mark.parametrize(("draws", "labels"), [(1000, 50), (60, 4), (40, 3), (30, 2)])
def test_fewest_votes_with_a_bound_for_every_label_are_the_fewest(draws, labels):
    found = preflight(n=(20,), k=(4,), draws=draws, alpha=0.001, labels=labels, bound="gap").fewest_votes
    certifying = []
    for votes in range(draws + 1):
        shares = np.full(labels - 1, (draws - votes) // (labels - 1))
        shares[: (draws - votes) % (labels - 1)] += 1
        if votes > shares.max() and gap_bounds(np.array([votes, *shares]), draws, 0.001) > 0:
            certifying.append(votes)
    assert found == min(certifying)


@pytest.mark.parametrize("elements", [1, 1000, 465_750])
@pytest.mark.parametrize("bound", ["majority", "gap"])
def test_the_fewest_draws_are_the_fewest(elements, bound):
    arguments = {"n": (50,), "k": (3,), "alpha": 0.001, "elements": elements, "bound": bound, "labels": 5}
    needed = preflight(draws=10, **arguments).fewest_draws
    assert preflight(draws=needed, **arguments).possible
    assert not preflight(draws=needed - 1, **arguments).possible
    with pytest.raises(ValueError, match=f"draw at least {needed}"):
        preflight(draws=needed - 1, **arguments).require()


def test_reach_is_that_of_unanimous_votes():
    found = preflight(n=(128, 128), k=(5, 5), draws=1000, alpha=0.001)
    for i in range(2):
        vectors = [[0, 0], [0, 0]]
        vectors[0][i], vectors[1][i] = found.reach[i], found.reach[i] + 1
        c = certify_counts([1000, 0], n=(128, 128), k=(5, 5), radii=vectors, alpha=0.001, correction="bonferroni")
        assert c.certified.tolist() == [True, False]
    assert [0, found.reach[1]] in found.frontier.tolist()
    assert "radius" in str(found)


def test_draws_to_reach_a_margin():
    needed = draws_to_reach(0.6, 0.001)
    assert 0.001 ** (1 / needed) >= 0.8 > 0.001 ** (1 / (needed - 1))
    with pytest.raises(ValueError, match="below 1"):
        draws_to_reach(1.0, 0.001)


def test_a_setting_that_can_only_abstain_says_so():
    found = preflight(n=(9,), k=(9,), draws=5, alpha=0.001)
    assert not found.possible
    assert found.reach == (-1,)
    assert len(found.frontier) == 0
    assert "can only abstain" in str(found)
    everything_kept = preflight(n=(9,), k=(9,), draws=100, alpha=0.001)
    assert everything_kept.reach == (0,)
