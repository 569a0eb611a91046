"""Accuracy on whole inputs equals a loop over samples, for labels and for masks."""

import numpy as np
import pytest
import torch
from torch import nn

from crossguard.data import MultiModalSamples
from crossguard.evaluate import label_accuracy

CLASSES = ("low", "high")


class Above(nn.Module):
    """Answers "high" where the sum of both modalities is above 0, of a sample or of each pixel."""

    name, modalities, classes = "above", ("a", "b"), CLASSES

    def forward(self, inputs, kept=None):
        assert kept is None
        assert len(inputs["a"]) <= 4
        score = (inputs["a"] + inputs["b"]).sum(dim=1)
        return torch.stack([-score, score], dim=1)


@pytest.mark.parametrize("shape", [(11,), (11, 2, 3)])
def test_it_equals_a_loop(shape):
    rng = np.random.default_rng(0)
    values = {m: rng.normal(size=(11, 1, *shape[1:])).astype(np.float32) for m in "ab"}
    labels = rng.integers(-1, 2, size=shape)
    samples = MultiModalSamples("toy", "test", values, labels, CLASSES, np.arange(11))
    total = sum(values.values()).sum(axis=1)
    hits = [(value > 0) == label for value, label in zip(total.ravel(), labels.ravel(), strict=True) if label >= 0]
    assert label_accuracy(Above(), samples, batch_size=4) == pytest.approx(np.mean(hits))


def test_nothing_to_judge_and_other_classes_are_refused():
    values = {m: np.ones((2, 1), dtype=np.float32) for m in "ab"}
    unjudged = MultiModalSamples("toy", "test", values, np.array([-1, -1]), CLASSES, np.arange(2))
    with pytest.raises(ValueError, match="all are -1"):
        label_accuracy(Above(), unjudged)
    others = MultiModalSamples("toy", "test", values, np.array([0, 1]), ("x", "y"), np.arange(2))
    with pytest.raises(ValueError, match="classes"):
        label_accuracy(Above(), others)
