"""Samples: wrong lengths, values and labels are refused; selections keep rows together."""

import numpy as np
import pytest

from crossguard.data import MultiModalSamples


def samples(**changes):
    values = {
        "name": "toy",
        "split": "test",
        "modalities": {"a": np.arange(12.0).reshape(3, 4, 1), "b": np.zeros((3, 2, 2))},
        "labels": np.array([0, 1, 1]),
        "classes": ("x", "y"),
        "groups": np.array([5, 5, 6]),
    }
    return MultiModalSamples(**{**values, **changes})


def test_selection_keeps_rows_together():
    part = samples().select([2, 0])
    assert part.modalities["a"][:, 0, 0].tolist() == [8.0, 0.0]
    assert (part.labels.tolist(), part.groups.tolist()) == ([1, 0], [6, 5])
    assert len(samples().head(2)) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"modalities": {}}, "at least one modality"),
        ({"modalities": {"a": np.zeros((2, 4))}}, "Expected 3 samples of 'a'"),
        ({"modalities": {"a": np.full((3, 4), np.nan)}}, "NaN or infinity"),
        ({"modalities": {"a": np.zeros((3, 0))}}, "to have elements"),
        ({"labels": np.array([0, 1, 2])}, r"labels in \[0, 2\)"),
        ({"groups": np.array([1])}, "3 groups"),
    ],
)
def test_wrong_samples_are_refused(changes, message, unchecked):
    with pytest.raises(ValueError, match=message):
        samples(**changes)
