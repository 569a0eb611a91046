"""Validation while training: retrieval at rank 1, or the loss of captions, on held-out pairs, clean and attacked.

A quick look at a training under way. What is reported of a model comes from the evaluation room.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from crossguard.attacks.ascent import LossPerSample
from crossguard.attacks.base import Attack, frozen
from crossguard.attacks.encode import encode_unit_texts
from crossguard.attacks.pgd import GradientAttack
from crossguard.data import OneToManyPairs, PairBatch, links_among
from crossguard.models import Captioner, VisionLanguageModel, cosine
from crossguard.threat import ThreatModel
from crossguard.training.batches import Pictures


def recall_at_1(similarity: Float[Tensor, "queries gallery"], positives: Bool[Tensor, "queries gallery"]) -> float:
    """Return the percentage of queries whose nearest item is one of their own; ties with another's are misses.

    Args:
        similarity: finite.
        positives: at least one per query.
    """
    own = similarity.masked_fill(~positives, -torch.inf).amax(dim=1)
    other = similarity.masked_fill(positives, -torch.inf).amax(dim=1)
    return 100 * float((own > other).float().mean())


@dataclass(frozen=True)
class Validation:
    """Held-out pairs and how they are attacked.

    A text linked to images of several batches is attacked in the first of them.

    Args:
        pairs: the held-out pairs.
        pictures: their pixels.
        attack: run on batches of images with all their texts; of a captioner, "pgd" or "apgd" on its pictures. None
            measures clean only.
        threat: its budgets.
        batch_size: images per batch.
        seed: of the attack.
    """

    pairs: OneToManyPairs
    pictures: Pictures
    attack: Attack | None
    threat: ThreatModel
    batch_size: int
    seed: int

    def __call__(self, model: VisionLanguageModel | Captioner, *, device: torch.device) -> dict[str, float]:
        """Return percentages "clean_tr@1", "clean_ir@1", and under an attack "robust_tr@1", "robust_ir@1".

        Of a captioner they are "clean_caption_loss" and "robust_caption_loss", per token in nats, the mean over images.

        Args:
            model: left as it was.
            device: where the model is.
        """
        if not isinstance(model, VisionLanguageModel):
            return self._caption_losses(model, device)
        positives = torch.zeros(len(self.pairs.images), len(self.pairs.texts), dtype=torch.bool)
        positives[tuple(torch.from_numpy(self.pairs.links.copy()).T)] = True
        clean_images, robust_images = [], []
        texts: dict[int, str] = {}
        for start in range(0, len(self.pairs.images), self.batch_size):
            batch = self._batch(np.arange(start, min(start + self.batch_size, len(self.pairs.images))), device)
            clean_images.append(_encode(model, batch.pixels))
            if self.attack is not None:
                found = self.attack(model, batch, threat=self.threat, seed=self.seed)
                robust_images.append(_encode(model, found.pixels))
                for j, text in zip(batch.text_ids.tolist(), found.texts, strict=True):
                    texts.setdefault(j, text)
        result = _recalls("clean", model, torch.cat(clean_images), self.pairs.texts, positives)
        if robust_images:
            changed = [texts[j] for j in range(len(self.pairs.texts))]
            result |= _recalls("robust", model, torch.cat(robust_images), changed, positives)
        return result

    def _caption_losses(self, model: Captioner, device: torch.device) -> dict[str, float]:
        losses: dict[str, list[Tensor]] = {}
        for start in range(0, len(self.pairs.images), self.batch_size):
            batch = self._batch(np.arange(start, min(start + self.batch_size, len(self.pairs.images))), device)
            with frozen(model):
                loss = caption_loss(model, batch)
                with torch.no_grad():
                    losses.setdefault("clean_caption_loss", []).append(loss(batch.pixels))
                if isinstance(self.attack, GradientAttack) and "image" in self.threat:
                    ball = self.attack.budgets(self.threat).ball(model, batch.pixels)
                    found = self.attack.raised(loss, ball, batch.image_ids, seed=self.seed).detach()
                    with torch.no_grad():
                        worse = loss(ball.to_pixels(found))
                    losses.setdefault("robust_caption_loss", []).append(worse)
        return {name: float(torch.cat(each).mean()) for name, each in losses.items()}

    def _batch(self, image_ids: "np.ndarray[tuple[int], np.dtype[np.int64]]", device: torch.device) -> PairBatch:
        text_ids = np.unique(np.concatenate([self.pairs.texts_of(int(i)) for i in image_ids]))
        return PairBatch(
            pixels=self.pictures[image_ids].float() / 255,
            texts=tuple(self.pairs.texts[j] for j in text_ids),
            links=torch.from_numpy(links_among(self.pairs, image_ids, text_ids)),
            image_ids=torch.from_numpy(image_ids),
            text_ids=torch.from_numpy(text_ids),
        ).to(device)


def caption_loss(model: Captioner, batch: PairBatch) -> LossPerSample:
    """Return the loss per image: the mean over its captions of their loss per token."""
    rows, columns = batch.links.T
    captions = [batch.texts[j] for j in columns.tolist()]
    counts = torch.bincount(rows, minlength=len(batch.pixels))

    def loss(pixels: Float[Tensor, "images 3 height width"]) -> Float[Tensor, " images"]:
        each = model.caption_loss(pixels, captions, rows=rows).float()
        return each.new_zeros(len(pixels)).index_add(0, rows, each) / counts

    return loss


@torch.no_grad()
def _encode(model: VisionLanguageModel, pixels: Float[Tensor, "images 3 height width"]) -> Float[Tensor, "images dim"]:
    with frozen(model):
        return model.encode_image(pixels).float().cpu()


def _recalls(
    kind: str,
    model: VisionLanguageModel,
    images: Float[Tensor, "images dim"],
    texts: Sequence[str],
    positives: Bool[Tensor, "images texts"],
) -> dict[str, float]:
    with frozen(model):
        similarity = cosine(images, encode_unit_texts(model, texts).cpu())
    return {
        f"{kind}_tr@1": recall_at_1(similarity, positives),
        f"{kind}_ir@1": recall_at_1(similarity.T, positives.T),
    }
