"""An exponential moving average of the trained weights (Polyak and Juditsky, 1992)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Average:
    """A running mean of weights that forgets: average <- d * average + (1 - d) * weights.

    The decay d rises to its full value as (1 + t) / (10 + t), so that the first steps, far from the end, are soon
    forgotten.

    Args:
        parameters: what is trained.
        decay: in (0, 1); near 1 for a long memory.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], *, decay: float) -> None:
        self._parameters, self._decay = list(parameters), decay
        self.tensors = [parameter.detach().clone() for parameter in parameters]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after step `step` (from 0)."""
        decay = min(self._decay, (1 + step) / (10 + step))
        for average, parameter in zip(self.tensors, self._parameters, strict=True):
            average.lerp_(parameter, 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange average and weights."""
        for average, parameter in zip(self.tensors, self._parameters, strict=True):
            kept: Tensor = parameter.detach().clone()
            parameter.copy_(average)
            average.copy_(kept)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Let the model have the average for a while."""
        self.swap()
        try:
            yield
        finally:
            self.swap()
