"""What sample attacks attack: anything that gives log-probabilities to climb on, and decides by itself."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import log_softmax

from crossguard.attacks.base import frozen
from crossguard.models.base import MultiModalClassifier, MultiModalSegmenter
from crossguard.models.inputs import check_labelling


@runtime_checkable
class Victim(Protocol):
    """A classifier or segmenter under attack, with or without a defence around it.

    Attributes:
        name: shown in tables.
        modalities: the names of the inputs.
        classes: the names of the labels.
        passes: forward passes of the network per input, by which attacks measure their batches.
        module: the network, whose weights are frozen during an attack.
    """

    name: str
    modalities: tuple[str, ...]
    classes: tuple[str, ...]
    passes: int
    module: Any

    def log_probabilities(
        self, inputs: Mapping[str, Tensor], ids: Int64[Tensor, " rows"]
    ) -> Float[Tensor, "rows labels ..."]:
        """Return differentiable log-probabilities; `ids` are the samples' places in their data set."""
        ...

    def decide(self, inputs: Mapping[str, Tensor], ids: Int64[Tensor, " rows"]) -> Int64[Tensor, "rows ..."]:
        """Return the labels that are answered."""
        ...


class Plain:
    """A model as it is.

    Args:
        model: a classifier or segmenter; nothing is ablated.
    """

    def __init__(self, model: MultiModalClassifier | MultiModalSegmenter) -> None:
        check_labelling(model)
        self.module = model
        self.name, self.modalities, self.classes, self.passes = model.name, model.modalities, model.classes, 1

    def log_probabilities(
        self, inputs: Mapping[str, Tensor], ids: Int64[Tensor, " rows"]
    ) -> Float[Tensor, "rows labels ..."]:
        """Return the model's."""
        return log_softmax(self.module(inputs), dim=1)

    def decide(self, inputs: Mapping[str, Tensor], ids: Int64[Tensor, " rows"]) -> Int64[Tensor, "rows ..."]:
        """Return the likeliest labels."""
        labels: Tensor = self.module(inputs).argmax(dim=1)
        return labels


def frozen_network(module: Any) -> AbstractContextManager[None]:
    """Evaluation mode and no gradients on the weights, restored afterwards; nothing for what is no `nn.Module`."""
    return frozen(module) if isinstance(module, torch.nn.Module) else nullcontext()
