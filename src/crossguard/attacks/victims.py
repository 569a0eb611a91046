"""What sample attacks attack: anything that gives log-probabilities to climb on, and decides by itself."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import log_softmax, relu

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


def margin_loss(
    log_probabilities: Float[Tensor, "rows labels ..."], truth: Int64[Tensor, "rows ..."]
) -> Float[Tensor, " rows"]:
    """Return by how much the likeliest wrong label leads, in nats; above 0 where the answer is wrong.

    Of a segmentation the mean over the judged pixels of the lead, cut at 1: a pixel that is wrong for good asks for no
    more. Labels of -1 are not judged.
    """
    judged = truth >= 0
    index = truth.clamp(min=0).unsqueeze(1)
    right = log_probabilities.gather(1, index).squeeze(1)
    wrong = log_probabilities.scatter(1, index, -torch.inf).amax(dim=1)
    lead = torch.where(judged, wrong - right, torch.zeros_like(right))
    if lead.ndim == 1:
        return lead
    lead = torch.where(judged, 1 - relu(1 - lead), lead)
    return lead.flatten(1).sum(dim=1) / judged.flatten(1).sum(dim=1).clamp(min=1)


def entropy_loss(
    log_probabilities: Float[Tensor, "rows labels ..."], truth: Int64[Tensor, "rows ..."]
) -> Float[Tensor, " rows"]:
    """Return the cross-entropy of the true labels in nats, of a segmentation its mean over the judged pixels."""
    judged = truth >= 0
    lost = -log_probabilities.gather(1, truth.clamp(min=0).unsqueeze(1)).squeeze(1)
    lost = torch.where(judged, lost, torch.zeros_like(lost)).reshape(len(truth), -1)
    return lost.sum(dim=1) / judged.reshape(len(truth), -1).sum(dim=1).clamp(min=1)


def frozen_network(module: Any) -> AbstractContextManager[None]:
    """Evaluation mode and no gradients on the weights, restored afterwards; nothing for what is no `nn.Module`."""
    return frozen(module) if isinstance(module, torch.nn.Module) else nullcontext()
