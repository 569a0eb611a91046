"""Grounding as a task: where the model looks for an expression, and which proposal that points at."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from crossguard.attacks.base import Attack
from crossguard.data import PairBatch, ReferringExpressions
from crossguard.evaluate.batches import in_order, preprocessed
from crossguard.evaluate.grounding_boxes import box_scores, choose, overlap
from crossguard.evaluate.store import StoredBatch
from crossguard.models import GroundingModel, attention_maps
from crossguard.threat import ThreatModel

_MAPS_AT_ONCE = 32
"""Expressions whose attention to all patches is held in memory together, with its graph."""


@dataclass(frozen=True)
class GroundingTask:
    """Which proposal a model points at for each expression.

    Args:
        model: in evaluation mode.
        expressions: the data.
        layer: the layer whose attention to the image is looked at.
        batch_size: images per batch.
    """

    model: GroundingModel
    expressions: ReferringExpressions
    layer: int
    batch_size: int
    kind: str = "grounding"

    @property
    def batches(self) -> list[Int64[np.ndarray, " images"]]:
        """Images in order, `batch_size` at a time."""
        return in_order(len(self.expressions.images), batch_size=self.batch_size)

    def samples_of(self, images: Int64[np.ndarray, " images"]) -> Int64[np.ndarray, " samples"]:
        """Return the expressions about some images, ascending."""
        return np.flatnonzero(np.isin(self.expressions.image_of, images))

    def load(self, images: Int64[np.ndarray, " images"]) -> PairBatch:
        """Decode images with all that is said of them; an expression belongs to its own image alone."""
        samples = self.samples_of(images)
        places = np.searchsorted(images, self.expressions.image_of[samples])
        return PairBatch(
            pixels=preprocessed(self.model, [self.expressions.image(int(image)) for image in images]),
            texts=tuple(self.expressions.texts[int(sample)] for sample in samples),
            links=torch.from_numpy(np.stack([places, np.arange(len(samples))], axis=1)),
            image_ids=torch.from_numpy(images),
            text_ids=torch.from_numpy(samples),
        )

    def maps(
        self, batch: PairBatch, pixels: Float[Tensor, "images 3 height width"], texts: Sequence[str]
    ) -> Float64[np.ndarray, "samples rows columns"]:
        """Return where the model looks for each expression in its image, one value per patch, >= 0."""
        with torch.no_grad():
            images, words = self.model.encode_image_states(pixels), self.model.encode_text_states(texts)
        parts = [
            attention_maps(self.model, images, words, pairs, layer=self.layer).cpu()
            for pairs in batch.links.split(_MAPS_AT_ONCE)
        ]
        return torch.cat(parts).double().numpy()

    def answer(
        self, batch: PairBatch, pixels: Float[Tensor, "images 3 height width"], texts: Sequence[str]
    ) -> list[Mapping[str, Any]]:
        """Return per expression the chosen proposal (`box`, None where the map points nowhere) and its `iou`."""
        maps, about = self.maps(batch, pixels, texts), batch.links[:, 0].cpu().numpy()
        samples = batch.text_ids.cpu().numpy()
        answers: list[Mapping[str, Any]] = [{} for _ in samples]
        for place, image in enumerate(batch.image_ids.tolist()):
            here = np.flatnonzero(about == place)
            proposals = self.expressions.proposals[image]
            height, width = (int(side) for side in self.expressions.sizes[image])
            chosen = choose(box_scores(maps[here], proposals, height=height, width=width))
            ious = overlap(proposals[chosen], self.expressions.boxes[samples[here]])
            for row, box, iou in zip(here, chosen, ious, strict=True):
                answers[row] = (
                    {"box": proposals[box].tolist(), "iou": float(iou)} if box >= 0 else {"box": None, "iou": 0.0}
                )
        return answers

    def attack(
        self,
        batch: PairBatch,
        clean: Sequence[Mapping[str, Any]],
        attack: Attack,
        threat: ThreatModel,
        seed: int,
    ) -> StoredBatch:
        """Attack images with all their expressions, each expression under its own image."""
        return StoredBatch.from_attack(batch, attack(self.model, batch, threat=threat, seed=seed))

    def rows(
        self,
        batch: PairBatch,
        clean: Sequence[Mapping[str, Any]],
        robust: Sequence[Mapping[str, Any]] | None,
        found: StoredBatch | None,
    ) -> list[dict[str, Any]]:
        """Return one row per expression."""
        rows = []
        for place, (sample, image) in enumerate(zip(batch.text_ids.tolist(), batch.links[:, 0].tolist(), strict=True)):
            truth = self.expressions.boxes[sample]
            about = int(self.expressions.image_of[sample])
            proposals = self.expressions.proposals[about]
            reach = overlap(proposals, np.broadcast_to(truth, proposals.shape)).max()
            after = None if robust is None else robust[place]
            rows.append(
                {
                    "index": sample,
                    "key": self.expressions.keys[sample],
                    "image": self.expressions.images[about].key,
                    "text": batch.texts[place],
                    "truth": truth.tolist(),
                    "best_iou": float(reach),
                    "clean_box": clean[place]["box"],
                    "clean_iou": clean[place]["iou"],
                    "robust_box": None if after is None else after["box"],
                    "robust_iou": None if after is None else after["iou"],
                    "linf": None if found is None else float(found.linf[image]),
                    "words": None if found is None else int(found.words[place]),
                    "adversarial_text": None if found is None else found.texts[place],
                }
            )
        return rows
