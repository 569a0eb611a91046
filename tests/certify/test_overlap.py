"""Overlap and worst case against big-integer fractions, and against a linear programme over all base classifiers."""

from fractions import Fraction
from itertools import product
from math import comb, inf, prod

import numpy as np
import pytest
from all_classifiers import before_and_after, least_lead, sub_samples
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from crossguard.certify import Edits, Margins, joint_overlap, overlap, worst_case
from crossguard.threat import Elements

TIGHT = Fraction(1, 10**11)


def exact(n, k, edits):
    """a, b and rho as fractions."""
    a = prod(Fraction(comb(e.common(s), kept), comb(s, kept)) for s, kept, e in zip(n, k, edits, strict=True))
    if a == 0:
        return a, Fraction(0), Fraction(0)
    b = prod(
        Fraction(comb(e.common(s), kept), comb(e.size_after(s), kept)) for s, kept, e in zip(n, k, edits, strict=True)
    )
    return a, b, b / a


@st.composite
def settings_of(draw, most=300, modalities=3):
    n, k, edits = [], [], []
    for _ in range(draw(st.integers(1, modalities))):
        size = draw(st.integers(1, most))
        gone = draw(st.integers(0, min(size, 12)))
        deleted = draw(st.integers(0, gone))
        n.append(size)
        k.append(draw(st.integers(0, size)))
        edits.append(Edits(substitutions=gone - deleted, insertions=draw(st.integers(0, 12)), deletions=deleted))
    return tuple(n), tuple(k), tuple(edits)


def close(value, truth):
    return abs(Fraction(value) - truth) <= TIGHT * abs(truth)


@settings(deadline=None)
@given(settings_of())
def test_equals_fractions_and_is_rounded_outward(case):
    n, k, edits = case
    a, b, rho = exact(n, k, edits)
    o = overlap(n=n, k=k, edits=edits)
    assert Fraction(o.clean) <= a
    assert Fraction(o.attacked) <= b
    assert Fraction(o.clean_complement) >= 1 - a
    assert close(o.clean, a)
    assert close(o.attacked, b)
    assert close(o.ratio, rho)
    assert close(o.clean_complement, 1 - a)
    if a:
        assert Fraction(o.attacked_complement) >= 1 - b
        assert close(o.attacked_complement, 1 - b)
        assert Fraction(o.ratio_low) <= rho <= Fraction(o.ratio_high)
        margin = 1 + 1 / rho - 2 * a
        assert margin <= Fraction(o.margin) <= margin + TIGHT * (1 / rho + 1)
    else:
        assert o.margin == inf


@pytest.mark.parametrize(("n", "k"), [(10**7, 10**4), (10**7, 1), (10**7, 10**7 - 1), (10**7, 5 * 10**6)])
@pytest.mark.parametrize("r", [1, 2, 7])
def test_large_inputs_keep_a_small_complement(n, k, r):
    a = prod(Fraction(n - k - j, n - j) for j in range(r))
    o = overlap(n=(n,), k=(k,), edits=(Edits(substitutions=r),))
    assert 1 - a <= Fraction(o.clean_complement) <= (1 - a) * (1 + TIGHT)
    margin = Margins((n,), (k,)).at([(r,)])[0]
    if 2 * (1 - a) < 1:
        assert 2 * (1 - a) <= Fraction(float(margin)) <= 2 * (1 - a) * (1 + TIGHT)


def test_many_edits_of_a_large_input_are_quick_and_right():
    o = overlap(n=(10**7,), k=(10,), edits=(Edits(substitutions=4 * 10**6),))
    a = prod(Fraction(6 * 10**6 - j, 10**7 - j) for j in range(10))
    assert close(o.clean, a)
    assert Margins((10**7,), (10**4,)).at([(5 * 10**6,)]) == 2.0


def test_a_tiny_complement_is_not_lost_in_the_worst_case():
    o = overlap(n=(10**12,), k=(1,), edits=(Edits(substitutions=1),))
    assert o.clean_complement == pytest.approx(1e-12, rel=1e-9)
    low, high = worst_case(0.5 + 2e-12, 0.5 - 2e-12, o)
    assert low > high
    low, high = worst_case(0.5 + 0.9e-12, 0.5 - 0.9e-12, o)
    assert low < high


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_worst_case_is_the_optimum_over_all_base_classifiers(data):
    n, k, edits = [], [], []
    for _ in range(data.draw(st.integers(1, 2))):
        size = data.draw(st.integers(2, 4))
        gone = data.draw(st.integers(0, 2))
        deleted = data.draw(st.integers(0, gone))
        edit = Edits(substitutions=gone - deleted, insertions=data.draw(st.integers(0, 2)), deletions=deleted)
        n.append(size)
        edits.append(edit)
        k.append(data.draw(st.integers(1, min(2, size, max(1, edit.size_after(size))))))
    assume(all(e.size_after(s) >= kept for s, kept, e in zip(n, k, edits, strict=True)))
    p_a = data.draw(st.floats(0, 1))
    p_b = data.draw(st.floats(0, 1)) * (1 - p_a)
    o = overlap(n=n, k=k, edits=edits)
    assume(o.clean > 0)
    low, high = worst_case(p_a, p_b, o)
    before, after = (sub_samples(elements, k) for elements in before_and_after(n, edits))
    assert low - high == pytest.approx(least_lead(before, after, p_a, p_b), abs=1e-7)
    if abs(p_a - p_b - o.margin) > 1e-9:
        assert (low > high) == (p_a - p_b > o.margin)


@settings(deadline=None)
@given(settings_of(most=60, modalities=2), st.floats(0, 1), st.floats(0, 1))
def test_margin_and_worst_case_agree(case, p_a, share):
    n, k, edits = case
    p_b = share * (1 - p_a)
    o = overlap(n=n, k=k, edits=edits)
    low, high = worst_case(p_a, p_b, o)
    if abs(p_a - p_b - o.margin) > 1e-9:
        assert (low > high) == (p_a - p_b > o.margin)


def test_arrays_in_arrays_out():
    o = overlap(n=(10,), k=(3,), edits=(Edits(substitutions=1),))
    p_a, p_b = np.array([0.9, 0.6]), np.array([0.1, 0.4])
    low, high = worst_case(p_a, p_b, o)
    assert [worst_case(float(a), float(b), o) for a, b in zip(p_a, p_b, strict=True)] == list(
        zip(low, high, strict=True)
    )


@settings(deadline=None)
@given(st.integers(2, 40), st.integers(0, 40), st.integers(0, 6), st.sampled_from(["substitution", "deletion", "edit"]))
def test_a_budget_stands_for_its_worst_split(n, k, r, kind):
    k, r = min(k, n), min(r, n)
    splits = {
        "substitution": [Edits(substitutions=m) for m in range(r + 1)],
        "deletion": [Edits(deletions=d) for d in range(r + 1)],
        "edit": [
            Edits(substitutions=m, insertions=s, deletions=d)
            for m in range(r + 1)
            for s in range(r + 1 - m)
            for d in range(r + 1 - m - s)
        ],
    }[kind]
    worst = max(overlap(n=(n,), k=(k,), edits=(e,)).margin for e in splits)
    assert overlap(n=(n,), k=(k,), edits=(Elements(r, kind=kind),)).margin == pytest.approx(worst, rel=1e-12)
    margin = Margins((n,), (k,), kind).at([(r,)])[0]
    assert margin == pytest.approx(worst, rel=1e-11) if worst < 1 else margin == 2


@settings(deadline=None, max_examples=50)
@given(
    st.tuples(st.integers(3, 30), st.integers(3, 30)),
    st.tuples(st.integers(0, 5), st.integers(0, 5)),
    st.tuples(*[st.sampled_from(["substitution", "insertion", "deletion", "edit"])] * 2),
)
def test_a_grid_is_every_radius_vector_and_grows(n, k, kinds):
    k = tuple(min(a, b) for a, b in zip(k, n, strict=True))
    grid = Margins(n, k, kinds).grid([range(4), range(3)])
    for r, s in product(range(4), range(3)):
        one = overlap(n=n, k=k, edits=(Elements(r, kind=kinds[0]), Elements(s, kind=kinds[1]))).margin
        assert grid[r, s] == pytest.approx(one, rel=1e-11, abs=1e-15) if one < 1 - 1e-12 else grid[r, s] >= 1 - 1e-12
    assert (np.diff(grid, axis=0) >= -1e-15).all()
    assert (np.diff(grid, axis=1) >= -1e-15).all()


@settings(deadline=None)
@given(st.integers(1, 200), st.integers(0, 200), st.sampled_from(["substitution", "insertion", "deletion", "edit"]))
def test_reach_is_the_last_radius_within_a_gap(n, k, kind):
    margins = Margins((n,), (min(k, n),), kind)
    for gap in (0.0, 0.3, 0.99):
        (r,) = margins.reach(gap)
        assert margins.at([(r,)])[0] <= gap
        assert r == n or margins.at([(r + 1,)])[0] > gap
    assert margins.reach(-0.1) == (-1,)


@settings(deadline=None)
@given(settings_of(most=40, modalities=3))
def test_joint_baseline_pools_all_elements(case):
    n, _, edits = case
    k = sum(n) // 2
    total = Edits(
        substitutions=sum(e.substitutions for e in edits),
        insertions=sum(e.insertions for e in edits),
        deletions=sum(e.deletions for e in edits),
    )
    o = joint_overlap(n=n, k=k, edits=edits)
    a = Fraction(comb(total.common(sum(n)), k), comb(sum(n), k))
    assert close(o.clean, a)
    assert o.edits == (total,)


def test_nothing_edited_is_exactly_nothing():
    o = overlap(n=(7, 9), k=(2, 9), edits=(Edits(), Edits()))
    assert (o.clean, o.attacked, o.ratio, o.margin, o.clean_complement) == (1.0, 1.0, 1.0, 0.0, 0.0)
    assert worst_case(0.7, 0.3, o) == (0.7, 0.3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": (5,), "k": (6,), "edits": (Edits(),)}, "k = 6 kept of n = 5"),
        ({"n": (5,), "k": (2,), "edits": (Edits(substitutions=3, deletions=3),)}, "at most n = 5"),
        ({"n": (5,), "k": (2, 3), "edits": (Edits(),)}, "one entry per modality"),
        ({"n": (5,), "k": (2,), "edits": ()}, "one entry per modality"),
        ({"n": (), "k": (), "edits": ()}, "at least one modality"),
        ({"n": (0,), "k": (0,), "edits": (Edits(),)}, ">= 1"),
        ({"n": (5.5,), "k": (2,), "edits": (Edits(),)}, "whole number"),
    ],
)
def test_wrong_arguments_are_refused(unchecked, arguments, message):
    with pytest.raises(ValueError, match=message):
        overlap(**arguments)


def test_wrong_edits_and_probabilities_are_refused(unchecked):
    with pytest.raises(ValueError, match="insertions"):
        Edits(insertions=-1)
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        worst_case(1.2, 0.0, overlap(n=(5,), k=(2,), edits=(Edits(),)))
    with pytest.raises(ValueError, match="did you mean 'edit'"):
        Margins((5,), (2,), "edits")
    with pytest.raises(ValueError, match="r = 6 of n = 5"):
        Margins((5,), (2,)).at([(6,)])
