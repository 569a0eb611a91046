"""`certify_counts`: the reach that is known, invariants, and clear refusals."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossguard.certify import Margins, certify_counts
from crossguard.certify.bounds import p_value_table

KITTI = {"n": (465_750, 465_750), "k": (8988, 996), "alpha": 0.001}


@pytest.mark.parametrize(("draws", "reach"), [(100, 16), (200, 21), (500, 25), (1000, 27), (10_000, 28)])
@pytest.mark.parametrize("correction", ["holm", "bonferroni"])
def test_reach_of_unanimous_votes_on_kitti_road(draws, reach, correction):
    counts = np.zeros((465_750, 2), dtype=np.int64)
    counts[:, 0] = draws
    c = certify_counts(counts, radii=[(r, 2 * r) for r in range(reach + 3)], correction=correction, **KITTI)
    assert c.certified.all(axis=1).tolist() == [True] * (reach + 1) + [False, False]
    assert (c.certified.any(axis=1) == c.certified.all(axis=1)).all()


def test_a_classification_is_a_family_of_one():
    c = certify_counts(np.array([3, 990, 7]), n=(128,), k=(5,), radii=[(0,), (3,), (60,)], alpha=0.001)
    assert c.label.shape == ()
    assert (int(c.label), int(c.votes), c.draws) == (1, 990, 1000)
    assert c.certified.tolist() == [True, True, False]


@settings(deadline=None)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=30), st.randoms(use_true_random=False))
def test_invariants(first, random):
    counts = np.array([(c, 40 - c) for c in first])
    arguments = {"n": (50, 30), "k": (4, 2), "radii": [(0, 0), (1, 0), (1, 1), (2, 3)], "alpha": 0.05}
    by_holm = certify_counts(counts, **arguments)
    at_once = certify_counts(counts, correction="bonferroni", **arguments)
    order = list(range(len(first)))
    random.shuffle(order)
    shuffled = certify_counts(counts[order], **arguments)
    assert (shuffled.certified == by_holm.certified[:, order]).all()
    assert (at_once.certified <= by_holm.certified).all()  # paying for all radii at once never certifies more
    for certified in (by_holm.certified, at_once.certified):
        assert (np.diff(certified.astype(int), axis=0) <= 0).all()  # larger radii, fewer certificates
        for j in range(len(certified)):  # ties together, and more votes never certify less
            votes = by_holm.votes
            if certified[j].any():
                assert certified[j][votes >= votes[certified[j]].min()].all()
    assert (by_holm.label == counts.argmax(axis=1)).all()
    swapped = certify_counts(counts[:, ::-1], **arguments)
    assert (swapped.certified == by_holm.certified).all()


@pytest.mark.parametrize("draws", [10, 11, 100, 182, 1000, 10**4, 10**5, 10**6])
@pytest.mark.parametrize("correction", ["holm", "bonferroni"])
@pytest.mark.parametrize("scheme", ["independent", "joint"])
def test_unanimous_votes_stay_certifiable(draws, correction, scheme):
    counts = np.zeros((5, 3), dtype=np.int64)
    counts[:, 1] = draws
    c = certify_counts(counts, n=(20, 9), k=(2, 1), radii=[(0, 0)], alpha=0.05, correction=correction, scheme=scheme)
    assert c.certified.all()
    assert (c.label == 1).all()


@given(st.lists(st.integers(0, 60), min_size=1, max_size=40), st.sampled_from(["holm", "bonferroni"]))
def test_nothing_is_certified_when_the_best_element_does_not_pass(first, correction):
    counts = np.array([(c, 60 - c) for c in first])
    arguments = {"n": (50,), "k": (4,), "radii": [(1,)], "alpha": 0.01}
    best = np.exp(p_value_table(60, 0.5 + Margins((50,), (4,)).at([(1,)])[0] / 2))[counts.max()]
    certified = certify_counts(counts, correction=correction, **arguments).certified
    if best > 0.01 / len(first):
        assert not certified.any()
    elif correction == "holm":
        assert certified[0, counts.max(axis=1).argmax()]


def test_one_element_is_a_plain_test():
    threshold = 0.5 + Margins((50,), (4,)).at([(1,)])[0] / 2
    passing = p_value_table(60, threshold) <= np.log(0.01)
    for votes in range(31, 61):
        for shape in ((2,), (1, 2), (1, 1, 2)):
            counts = np.array([votes, 60 - votes]).reshape(shape)
            c = certify_counts(counts, n=(50,), k=(4,), radii=[(1,)], alpha=0.01)
            assert c.certified.shape == (1, *shape[:-1])
            assert bool(c.certified.all()) == passing[votes]


def test_ties_at_half_are_not_certified():
    c = certify_counts(np.full((4, 2), 500), n=(9,), k=(2,), radii=[(0,)], alpha=0.4)
    assert not c.certified.any()
    assert c.label.tolist() == [0] * 4


def test_segmentation_keeps_its_shape():
    rng = np.random.default_rng(0)
    first = rng.integers(0, 101, size=(6, 7))
    counts = np.stack([first, 100 - first, 0 * first], axis=-1)
    c = certify_counts(counts, n=(42,), k=(3,), radii=[(0,), (1,)], alpha=0.01)
    assert c.certified.shape == (2, 6, 7)
    assert (c.label == counts.argmax(axis=-1)).all()
    flat = certify_counts(counts.reshape(42, 3), n=(42,), k=(3,), radii=[(0,), (1,)], alpha=0.01)
    assert (flat.certified.reshape(2, 6, 7) == c.certified).all()


def test_separate_selection_names_the_label_and_needs_no_correction():
    counts, selection = np.array([9, 0]), np.array([4, 0])
    arguments = {"n": (9,), "k": (2,), "radii": [(0,)], "alpha": 0.002}
    assert not certify_counts(counts, **arguments).certified[0]  # 2 / 2^9 > 0.002
    assert certify_counts(counts, selection=selection, **arguments).certified[0]  # 1 / 2^9 < 0.002
    against = certify_counts(counts, selection=selection[::-1].copy(), **arguments)
    assert int(against.label) == 1
    assert int(against.votes) == 0
    assert not against.certified[0]


def test_kinds_of_edit_differ():
    def reach(kind):
        c = certify_counts([1000, 0], n=(60,), k=(5,), radii=[(r,) for r in range(30)], alpha=0.001, kind=kind)
        return int(c.certified.sum()) - 1

    assert reach("edit") <= min(reach("substitution"), reach("insertion"), reach("deletion"))
    assert reach("deletion") > reach("substitution")
    mixed = certify_counts(
        [1000, 0], n=(60, 60), k=(5, 5), radii=[(2, 2)], alpha=0.001, kind=("substitution", "deletion")
    )
    assert mixed.certified[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"k": (10,)}, "k = 10 kept of n = 9"),
        ({"radii": [(10,)]}, "r = 10 of n = 9"),
        ({"radii": [(1, 1)]}, "1 entries in radii"),
        ({"radii": []}, "at least one radius"),
        ({"radii": [(-1,)]}, "whole number >= 0"),
        ({"radii": [(1.5,)]}, "whole number >= 0"),
        ({"counts": [[5, -1], [4, 0]]}, ">= 0, but got -1"),
        ({"counts": [[5, 1], [4, 0]]}, r"same number of votes N .* 4\.\.6"),
        ({"counts": [[5.0, 1.0]]}, "of an integer type"),
        ({"counts": [[5.5, 1.0]]}, "of an integer type"),
        ({"counts": [[0, 0]]}, "at least one vote"),
        ({"counts": [[5]]}, "at least 2 labels"),
        ({"counts": np.zeros((0, 2), dtype=int)}, "at least 2 labels"),
        ({"alpha": 0.0}, "alpha"),
        ({"alpha": 1.0}, "alpha"),
        ({"kind": "insertions"}, "did you mean 'insertion'"),
        ({"kind": ("edit", "edit")}, "one entry per modality"),
        ({"correction": "holms"}, "did you mean 'holm'"),
        ({"selection": [[1, 1, 1]]}, "as `counts`"),
        ({"selection": [[1.0, 2.0]]}, "`selection` of an integer type"),
        ({"scheme": "jointly"}, "did you mean 'joint'"),
        ({"counts": [], "radii": [(0,)]}, "at least 2 labels"),
    ],
)
def test_wrong_arguments_are_refused(unchecked, changes, message):
    arguments = {"counts": [[5, 1]], "n": (9,), "k": (2,), "radii": [(0,)], "alpha": 0.01} | changes
    with pytest.raises(ValueError, match=message):
        certify_counts(arguments.pop("counts"), **arguments)


def test_the_mathematics_loads_without_torch():
    code = (
        "from crossguard.certify import Edits, certify_counts, overlap, preflight, worst_case; import sys;"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
