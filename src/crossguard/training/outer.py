"""The outer loss of a defence on one step, and how well the model tells the step's pairs apart."""

from collections.abc import Mapping, Sequence
from functools import cache

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from crossguard.attacks.ascent import Pixels
from crossguard.models import Tokens, VisionLanguageModel, cosine
from crossguard.models.losses import contrastive, contrastive_drawn, embedding_l2
from crossguard.training.batches import TrainingBatch
from crossguard.training.defences import Anchor, Term, View


class Towers(nn.Module):
    """A model's two encoders behind one `forward`, which is what Accelerate wraps.

    Args:
        model: an image-text model.
    """

    def __init__(self, model: VisionLanguageModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, pixels: Pixels | None = None, tokens: Tokens | None = None
    ) -> tuple[Float[Tensor, "images dim"] | None, Float[Tensor, "texts dim"] | None]:
        """Embed pixels, tokens or both."""
        return (
            None if pixels is None else self.model.encode_image(pixels),
            None if tokens is None else self.model.encode_text(tokens),
        )


def outer_loss(
    towers: nn.Module,
    model: VisionLanguageModel,
    original: VisionLanguageModel,
    terms: Sequence[Term],
    step_batch: TrainingBatch,
    adversarial: tuple[Pixels, tuple[str, ...]],
    *,
    draw: torch.Generator | None = None,
) -> Float[Tensor, ""]:
    """Return the weighted sum of a defence's terms, differentiable; each view is encoded once.

    Args:
        towers: `Towers(model)`, perhaps wrapped.
        model: the model in training.
        original: the model as it came, for `Anchor` terms.
        terms: the outer loss.
        step_batch: the clean views, targets and ignored pairs.
        adversarial: pixels and texts that the inner attack found.
        draw: draws one target per image and per text, in place of all with equal shares (`contrastive_drawn`).
    """
    batch = step_batch.batch
    pixels: Mapping[View, Pixels] = {"clean": batch.pixels, "adversarial": adversarial[0]}
    texts: Mapping[View, tuple[str, ...]] = {"clean": batch.texts, "adversarial": adversarial[1]}

    @cache
    def images_of(view: View) -> Float[Tensor, "images dim"]:
        return towers(pixels=pixels[view])[0].float()

    @cache
    def texts_of(view: View) -> Float[Tensor, "texts dim"]:
        return towers(tokens=model.tokenize(texts[view]))[1].float()

    def value(term: Term) -> Float[Tensor, ""]:
        if isinstance(term, Anchor):
            if term.tower == "image":
                return embedding_l2(images_of("adversarial"), original_images(original, batch.pixels)).mean()
            return embedding_l2(texts_of("adversarial"), original_texts(original, batch.texts)).mean()
        logits = model.logit_scale * cosine(images_of(term.image), texts_of(term.text))
        if draw is not None:
            return contrastive_drawn(logits, step_batch.targets, generator=draw)
        return contrastive(logits, step_batch.targets, ignored=step_batch.ignored)

    return torch.stack([term.weight * value(term) for term in terms]).sum()


@torch.no_grad()
def original_images(original: VisionLanguageModel, pixels: Pixels) -> Float[Tensor, "images dim"]:
    """Return what the model as it came makes of clean images."""
    return original.encode_image(pixels).float()


@torch.no_grad()
def original_texts(original: VisionLanguageModel, texts: Sequence[str]) -> Float[Tensor, "texts dim"]:
    """Return what the model as it came makes of clean texts."""
    return original.encode_text(texts).float()


@torch.no_grad()
def batch_accuracy(
    model: VisionLanguageModel, pixels: Pixels, texts: Sequence[str], positives: Bool[Tensor, "images texts"]
) -> float:
    """Return the share of images whose nearest text in the batch is one of their own, in [0, 1]; ties are misses.

    Args:
        model: in evaluation mode.
        pixels: the images.
        texts: the texts, some perhaps twice; a copy of an own text counts as own.
        positives: every true pair.
    """
    similarity = cosine(model.encode_image(pixels).float(), model.encode_text(tuple(texts)).float())
    own = similarity.masked_fill(~positives, -2.0).amax(dim=1)
    other = similarity.masked_fill(positives, -2.0).amax(dim=1)
    return float((own > other).float().mean())
