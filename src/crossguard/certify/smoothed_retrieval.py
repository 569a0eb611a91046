"""`SmoothedRetrieval`: the retrieval that certificates of R@K speak of, as something that can be attacked."""

from collections.abc import Mapping
from hashlib import sha256
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from crossguard.attacks.victims import Victim
from crossguard.certify.arguments import whole_number
from crossguard.certify.smoothed import Smoothed
from crossguard.models.base import MultiModalClassifier

LOST, FOUND = 0, 1


class SmoothedRetrieval(Smoothed):
    """The smoothed retrieval of `certify_retrieval`, with two answers to a query: no right item is found, or one is.

    It votes with the very draws of `certify_retrieval` with the same seed. An attacker climbs on the lead of the K-th
    wrong item over the best right one, by the mean probability over draws of his own; a query is lost when no right
    item is in the answer, the items that more than half of the sub-samples have among the K likeliest.

    Args:
        model: gives logits of the items of a gallery.
        truth: bool [queries, items], which items are right; queries are the samples of the data set that is attacked.
        most: K.
        options: of `Smoothed`.

    Raises:
        ValueError: truth of another number of items, or K that is not in 1..items - 1.
    """

    def __init__(
        self, model: MultiModalClassifier, *, truth: Bool[np.ndarray, "queries items"], most: int = 1, **options: Any
    ) -> None:
        super().__init__(model, **options)
        items = len(model.classes)
        if truth.shape[1:] != (items,) or not 1 <= whole_number(most, "most", least=1) < items:
            raise ValueError(
                f"Expected `truth` of {items} items and `most` in 1..{items - 1}, but got {list(truth.shape)}, {most}."
            )
        self.truth, self.most, self.classes = truth, most, ("lost", "found")

    @property
    def asked(self) -> str:
        """What is answered, in words; the answers of an attack are kept under it."""
        return f"R@{self.most} of {sha256(np.packbits(self.truth).tobytes()).hexdigest()[:16]}"

    @property
    def whole(self) -> Victim:
        """The retrieval itself, shown whole queries."""
        return _Whole(self)

    def log_probabilities(
        self, inputs: Mapping[str, Tensor], ids: Int64[Tensor, " rows"]
    ) -> Float[Tensor, "rows answers"]:
        """Return the logarithm of how likely a query is lost or found; differentiable."""
        return self.answered(super().log_probabilities(inputs, ids), ids)

    def answered(
        self, log_p: Float[Tensor, "rows items"], ids: Int64[Tensor, " rows"]
    ) -> Float[Tensor, "rows answers"]:
        """Return log-probabilities of lost and found from those of items: by the lead of the best right item."""
        right = torch.from_numpy(self.truth).to(ids.device)[ids]
        nothing = torch.full_like(log_p, -torch.inf)
        best = torch.where(right, log_p, nothing).amax(dim=1)
        wrong = torch.where(right, nothing, log_p).topk(self.most, dim=1).values[:, -1]
        # Where fewer than K items are wrong a right one is always among the K likeliest.
        lead = best - wrong.clamp_min(-1e4)
        return nn.functional.logsigmoid(torch.stack([-lead, lead], dim=1))

    @torch.no_grad()
    def decide(self, inputs: Mapping[str, Tensor], ids: Int64[Tensor, " rows"]) -> Int64[Tensor, " rows"]:
        """Return whether a right item is in the answer: 1 if so."""
        found = 2 * self.votes(inputs, ids) > self.draws
        return (found & torch.from_numpy(self.truth).to(ids.device)[ids]).any(dim=1).long()

    def _answers(self, logits: Float[Tensor, "rows items"]) -> Bool[Tensor, "rows items"]:
        return among(logits, self.most)


def among(logits: Float[Tensor, "rows items"], most: int) -> Bool[Tensor, "rows items"]:
    """Return which items are among the `most` likeliest; of equal ones the first is the likelier."""
    first = logits.argsort(dim=1, descending=True, stable=True)[:, :most]
    return torch.zeros_like(logits, dtype=torch.bool).scatter(1, first, True)


class _Whole:
    """The base model of a smoothed retrieval as a victim, with all elements in sight."""

    def __init__(self, of: SmoothedRetrieval) -> None:
        self.of, self.module, self.passes = of, of.module, 1
        self.name, self.modalities, self.classes = of.name, of.modalities, of.classes

    def log_probabilities(
        self, inputs: Mapping[str, Tensor], ids: Int64[Tensor, " rows"]
    ) -> Float[Tensor, "rows answers"]:
        """Return the logarithm of how likely a query is lost or found; differentiable."""
        return self.of.answered(self.module(inputs).log_softmax(dim=1), ids)

    @torch.no_grad()
    def decide(self, inputs: Mapping[str, Tensor], ids: Int64[Tensor, " rows"]) -> Int64[Tensor, " rows"]:
        """Return whether a right item is among the K likeliest: 1 if so."""
        found = among(self.module(inputs), self.of.most)
        return (found & torch.from_numpy(self.of.truth).to(ids.device)[ids]).any(dim=1).long()
