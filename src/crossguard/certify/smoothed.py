"""`Smoothed`: the voting model that certificates speak of, as something that can be asked and attacked."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn.functional import softmax

from crossguard.attacks.noise import uniform
from crossguard.attacks.victims import Plain, Victim
from crossguard.certify.arguments import whole_number
from crossguard.certify.design import Design, design_for
from crossguard.certify.options import Ablation, CertifyOptions
from crossguard.certify.sampling import (
    Inputs,
    Masks,
    class_logits,
    draw_design,
    evaluation_mode,
    in_precision,
    most_likely,
    pack_kept,
    pixel_logits,
)
from crossguard.certify.subsample import ablate_elements
from crossguard.models.base import MultiModalClassifier, MultiModalSegmenter


class Smoothed:
    """A classifier or segmenter that answers with the label that most sub-samples get; a `Victim` for attacks.

    It votes with the very draws of `certify` and `certify_segmentation` (independent sub-sampling) with the same seed,
    so that it answers to unattacked samples as a certificate of as many draws says. An attacker climbs on the mean
    probability over other draws, which he makes himself (`even_masks`).

    Args:
        model: the base model; used in evaluation mode, on the device of what it is asked about.
        keep: elements kept of each modality, by its name.
        draws: sub-samples that vote.
        attack_draws: sub-samples per gradient.
        seed: of the masks.
        fill: as `certify`.
        segments: the base model gives a label per pixel.
        batch_size: sub-samples per forward pass of a vote.

    Raises:
        ValueError: numbers that are not whole or below 1; wrong names and sizes are told at the first input.
    """

    def __init__(
        self,
        model: MultiModalClassifier | MultiModalSegmenter,
        *,
        keep: Mapping[str, int],
        draws: int = 1000,
        attack_draws: int = 50,
        seed: int = 0,
        fill: Ablation | None = None,
        segments: bool = False,
        batch_size: int = 4096,
        precision: str = "float32",
    ) -> None:
        self.module = model
        self.name, self.modalities, self.classes = model.name, model.modalities, model.classes
        self.keep, self.fill, self.seed, self.segments = dict(keep), fill, seed, segments
        self.precision = precision
        self.draws = whole_number(draws, "draws", least=1)
        self.passes = whole_number(attack_draws, "attack_draws", least=1)
        self.batch_size = whole_number(batch_size, "batch_size", least=1)

    @property
    def asked(self) -> str:
        """What is answered, in words; the answers of an attack are kept under it."""
        return "labels"

    @property
    def whole(self) -> Victim:
        """The base model, with all elements in sight."""
        return Plain(self.module)

    def log_probabilities(
        self, inputs: Mapping[str, Tensor], ids: Int64[Tensor, " rows"]
    ) -> Float[Tensor, "rows labels ..."]:
        """Return the logarithm of the mean probability over the attacker's draws; differentiable."""
        row = torch.arange(len(ids), device=ids.device).repeat_interleave(self.passes)
        design = self._design(inputs)
        masks = {
            m: even_masks(ids, n=design.sizes[m], k=int(design.keep[m]), draws=self.passes, seed=self.seed, stream=i)
            for i, m in enumerate(self.modalities)
        }
        with evaluation_mode(self.module, ids.device):
            logits = self._logits(inputs, row, {m: mask.flatten(0, 1) for m, mask in masks.items()}, design)
        mean = softmax(logits, dim=1).unflatten(0, (len(ids), self.passes)).mean(dim=1)
        return mean.clamp_min(1e-12).log()

    @torch.no_grad()
    def decide(self, inputs: Mapping[str, Tensor], ids: Int64[Tensor, " rows"]) -> Int64[Tensor, "rows ..."]:
        """Return the labels of most votes, the lowest among equals."""
        return self.votes(inputs, ids).argmax(dim=1)

    @torch.no_grad()
    def votes(self, inputs: Mapping[str, Tensor], ids: Int64[Tensor, " rows"]) -> Int64[Tensor, "rows labels ..."]:
        """Return how many sub-samples get each label."""
        votes: Tensor | None = None
        design = self._design(inputs)
        arrays = {m: inputs[m].detach().cpu().numpy() for m in self.modalities}
        names = torch.from_numpy(design.names(arrays)).to(ids.device)
        for row, draw in self._parts(len(ids), ids.device):
            masks = draw_design(names[row], draw, design)
            with evaluation_mode(self.module, ids.device):
                logits = self._logits(inputs, row, masks, design)
            answers = self._answers(logits)
            if votes is None:
                votes = torch.zeros(len(ids), *logits.shape[1:], dtype=torch.int64, device=ids.device)
            votes.index_add_(0, row, answers.long())
        assert votes is not None
        return votes

    def _answers(self, logits: Float[Tensor, "rows labels ..."]) -> Bool[Tensor, "rows labels ..."]:
        """Return which labels each sub-sample votes for."""
        label = most_likely(logits).long() if logits.ndim == 4 else logits.argmax(dim=1)
        return torch.zeros_like(logits, dtype=torch.bool).scatter(1, label[:, None], True)

    def _parts(self, rows: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (row, draw) of every voting sub-sample, `batch_size` at a time."""
        for start in range(0, rows * self.draws, self.batch_size):
            place = torch.arange(start, min(start + self.batch_size, rows * self.draws), device=device)
            yield place // self.draws, place % self.draws

    def _logits(
        self,
        inputs: Mapping[str, Tensor],
        row: Int64[Tensor, " sub_samples"],
        masks: Mapping[str, Bool[Tensor, "sub_samples _"]],
        design: Design,
    ) -> Float[Tensor, "sub_samples labels ..."]:
        given: Inputs = {}
        kept: Masks = {}
        for modality, mask in masks.items():
            values = inputs[modality]
            if modality in design.packs:
                elements = values.flatten(2).transpose(1, 2) if values.ndim == 4 else values
                given[modality] = pack_kept(elements, row, mask, shown_size=design.shown_size(modality))
            else:
                given[modality] = ablate_elements(values[row], mask, fill=design.fill)
                kept[modality] = mask
        ask: Any = pixel_logits if self.segments else class_logits
        with in_precision(self.precision, row.device):
            logits: Tensor = ask(self.module, given, kept)
        return logits.float()

    def _design(self, inputs: Mapping[str, Tensor]) -> Design:
        return design_for(
            self.module,
            {m: np.broadcast_to(np.float32(0), tuple(inputs[m].shape)) for m in self.modalities},  # shapes alone
            CertifyOptions(
                keep=self.keep, seed=self.seed, fill=self.fill, batch_size=self.batch_size, precision=self.precision
            ),
        )


def even_masks(
    ids: Int64[Tensor, " rows"], *, n: int, k: int, draws: int, seed: int, stream: int
) -> Bool[Tensor, "rows draws n"]:
    """Return masks that keep k of n elements, each uniform over all such sets, but spread evenly over the elements.

    A random order of the elements is cut into n // k disjoint sub-samples, then another one: n // k draws show an
    attacker every element (but n modulo k of them) once, where independent draws would show some often and some never.

    Args:
        ids: the samples' names; a sample's masks depend on (seed, its name, stream) alone.
        n: number of elements.
        k: number of elements that a mask keeps, 1 <= k <= n.
        draws: masks per sample.
        seed: of the orders.
        stream: a number per modality.
    """
    per_order = n // k
    orders = -(-draws // per_order)
    chance = uniform(ids, (orders, n), seed=seed, stream=2**20 + stream, device=ids.device)
    parts = chance.argsort(dim=2, stable=True)[:, :, : per_order * k].reshape(len(ids), orders * per_order, k)
    return torch.zeros(len(ids), draws, n, dtype=torch.bool, device=ids.device).scatter(2, parts[:, :draws], True)
