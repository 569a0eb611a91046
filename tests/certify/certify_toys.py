"""A small classifier of two sensors whose smoothed labels can be computed exactly, and samples for it."""

from contextlib import contextmanager
from itertools import combinations, product

import numpy as np
import torch
from torch import nn

from crossguard.progress import Silent

SIZES, KEEP = {"left": 6, "right": 5}, {"left": 1, "right": 2}
PROBING = 8
"""Calls by which a model is told from others where counts are kept: four inputs, twice."""
ALONE = 3
"""Calls by which a model is seen to answer to each sub-sample for itself, before anything is drawn."""


class SignNet(nn.Module):
    """Answers 1 if the kept values of both sensors add up to more than 0; a weight makes it a module with a state."""

    def __init__(self, threshold: float = 0.0):
        super().__init__()
        self.name = "sign-net"
        self.modalities = ("left", "right")
        self.classes = ("no", "yes", "never")
        self.threshold = nn.Parameter(torch.tensor(threshold))
        self._calls = 0

    @property
    def calls(self):
        """How often it was asked: state, no setting, and so kept in private."""
        return self._calls

    def forward(self, inputs, kept=None):
        assert not self.training
        assert not torch.is_grad_enabled()
        self._calls += 1
        total = sum((inputs[m][..., 0] * kept[m]).sum(dim=1) for m in self.modalities)
        score = total - self.threshold
        return torch.stack([-score, score, torch.full_like(score, -99.0)], dim=1)


class Interrupting(Silent):
    """Progress that ends a call, as Ctrl-C would, after so many steps that it is told of."""

    def __init__(self, steps):
        self.left = steps

    @contextmanager
    def task(self, title, *, total, done=0):
        yield self

    def advance(self, steps=1, *, note=""):
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt


def smoothed(left, right):
    """Exact probability of "yes" over all sub-samples of two vectors."""
    values = (left, right)
    sums = [
        [sum(side[list(chosen)]) for chosen in combinations(range(len(side)), k)]
        for side, k in zip(values, KEEP.values(), strict=True)
    ]
    return np.mean([a + b > 0 for a, b in product(*sums)])


def attacked(vector, r):
    """All vectors that differ from one in at most r places, with worst values."""
    for places in combinations(range(len(vector)), r):
        for values in product((-9.0, 9.0), repeat=r):
            other = vector.copy()
            other[list(places)] = values
            yield other
