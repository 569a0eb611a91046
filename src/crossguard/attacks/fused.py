"""Co-Attack's two losses on the fused embeddings of image-text pairs."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from crossguard.attacks.ascent import LossPerSample, Pixels
from crossguard.attacks.objectives import divergence, unit
from crossguard.attacks.ranking import image_states, text_states
from crossguard.attacks.text_score import Scores, own_mean, score_in_parts, spread
from crossguard.data import PairBatch
from crossguard.models import FusedEmbeddingModel, States

_PAIRS_PER_FORWARD = 512


def fuse(
    model: FusedEmbeddingModel, images: States, texts: States, pairs: Int64[Tensor, "pairs 2"]
) -> Float[Tensor, "pairs width"]:
    """Return the fused embeddings of pairs, some at a time."""
    return torch.cat([model.fuse(images, texts, part) for part in pairs.split(_PAIRS_PER_FORWARD)])


class FusedScore:
    """Minus the divergence of (image, variant) from (image, original), mean over the original's images.

    Args:
        model: the victim.
        batch: gives the originals and the links.
        pixels: of its images; encoded once.
    """

    @torch.no_grad()
    def __init__(self, model: FusedEmbeddingModel, batch: PairBatch, pixels: Pixels) -> None:
        self.model, self.own = model, batch.positives.T
        self.images = image_states(model, pixels)
        pairs = batch.positives.nonzero()
        self.place = torch.full(batch.positives.shape, -1, device=pairs.device)
        self.place[pairs[:, 0], pairs[:, 1]] = torch.arange(len(pairs), device=pairs.device)
        self.clean = fuse(model, self.images, text_states(model, batch.texts), pairs)

    @torch.no_grad()
    def __call__(self, texts: Sequence[str], owners: Sequence[int]) -> Scores:
        """Score variants, see `TextScore`."""
        return score_in_parts(self._score, texts, owners)

    def _score(self, variants: Sequence[tuple[str, int]]) -> Float[Tensor, " variants"]:
        rows = torch.tensor([owner for _, owner in variants], device=self.own.device)
        own = self.own[rows]
        pairs = own.nonzero().flip(1)
        if not len(pairs):
            return torch.zeros(len(variants), device=own.device)
        fused = fuse(self.model, self.images, text_states(self.model, [text for text, _ in variants]), pairs)
        moved = divergence(self.clean[self.place[pairs[:, 0], rows[pairs[:, 1]]]], fused)
        return -own_mean(spread(moved, pairs, own, empty=0.0), own)


@torch.no_grad()
def fused_loss(
    model: FusedEmbeddingModel, batch: PairBatch, texts: Sequence[str], *, alpha: float, unit_length: bool = False
) -> LossPerSample:
    """Return how far (image, changed text) is from the clean pair, and from the clean image with the changed text.

    KL(clean image, clean text || image, text) + alpha * KL(clean image, text || image, text), mean over own texts.

    Args:
        model: the victim.
        batch: gives the clean images and texts, and the links.
        texts: the changed texts.
        alpha: weight of the second term.
        unit_length: scale both embeddings of the second term to length one.
    """
    positives, pairs = batch.positives, batch.positives.nonzero()
    clean_images, changed = image_states(model, batch.pixels), text_states(model, texts)
    clean = fuse(model, clean_images, text_states(model, batch.texts), pairs)
    half = fuse(model, clean_images, changed, pairs)

    def loss(pixels: Pixels) -> Float[Tensor, " images"]:
        fused = fuse(model, image_states(model, pixels), changed, pairs)
        from_text = divergence(unit(half), unit(fused)) if unit_length else divergence(half, fused)
        moved = divergence(clean, fused) + alpha * from_text
        total = moved.new_zeros(len(pixels)).index_add(0, pairs[:, 0], moved)
        return total / positives.sum(dim=1).clamp(min=1)

    return loss
