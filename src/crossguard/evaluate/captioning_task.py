"""Captioning as a task: what the model writes for an image, and its loss of the image's references."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from crossguard.attacks.base import Attack
from crossguard.data import OneToManyPairs, PairBatch
from crossguard.evaluate.batches import in_order, preprocessed
from crossguard.evaluate.captioning_attack import CaptionObjective, attack_captions, caption_objective
from crossguard.evaluate.store import StoredBatch
from crossguard.models import Captioner
from crossguard.threat import ThreatModel


@dataclass(frozen=True)
class Beam:
    """How captions are written: beams, and fewest and most tokens, the prompt and the end included.

    Raises:
        ValueError: not 1 <= beams and 1 <= min_length <= max_length.
    """

    beams: int = 3
    min_length: int = 5
    max_length: int = 20

    def __post_init__(self) -> None:
        if self.beams < 1 or not 1 <= self.min_length <= self.max_length:
            raise ValueError(f"Expected beams >= 1 and 1 <= min_length <= max_length, but got {self}.")


@dataclass(frozen=True)
class CaptioningTask:
    """What a model writes for each image.

    Args:
        model: in evaluation mode.
        pairs: images with their references.
        beam: how captions are written.
        objective: what attacks maximise, see `attack_captions`.
        batch_size: images per batch.
    """

    model: Captioner
    pairs: OneToManyPairs
    beam: Beam
    objective: CaptionObjective
    batch_size: int
    kind: str = "captioning"

    @property
    def batches(self) -> list[Int64[np.ndarray, " images"]]:
        """Images in order, `batch_size` at a time."""
        return in_order(len(self.pairs.images), batch_size=self.batch_size)

    def samples_of(self, images: Int64[np.ndarray, " images"]) -> Int64[np.ndarray, " samples"]:
        """Return the images: each is one sample."""
        return images

    def load(self, images: Int64[np.ndarray, " images"]) -> PairBatch:
        """Decode images, with the references of each; a reference that several share comes once for each of them."""
        ends = [self.pairs.texts_of(int(image)) for image in images]
        text_ids = np.concatenate(ends)
        places = np.repeat(np.arange(len(images)), [len(own) for own in ends])
        return PairBatch(
            pixels=preprocessed(self.model, [self.pairs.image(int(image)) for image in images]),
            texts=tuple(self.pairs.texts[int(text)] for text in text_ids),
            links=torch.from_numpy(np.stack([places, np.arange(len(text_ids))], axis=1)),
            image_ids=torch.from_numpy(images),
            text_ids=torch.from_numpy(text_ids),
        )

    @torch.no_grad()
    def answer(
        self, batch: PairBatch, pixels: Float[Tensor, "images 3 height width"], texts: Sequence[str]
    ) -> list[Mapping[str, Any]]:
        """Return per image the `caption`, and the mean `loss` of the references in nats per token."""
        written = self.model.generate(
            pixels, beams=self.beam.beams, min_length=self.beam.min_length, max_length=self.beam.max_length
        )
        losses = caption_objective(self.model, texts, batch.links[:, 0])(pixels)
        return [
            {"caption": " ".join(caption.split()), "loss": float(loss)}
            for caption, loss in zip(written, losses, strict=True)
        ]

    def attack(
        self, batch: PairBatch, clean: Sequence[Mapping[str, Any]], attack: Attack, threat: ThreatModel, seed: int
    ) -> StoredBatch:
        """Attack images against their references, or away from the captions of the clean images."""
        pixels = attack_captions(
            self.model,
            batch,
            attack,
            threat=threat,
            seed=seed,
            objective=self.objective,
            own=[answer["caption"] for answer in clean],
        )
        return StoredBatch.from_pixels(batch, pixels)

    def rows(
        self,
        batch: PairBatch,
        clean: Sequence[Mapping[str, Any]],
        robust: Sequence[Mapping[str, Any]] | None,
        found: StoredBatch | None,
    ) -> list[dict[str, Any]]:
        """Return one row per image."""
        rows = []
        groups = self.pairs.groups[0]
        for place, image in enumerate(batch.image_ids.tolist()):
            after = None if robust is None else robust[place]
            rows.append(
                {
                    "index": image,
                    "image": self.pairs.images[image].key,
                    "group": int(groups[image]),
                    "references": [self.pairs.texts[int(text)] for text in self.pairs.texts_of(image)],
                    "clean_caption": clean[place]["caption"],
                    "clean_loss": clean[place]["loss"],
                    "robust_caption": None if after is None else after["caption"],
                    "robust_loss": None if after is None else after["loss"],
                    "linf": None if found is None else float(found.linf[place]),
                }
            )
        return rows
