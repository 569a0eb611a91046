"""Co-Attack (Zhang et al., ACM MM 2022): texts are changed first, images then flee their clean selves and the texts."""

from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from crossguard.attacks.ascent import LossPerSample, Pixels, StepRule, maximise, random_start, step_size
from crossguard.attacks.base import Attack, Budgets
from crossguard.attacks.encode import encode_images, encode_texts
from crossguard.attacks.fused import FusedScore, fused_loss
from crossguard.attacks.objectives import divergence, linked_mean
from crossguard.attacks.options import check_step_rule, check_steps
from crossguard.attacks.sources import SourceLike
from crossguard.attacks.swap import WordSwap
from crossguard.checks import check_choice
from crossguard.data import PairBatch
from crossguard.models import FusedEmbeddingModel, VisionLanguageModel

Embedding = Literal["unimodal", "fusion"]


class CoAttack(Attack):
    """Co-Attack on unimodal embeddings, or on the fused ones of a fusion model.

    1. Word-swap of every text under the clean images.
    2. PGD of every image on KL(clean image || image) + alpha * mean over its texts of KL(adversarial text || image),
       where an embedding stands for the distribution softmax(embedding) over its dimensions.

    With `embedding="fusion"`, 1. raises the divergence of the fused embedding from that of the clean pair, and 2. is
    the mean over texts of KL(clean pair || pair) + alpha * KL(clean image with adversarial text || pair).

    An image's texts all count, so that no caption overwrites the others.

    Args:
        embedding: "unimodal" or "fusion" (ALBEF, BLIP, and whatever meets `FusedEmbeddingModel`).
        alpha: weight of the text's term (3 in the paper).
        steps: PGD steps.
        step: as for `PGD`.
        source: as for `WordSwap`.
        order: as for `WordSwap`.

    Raises:
        ValueError: an option out of range; when run, "fusion" for a model without fused embeddings.
    """

    name = "co-attack"
    uses = frozenset({"image", "text"})

    def __init__(
        self,
        *,
        embedding: str = "unimodal",
        alpha: float = 3.0,
        steps: int = 10,
        step: str | float = "co-attack",
        source: SourceLike = "thesaurus",
        order: str = "importance",
    ) -> None:
        if not alpha >= 0:
            raise ValueError(f"Expected `alpha` >= 0, but got {alpha}.")
        check_steps(steps)
        self.embedding: Embedding = check_choice(embedding, get_args(Embedding), "embedding")
        self.alpha, self.steps = alpha, steps
        self.step: StepRule | float = check_step_rule(step)
        self.words = WordSwap(source=source, order=order)

    def run(
        self, model: VisionLanguageModel, batch: PairBatch, *, budget: Budgets, seed: int
    ) -> tuple[Pixels, tuple[str, ...]]:
        """Attack texts, then images."""
        fused = self._fused(model)
        score = FusedScore(fused, batch, batch.pixels) if fused is not None and budget.words else None
        texts = self.words.texts(model, batch, batch.pixels, words=budget.words, score=score, kinds=budget.kinds)
        if budget.eps == 0:
            return batch.pixels, texts
        if fused is not None:
            loss = fused_loss(fused, batch, texts, alpha=self.alpha)
        else:
            loss = unimodal_loss(model, batch, texts, alpha=self.alpha)
        pixels = maximise(
            loss,
            batch.pixels,
            eps=budget.eps,
            steps=self.steps,
            step_size=step_size(self.step, eps=budget.eps, steps=self.steps),
            start=random_start(batch, eps=budget.eps, seed=seed),
        )
        return pixels, texts

    def _fused(self, model: VisionLanguageModel) -> FusedEmbeddingModel | None:
        if self.embedding == "unimodal":
            return None
        if not isinstance(model, FusedEmbeddingModel):
            raise ValueError(
                f"Expected a model with fused embeddings for embedding='fusion', but {model.name!r} has none."
            )
        return model


def unimodal_loss(
    model: VisionLanguageModel, batch: PairBatch, texts: tuple[str, ...], *, alpha: float
) -> LossPerSample:
    """Return KL(clean image || image) + alpha * mean over its texts of KL(text || image), per image."""
    clean, words = encode_images(model, batch.pixels), encode_texts(model, texts)
    # KL is linear in its first argument but for the entropy, so the texts' mean distribution stands for them all.
    p = words.softmax(dim=-1)
    texts_mean = linked_mean(p, batch.positives)
    negative_entropy = linked_mean(torch.xlogy(p, p).sum(dim=-1, keepdim=True), batch.positives).squeeze(1)

    def loss(pixels: Pixels) -> Float[Tensor, " images"]:
        embeddings = model.encode_image(pixels).float()
        from_texts = negative_entropy - (texts_mean * embeddings.log_softmax(dim=-1)).sum(dim=-1)
        return divergence(clean, embeddings) + alpha * from_texts

    return loss
