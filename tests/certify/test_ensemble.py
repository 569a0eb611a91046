"""Certificates of a published ensemble against every attack there is, on designs small enough to try them all."""

from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from crossguard.certify import certify_product, certify_votes
from crossguard.certify.ensemble import leads


def stands_against_all(answers, members, labels, r, label):
    """Whether no choice of r_i elements, and of new answers where these are seen, changes the first label of most votes.

    Trying one new answer for all touched draws is enough: they all help the same rival most.
    """
    for chosen in product(*[combinations(range(n), min(r_i, n)) for (n, _), r_i in zip(members, r, strict=True)]):
        touched = np.zeros(len(answers), dtype=bool)
        for (_, held), elements in zip(members, chosen, strict=True):
            touched |= np.array([bool(set(draw) & set(elements)) for draw in held])
        for other in range(labels):
            changed = np.where(touched, other, answers)
            if np.bincount(changed, minlength=labels).argmax() != label:
                return False
    return True


@st.composite
def ensembles(draw):
    labels, draws = draw(st.integers(2, 4)), draw(st.integers(2, 9))
    members = []
    for _ in range(draw(st.integers(1, 2))):
        n = draw(st.integers(2, 5))
        k = draw(st.integers(1, min(2, n)))
        members.append((n, [draw(st.sampled_from(list(combinations(range(n), k)))) for _ in range(draws)]))
    leader = draw(st.integers(0, labels - 1))
    others = st.one_of(st.just(leader), st.just(leader), st.integers(0, labels - 1))
    return labels, np.array(draw(st.lists(others, min_size=draws, max_size=draws))), members


def tables(answers, members, labels):
    """Degrees, and votes for each label of the draws that hold each element."""
    degrees, held = [], []
    for n, draws in members:
        holds = np.array([[e in draw for e in range(n)] for draw in draws])
        degrees.append(holds.sum(axis=0))
        held.append(np.stack([holds[answers == label].sum(axis=0) for label in range(labels)], axis=-1))
    return degrees, held


@settings(max_examples=150, deadline=None)
@given(ensembles())
def test_no_attack_on_a_certified_ensemble_changes_its_label(case):
    labels, answers, members = case
    votes = np.bincount(answers, minlength=labels)
    degrees, held = tables(answers, members, labels)
    radii = list(product(range(3), repeat=len(members)))
    radii = [r for r in radii if all(r_i <= n for r_i, (n, _) in zip(r, members, strict=True))]
    plain, tight = certify_votes(votes, degrees, radii), certify_votes(votes, degrees, radii, held=held)
    assert plain[0]
    assert tight[0]
    assert (tight >= plain).all()
    for r, one, other in zip(radii, plain, tight, strict=True):
        if one or other:
            assert stands_against_all(answers, members, labels, r, votes.argmax())


@settings(max_examples=100, deadline=None)
@given(st.integers(2, 4), st.integers(1, 6), st.data())
def test_disjoint_draws_are_certified_exactly(labels, draws, data):
    """Where no two draws share an element the bound of the votes is the truth: neither way a vote is lost."""
    answers = np.array(data.draw(st.lists(st.integers(0, labels - 1), min_size=draws, max_size=draws)))
    members = [(2 * draws, [(2 * j, 2 * j + 1) for j in range(draws)])]
    votes = np.bincount(answers, minlength=labels)
    degrees, held = tables(answers, members, labels)
    radii = [(r,) for r in range(draws + 1)]
    tight = certify_votes(votes, degrees, radii, held=held)
    for r, found in zip(radii, tight, strict=True):
        assert found == stands_against_all(answers, members, labels, r, votes.argmax())


@settings(max_examples=80, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=2), st.data())
def test_every_tuple_of_blocks_against_every_attack(blocks, data):
    labels = data.draw(st.integers(2, 3))
    tuples = list(product(*[range(m or 1) for m in blocks]))
    leader = data.draw(st.integers(0, labels - 1))
    vote = st.one_of(st.just(leader), st.just(leader), st.integers(0, labels - 1))
    answers = np.array(data.draw(st.lists(vote, min_size=len(tuples), max_size=len(tuples))))
    # An element per block; one more that nobody holds where a modality is not looked at.
    members = [(m or 1, [(t[i],) if m else () for t in tuples]) for i, m in enumerate(blocks)]
    votes = np.bincount(answers, minlength=labels)
    radii = list(product(range(3), repeat=len(blocks)))
    for r, found in zip(radii, certify_product(votes, blocks, radii), strict=True):
        true = stands_against_all(answers, members, labels, r, votes.argmax())
        assert true or not found
        if len(set(answers.tolist())) == 1:
            assert true == found  # unanimous: the bound is the truth


def test_the_bounds_of_many_elements_are_those_of_each():
    rng = np.random.default_rng(0)
    votes = rng.multinomial(12, [0.7, 0.2, 0.1], size=(4, 5))
    degrees, radii = [np.array([3, 3, 3, 3])], [(0,), (1,), (2,)]
    together = certify_votes(votes, degrees, radii)
    assert together.shape == (3, 4, 5)
    for place in np.ndindex(4, 5):
        assert (together[(slice(None), *place)] == certify_votes(votes[place], degrees, radii)).all()
    blocks = certify_product(votes, (3, 4), [(0, 0), (1, 0)])
    assert blocks.shape == (2, 4, 5)
    held = [rng.multinomial(3, [0.7, 0.2, 0.1], size=(4, 5, 4))]
    held = [np.minimum(held[0], 0) + np.stack([np.full((4, 5, 4), 3), *[np.zeros((4, 5, 4), dtype=int)] * 2], axis=-1)]
    votes[..., 0] = np.maximum(votes[..., 0], 3)
    votes[..., 1] = 12 - votes[..., 0] - np.minimum(votes[..., 2], 12 - votes[..., 0])
    votes[..., 2] = 12 - votes[..., 0] - votes[..., 1]
    assert certify_votes(votes, degrees, radii, held=held).shape == (3, 4, 5)


def test_ties_go_to_the_first_label():
    assert leads(np.array([3, 3, 0])) == 0
    assert leads(np.array([2, 3, 3])) == 0
    assert leads(np.array([2, 4, 2])) == 1  # one vote more turns it to the first label
    assert certify_votes([3, 1], [[1, 1]], [(1,)]).all()  # 2 - 2 is a tie, and it is the first label's
    assert not certify_votes([1, 3], [[1, 1]], [(1,)]).any()
    assert certify_votes(np.array([3, 1], dtype=np.uint64), [[1, 1]], [(1,)]).all()


def test_what_cannot_come_from_a_design_is_refused(unchecked):
    for arguments, message in (
        (([3, 1], [[5, 1]], [(1,)]), "in 0..4, the number of votes, but got 1..5"),
        (([3, 1], [[1.0, 1.0]], [(1,)]), "integers"),
        (([3, 1], [[1, 1]], [(3,)]), "r = 3 of n = 2"),
        (([3, 1], [[1, 1], [2]], [(1,)]), "2 entries in radii"),
        (([3.0, 1.0], [[1, 1]], [(1,)]), "integer type"),
        ((np.array([2**63, 2**63], dtype=np.uint64), [[1, 1]], [(1,)]), "at most 9007199254740992 votes"),
    ):
        with pytest.raises(ValueError, match=message):
            certify_votes(*arguments)
    with pytest.raises(ValueError, match="as many of each element"):
        certify_votes([3, 1], [[1, 1]], [(1,)], held=[np.array([[2, 0], [1, 0]])])
    with pytest.raises(ValueError, match=r"integers \[2, 2\]"):
        certify_votes([3, 1], [[1, 1]], [(1,)], held=[np.array([[1, 0]])])
    with pytest.raises(ValueError, match="all 6 tuples of blocks"):
        certify_product([3, 1], (2, 3), [(1, 1)])
    with pytest.raises(ValueError, match="whole number"):
        certify_product([3, 1], (2, 2.5), [(1, 1)])


@settings(max_examples=50, deadline=None)
@given(ensembles())
def test_more_edits_never_certify_more(case):
    labels, answers, members = case
    degrees, held = tables(answers, members, labels)
    largest = min(n for n, _ in members)
    assume(largest >= 1)
    radii = [(r,) * len(members) for r in range(largest + 1)]
    for found in (
        certify_votes(np.bincount(answers, minlength=labels), degrees, radii),
        certify_votes(np.bincount(answers, minlength=labels), degrees, radii, held=held),
    ):
        assert (np.diff(found.astype(int)) <= 0).all()
