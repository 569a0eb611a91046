"""Figures of a certificate against plain loops."""

import json
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from certify_toys import KEEP, SIZES, SignNet
from hypothesis import given, settings
from hypothesis import strategies as st

from crossguard.certify import JointMargins, Margins, certify, maximal_radii
from crossguard.certify.arguments import KINDS
from crossguard.report import certificate_view


@pytest.fixture
def found(sign_net, sensors):
    return certify(sign_net, sensors, keep=KEEP, draws=500, alpha=0.01, seed=3)


def test_grid_is_accuracy_at_every_radius_vector(found, sensors):
    grid = found.grid({"left": range(4), "right": [0, 2]})
    assert grid.radii == {"left": (0, 1, 2, 3), "right": (0, 2)}
    judged = sensors.labels >= 0
    for (i, r), (j, s) in product(enumerate(grid.radii["left"]), enumerate(grid.radii["right"])):
        radii = {"left": r, "right": s}
        right = found.certified(radii) & (found.labels == sensors.labels)
        assert grid.accuracy[i, j] == found.accuracy(radii) == pytest.approx(right[judged].mean())
    whole = found.grid().accuracy
    assert whole[-1].max() == 0 or len(whole) == SIZES["left"] + 1
    assert (np.diff(whole, axis=0) <= 0).all()
    assert (np.diff(whole, axis=1) <= 0).all()
    assert found.area() == pytest.approx(found.grid({"left": range(7), "right": range(6)}).accuracy.sum())


def test_frontier_is_all_maximal_vectors(found):
    region = {(r, s): found.certified({"left": r, "right": s}) for r in range(7) for s in range(6)}
    for i in range(len(found.labels)):
        inside = {vector for vector, certified in region.items() if certified[i]}
        maximal = [v for v in inside if (v[0] + 1, v[1]) not in inside and (v[0], v[1] + 1) not in inside]
        assert found.frontier(i).tolist() == [list(v) for v in sorted(maximal)]
        assert found.abstained[i] == (not inside)


def test_average_radii(found, sensors):
    judged = np.flatnonzero(sensors.labels >= 0)
    for modality in ("left", "right"):
        reached = [
            max([r for r in range(SIZES[modality] + 1) if found.certified({modality: r})[i]], default=0)
            if found.labels[i] == sensors.labels[i]
            else 0
            for i in judged
        ]
        assert found.radii()[modality] == pytest.approx(np.mean(reached))


def test_three_modalities_have_a_frontier_too(found):
    margins = replace(found.margins, n=(30, 20, 10), k=(2, 2, 2), kind="substitution")
    points = maximal_radii(margins, 0.8)
    assert len(points) > 3
    assert (margins.at(points.tolist()) <= 0.8).all()
    for axis in range(3):
        assert (margins.at((points + np.eye(3, dtype=int)[axis]).tolist()) > 0.8).all()


@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(1, 4), st.sampled_from(KINDS)), min_size=1, max_size=3),
    st.floats(0, 0.999),
    st.sampled_from([Margins, JointMargins]),
)
@settings(max_examples=60, deadline=None)
def test_the_frontier_is_that_of_the_whole_grid(drawn, gap, scheme):
    n, kind = tuple(size for size, _, _ in drawn), tuple(kind for _, _, kind in drawn)
    margins = scheme(n, tuple(min(size, k) for size, k, _ in drawn), kind)
    inside = margins.grid([range(size + 1) for size in n]) <= gap
    beyond = [
        np.roll(np.pad(inside, [(0, 1)] * len(n)), -1, axis)[tuple(slice(s + 1) for s in n)] for axis in range(len(n))
    ]
    assert maximal_radii(margins, gap).tolist() == np.argwhere(inside & ~np.any(beyond, axis=0)).tolist()


def test_the_frontier_of_many_elements_takes_little():
    margins = Margins((465_750, 465_750), (20, 20))
    points = maximal_radii(margins, 0.95)
    assert len(points) > 10_000
    assert (margins.at(points) <= 0.95).all()
    assert (margins.at(points + np.array([0, 1])) > 0.95).all()
    assert (np.diff(points, axis=0) * [1, -1] > 0).all()


def test_rows_and_summary_are_plain_json(found, sensors):
    rows = found.rows()
    assert json.loads(json.dumps(rows)) == rows
    assert len(rows) == len(sensors)
    assert rows[-1]["label"] is None
    assert rows[-1]["right"] is None
    right = [row["right"] for row in rows if row["right"] is not None]
    summary = json.loads(json.dumps(found.summary()))
    assert summary["clean_accuracy"] == pytest.approx(np.mean(right))
    assert summary["abstention"] == np.mean([row["abstained"] for row in rows])
    assert summary["draws"] == 500
    assert "all radius vectors at once" in summary["scope"]


def test_certificates_need_no_labels(unchecked, found, sensors, sign_net):
    blind = certify(sign_net, replace(sensors, labels=np.full(12, -1)), keep=KEEP, draws=500, alpha=0.01, seed=3)
    assert (blind.certified({"left": 1}) == found.certified({"left": 1})).all()
    with pytest.raises(ValueError, match="labels"):
        blind.accuracy()
    joined = blind.judged_by(sensors.labels)
    assert joined.accuracy({"left": 1}) == found.accuracy({"left": 1})
    assert joined.radii() == found.radii()
    with pytest.raises(ValueError, match=r"in \[0, 3\) or -1"):
        blind.judged_by(np.full(12, 3))
    with pytest.raises(ValueError, match="samples"):
        blind.judged_by(sensors.labels[:5])


def test_unknown_modalities_and_wrong_radii_are_refused(found):
    with pytest.raises(ValueError, match="did you mean 'left'"):
        found.accuracy({"lefd": 1})
    with pytest.raises(ValueError, match="r = 7 of n = 6"):
        found.certified({"left": 7})
    with pytest.raises(ValueError, match="Unknown modality 'right'"):
        found.grid({"left": [0]})


def test_answers_that_do_not_depend_on_what_is_kept_are_warned_of(found, sensors):
    assert found.warnings == ()

    class Always(SignNet):
        def forward(self, inputs, kept=None):
            return super().forward(inputs, kept) * 0 + torch.tensor([0.0, 1.0, 0.0])

    stuck = certify(Always(), sensors, keep=KEEP, draws=100)
    assert stuck.warnings == (
        "every sample gets the label 'yes'",
        "answers do not depend on what is kept: every sub-sample of a sample gets the same label",
    )
    assert stuck.summary()["warnings"] == list(stuck.warnings)
    assert "Warning: every sample gets the label 'yes'." in certificate_view(stuck).note
