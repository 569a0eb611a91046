"""The baseline, joint sub-sampling: right by brute force, drawn and counted apart from the certificate it is held against."""

from itertools import combinations, product

import numpy as np
import pytest
from all_classifiers import before_and_after, joint_sub_samples, least_lead
from certify_toys import KEEP, SIZES, SignNet, attacked
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from test_segment import TwoRegions, samples  # noqa: F401  (a fixture)

from crossguard.certify import (
    Counts,
    Edits,
    JointMargins,
    Margins,
    certify,
    certify_counts,
    certify_early,
    certify_segmentation,
    joint_overlap,
    preflight,
    worst_case,
)
from crossguard.threat import Elements

KINDS = ["substitution", "insertion", "deletion", "edit"]


def splits(r, kind):
    """All ways to spend at most r edits of a kind."""
    if kind != "edit":
        return [Edits(**{f"{kind}s": m}) for m in range(r + 1)]
    counts = product(range(r + 1), repeat=3)
    return [Edits(substitutions=m, insertions=s, deletions=d) for m, s, d in counts if m + s + d <= r]


@settings(max_examples=12)
@given(st.lists(st.tuples(st.integers(3, 12), st.integers(1, 3), st.sampled_from(KINDS)), min_size=1, max_size=2))
def test_margins_are_those_of_the_worst_split(modalities):
    n, k, kinds = zip(*modalities, strict=True)
    axes = [range(3)] * len(n)
    grid = JointMargins(n, k, kinds).grid(axes)
    for radii in product(*axes):
        worst = max(
            joint_overlap(n=n, k=sum(k), edits=edits).margin
            for edits in product(*[splits(r, kind) for r, kind in zip(radii, kinds, strict=True)])
        )
        budgets = [Elements(r, kind=kind) for r, kind in zip(radii, kinds, strict=True)]
        budgeted = joint_overlap(n=n, k=sum(k), edits=budgets).margin
        if worst < 1 - 1e-12:
            assert grid[radii] == pytest.approx(worst, rel=1e-11, abs=1e-15)
            assert budgeted == pytest.approx(worst, rel=1e-12)
        else:  # no votes certify against a margin of 1 or more, however large it is
            assert grid[radii] >= 1
            assert budgeted >= 1 - 1e-12
    for axis in range(len(n)):
        assert (np.diff(grid, axis=axis) >= -1e-15).all()


@settings(max_examples=40)
@given(st.data())
def test_worst_case_is_the_optimum_over_all_base_classifiers(data):
    n, edits = [], []
    for _ in range(2):
        size = data.draw(st.integers(1, 3))
        gone = data.draw(st.integers(0, min(2, size)))
        deleted = data.draw(st.integers(0, gone))
        n.append(size)
        edits.append(Edits(substitutions=gone - deleted, insertions=data.draw(st.integers(0, 1)), deletions=deleted))
    k = data.draw(st.integers(1, 3))
    assume(k <= min(sum(n), sum(e.size_after(s) for s, e in zip(n, edits, strict=True))))
    o = joint_overlap(n=n, k=k, edits=edits)
    assume(o.clean > 0)
    p_a = data.draw(st.floats(0, 1))
    p_b = data.draw(st.floats(0, 1)) * (1 - p_a)
    before, after = (joint_sub_samples(elements, k) for elements in before_and_after(n, edits))
    low, high = worst_case(p_a, p_b, o)
    assert low - high == pytest.approx(least_lead(before, after, p_a, p_b), abs=1e-7)


def smoothed(left, right, k=3):
    """Exact probability of "yes" over all joint sub-samples of two vectors."""
    together = np.concatenate([left, right])
    return np.mean([together[list(chosen)].sum() > 0 for chosen in combinations(range(len(together)), k)])


def test_votes_estimate_the_exact_probabilities(sign_net, sensors):
    found = certify(sign_net, sensors, keep=KEEP, draws=4000, alpha=0.01, scheme="joint", seed=0)
    assert found.scheme == found.summary()["scheme"] == "joint"
    for i in range(len(sensors)):
        exact = smoothed(sensors.modalities["left"][i, :, 0], sensors.modalities["right"][i, :, 0])
        assert found.counts.votes[i, 1] / 4000 == pytest.approx(exact, abs=5 * 0.5 / 4000**0.5)


def test_no_attack_within_certified_radii_changes_the_smoothed_label(sign_net, sensors):
    found = certify(sign_net, sensors, keep=KEEP, draws=20_000, alpha=0.01, scheme="joint", seed=0)
    tried = 0
    for i in range(len(sensors)):
        left, right = (sensors.modalities[m][i, :, 0] for m in ("left", "right"))
        for r, s in found.frontier(i).tolist():
            for one, other in product(attacked(left, r), attacked(right, s)):
                assert (smoothed(one, other) > 0.5) == (found.labels[i] == 1)
                tried += r + s > 0
    assert tried > 50


def test_both_schemes_run_side_by_side_in_one_folder(sign_net, sensors, tmp_path):
    options = {"keep": KEEP, "draws": 400, "alpha": 0.01, "folder": tmp_path, "seed": 0}
    ours = certify(sign_net, sensors, selection_draws=20, **options)
    baseline = certify(sign_net, sensors, selection_draws=20, scheme="joint", **options)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "selection-joint.npz",
        "selection.npz",
        "votes-joint.npz",
        "votes.npz",
    ]
    assert type(ours) is type(baseline)
    assert isinstance(ours.margins, Margins)
    assert isinstance(baseline.margins, JointMargins)
    assert (ours.counts.votes != baseline.counts.votes).any()
    axes = {"left": range(3), "right": range(3)}
    assert ours.grid(axes).accuracy.shape == baseline.grid(axes).accuracy.shape == (3, 3)
    for i in range(len(sensors)):  # what is certified is what `certify_counts` makes of the same votes
        again = certify_counts(
            baseline.counts.votes[i],
            n=tuple(SIZES.values()),
            k=tuple(KEEP.values()),
            radii=list(product(range(3), repeat=2)),
            alpha=baseline.level,
            scheme="joint",
            correction="bonferroni",
            selection=baseline.selection.votes[i],
        )
        by_radii = [baseline.certified({"left": r, "right": s})[i] for r, s in product(range(3), repeat=2)]
        assert again.certified.tolist() == by_radii
    with pytest.raises(ValueError, match="same `scheme`"):
        ours.counts + baseline.counts
    (tmp_path / "votes-joint.npz").replace(tmp_path / "votes.npz")
    with pytest.raises(ValueError, match="same `scheme`"):
        certify(sign_net, sensors, **options)
    assert Counts.load(tmp_path / "votes.npz").scheme == "joint"


def test_early_stopping_of_the_baseline_agrees_with_all_draws(sign_net, sensors):
    options = {"keep": KEEP, "draws": 3000, "alpha": 0.01, "scheme": "joint", "seed": 0}
    early = certify_early(sign_net, sensors, radii={"left": 1}, **options)
    full = certify(sign_net, sensors, **options)
    assert (early.certified <= full.certified({"left": 1})).all()
    assert early.saved > 0


def test_segmentations_have_the_baseline_too(samples, tmp_path):  # noqa: F811
    options = {"keep": {"image": 3, "depth": 3}, "draws": 600, "alpha": 0.01, "folder": tmp_path, "seed": 0}
    ours = certify_segmentation(TwoRegions(), samples, batch_size=400, **options)
    baseline = certify_segmentation(TwoRegions(), samples, batch_size=37, scheme="joint", **options)
    assert (baseline.scheme, ours.scheme) == ("joint", "independent")
    assert len(list(tmp_path.iterdir())) == 2 * len(samples)
    image = samples.modalities["image"][0, 0].ravel()
    others = range(6, 12)
    exact = np.mean(
        [sum(image[i] for i in z if i < 6) > 0 for z in combinations([*range(6), *others], 6)]
    )  # of the left column
    assert baseline.counts[0].votes[0, 0, 1] / 600 == pytest.approx(exact, abs=5 * 0.5 / 600**0.5)
    radii = [{"image": 1}]
    again = certify_counts(
        baseline.counts[0].votes, n=(6, 6), k=(3, 3), radii=[(1, 0)], alpha=baseline.level(0), scheme="joint"
    )
    assert (baseline.image(0, radii).certified == again.certified).all()


def test_preflight_and_unknown_schemes(unchecked, sign_net, sensors):
    joint = preflight(n=(100, 20), k=(5, 5), draws=1000, alpha=0.001, scheme="joint")
    apart = preflight(n=(100, 20), k=(5, 5), draws=1000, alpha=0.001)
    assert joint.reach[0] == joint.reach[1]  # an edit costs the same everywhere
    assert apart.reach[0] > joint.reach[0] > apart.reach[1]
    with pytest.raises(ValueError, match="did you mean 'joint'"):
        certify(sign_net, sensors, keep=KEEP, scheme="joined")
    with pytest.raises(ValueError, match="did you mean 'joint'"):
        preflight(n=(9,), k=(3,), draws=100, alpha=0.01, scheme="joints")
    assert sign_net.calls == 0


def test_a_model_must_stand_a_modality_of_which_nothing_is_kept(sensors):
    """Joint draws keep any split of k, none of a modality included."""
    seen = set()

    class Counting(SignNet):
        def forward(self, inputs, kept=None):
            seen.update(kept["right"].sum(dim=1).tolist())
            assert (kept["left"].sum(dim=1) + kept["right"].sum(dim=1) == 3).all()
            return super().forward(inputs, kept)

    certify(Counting(), sensors, keep=KEEP, draws=400, alpha=0.01, scheme="joint", seed=0)
    assert seen == {0, 1, 2, 3}
