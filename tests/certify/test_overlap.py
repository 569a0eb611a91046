"""Overlap and worst case against big-integer fractions, and against a linear programme over all base classifiers."""

from fractions import Fraction
from itertools import product
from math import comb, inf, prod

import numpy as np
import pytest
from all_classifiers import before_and_after, blurred, least_lead, least_lead_of, sub_samples
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from crossguard.certify import Edits, Margins, joint_overlap, overlap, worst_case
from crossguard.certify.thresholds import margins_of
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


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_worst_case_with_noise_is_the_optimum_over_base_classifiers_on_a_grid(data):
    size, gone = data.draw(st.integers(2, 4)), data.draw(st.integers(0, 2))
    deleted = data.draw(st.integers(0, gone))
    edit = Edits(substitutions=gone - deleted, insertions=data.draw(st.integers(0, 2)), deletions=deleted)
    k = data.draw(st.integers(1, min(2, size, max(1, edit.size_after(size)))))
    assume(edit.size_after(size) >= k)
    o = overlap(n=(size,), k=(k,), edits=(edit,))
    assume(o.clean > 0)
    shift, p_a = data.draw(st.floats(0.01, 2)), data.draw(st.floats(0.01, 0.99))
    p_b = data.draw(st.floats(0.01, 0.99)) * (1 - p_a)
    low, high = worst_case(p_a, p_b, o, shift=shift)
    before, after = (sub_samples(elements, (k,)) for elements in before_and_after((size,), (edit,)))
    # A grid allows fewer classifiers than the line does, so that its optimum is never below the bound.
    least = least_lead_of(*blurred(before, after, shift, np.linspace(-5, 7, 1201)), p_a, p_b)
    assert low - high - 1e-7 <= least <= low - high + 2e-4


@given(st.floats(1e-6, 1 - 1e-6), st.floats(1e-6, 1), st.floats(1e-3, 5))
def test_noise_alone_is_randomized_smoothing(p_a, share, shift):
    p_b = share * (1 - p_a)
    low, high = worst_case(p_a, p_b, overlap(n=(3,), k=(3,), edits=(Edits(),)), shift=shift)
    assert low == pytest.approx(norm.cdf(norm.ppf(p_a) - shift), rel=1e-8)
    assert high == pytest.approx(norm.cdf(norm.ppf(p_b) + shift), rel=1e-8)
    radius = (norm.ppf(p_a) - norm.ppf(p_b)) / 2  # Cohen et al., theorem 1, in sigmas
    if abs(radius - shift) > 1e-6:
        assert (low > high) == (radius > shift)


@given(settings_of(most=60, modalities=2), st.floats(0, 1), st.floats(0, 1))
def test_a_small_shift_is_nearly_none_and_a_larger_one_is_worse(case, p_a, share):
    n, k, edits = case
    o = overlap(n=n, k=k, edits=edits)
    low, high = np.transpose([worst_case(p_a, share * (1 - p_a), o, shift=s) for s in (0.0, 1e-8, 0.5, 1.0, 20.0)])
    assert (np.diff(low) <= 1e-9).all()
    assert (np.diff(high) >= -1e-9).all()
    if o.clean > 1e-6:
        assert low[1] == pytest.approx(low[0], abs=1e-6)
        assert high[1] == pytest.approx(high[0], abs=1e-6)


def test_noise_takes_arrays_and_refuses_what_is_no_shift(unchecked):
    o = overlap(n=(10,), k=(3,), edits=(Edits(substitutions=1),))
    low, high = worst_case(np.array([0.9, 0.8]), 0.1, o, shift=0.3)
    assert [(low[i], high[i]) for i in range(2)] == [worst_case(p, 0.1, o, shift=0.3) for p in (0.9, 0.8)]
    for shift in (-0.1, inf, float("nan")):
        with pytest.raises(ValueError, match="`shift` finite"):
            worst_case(0.9, 0.1, o, shift=shift)


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
    all_of_them = [overlap(n=(n,), k=(k,), edits=(e,)) for e in splits]
    chosen = overlap(n=(n,), k=(k,), edits=(Elements(r, kind=kind),))
    worst = max(o.margin for o in all_of_them)
    margin = Margins((n,), (k,), kind).at([(r,)])[0]
    if worst < 1 - 1e-12:
        assert chosen.margin == pytest.approx(worst, rel=1e-12)
        assert margin == pytest.approx(worst, rel=1e-11)
    else:
        assert chosen.margin >= 1 - 1e-12
        assert margin >= 1 - 1e-11
    for p_a, p_b, shift in ((0.9, 0.1, 0.0), (0.99, 0.004, 0.3), (1.0, 0.0, 1.0)):
        bounds = [worst_case(p_a, p_b, o, shift=shift) for o in all_of_them]
        low, high = worst_case(p_a, p_b, chosen, shift=shift)
        assert low <= min(a for a, _ in bounds) + 1e-9
        assert high >= max(b for _, b in bounds) - 1e-9


@settings(deadline=None, max_examples=60)
@given(
    st.tuples(st.integers(2, 12), st.integers(2, 12)),
    st.tuples(st.integers(0, 5), st.integers(0, 5)),
    st.tuples(st.integers(0, 4), st.integers(0, 4)),
    st.booleans(),
)
def test_edits_of_several_modalities_are_worst_as_substitutions(n, k, r, joint):
    k, r = (tuple(min(a, b) for a, b in zip(part, n, strict=True)) for part in (k, r))
    ask, kept = (joint_overlap, sum(k)) if joint else (overlap, k)
    splits = [
        [
            Edits(substitutions=m, insertions=s, deletions=most - m - s)
            for m in range(most + 1)
            for s in range(most + 1 - m)
        ]
        for most in r
    ]
    worst = max(ask(n=n, k=kept, edits=pair).margin for pair in product(*splits))
    margin = margins_of("joint" if joint else "independent", n, k, "edit").at([r])[0]
    assert margin == pytest.approx(worst, rel=1e-11) if worst < 1 - 1e-11 else margin >= 1 - 1e-10


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
