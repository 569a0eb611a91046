"""Co-Attack (Zhang et al., ACM MM 2022): texts are changed first, images then flee their clean selves and the texts."""

from dataclasses import replace
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from crossguard.attacks.ascent import LossPerSample, Pixels, StepRule, maximise, step_size
from crossguard.attacks.ball import LInfBall
from crossguard.attacks.base import ANY_BALL, Attack
from crossguard.attacks.budget import Budgets
from crossguard.attacks.encode import encode_images, encode_texts
from crossguard.attacks.fused import FusedScore, fused_loss
from crossguard.attacks.noise import uniform
from crossguard.attacks.objectives import divergence, linked_mean, unit
from crossguard.attacks.options import check_step_rule, check_steps
from crossguard.attacks.sources import SourceLike
from crossguard.attacks.swap import WordSwap
from crossguard.attacks.text_score import DivergenceScore, TextScore
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

    `compat=True` is the published attack:

    - words are ranked and chosen by KL(softmax(embedding of the changed text) || softmax(embedding of the text)),
      without the image, with either `embedding`;
    - the start is uniform in [0, eps], not in [-eps, eps];
    - in the term that `alpha` weighs, both embeddings are scaled to length one before their softmax;
    - an image's captions are attacked one after the other and the last one's image overwrites the others: it flees
      its last caption of the batch alone;
    - the last iterate is kept, as PGD was published.

    The descriptions that this follows do not say whether the fused embeddings of `embedding="fusion"` are scaled too
    (here they are, in that term), nor how a model's raw embeddings are scaled elsewhere (here not at all).

    Args:
        embedding: "unimodal" or "fusion" (ALBEF, BLIP, and whatever meets `FusedEmbeddingModel`).
        alpha: weight of the text's term (3 in the paper).
        steps: PGD steps.
        step: as for `PGD`.
        source: as for `WordSwap`.
        order: as for `WordSwap`.
        compat: repeat the published attack instead of our form of it.

    Raises:
        ValueError: an option out of range; when run, "fusion" for a model without fused embeddings.
    """

    name = "co-attack"
    uses = frozenset({"image", "text"})
    takes = ANY_BALL

    def __init__(
        self,
        *,
        embedding: str = "unimodal",
        alpha: float = 3.0,
        steps: int = 10,
        step: str | float = "co-attack",
        source: SourceLike = "thesaurus",
        order: str = "importance",
        compat: bool = False,
    ) -> None:
        if not alpha >= 0:
            raise ValueError(f"Expected `alpha` >= 0, but got {alpha}.")
        check_steps(steps)
        self.embedding: Embedding = check_choice(embedding, get_args(Embedding), "embedding")
        self.alpha, self.steps = alpha, steps
        self.step: StepRule | float = check_step_rule(step)
        self.words = WordSwap(source=source, order=order, compat=compat)
        self.compat = compat

    def run(
        self, model: VisionLanguageModel, batch: PairBatch, *, budget: Budgets, seed: int
    ) -> tuple[Pixels, tuple[str, ...]]:
        """Attack texts, then images."""
        fused = self._fused(model)
        score = self._score(model, fused, batch) if budget.words else None
        texts = self.words.texts(model, batch, batch.pixels, words=budget.words, score=score, kinds=budget.kinds)
        if not budget.moves_images:
            return batch.pixels, texts
        ball = budget.ball(model, batch.pixels)
        if self.compat:
            if not isinstance(ball, LInfBall):
                raise ValueError(f"Expected an LInf budget of the image with `compat`, but got {budget.image!r}.")
            start = positive_start(ball, batch.image_ids, seed=seed)
        else:
            start = ball.start(batch.image_ids, seed=seed)
        met = replace(batch, links=last_links(batch)) if self.compat else batch
        if fused is not None:
            loss = fused_loss(fused, met, texts, alpha=self.alpha, unit_length=self.compat)
        else:
            loss = unimodal_loss(model, met, texts, alpha=self.alpha, unit_length=self.compat)
        pixels = maximise(
            loss,
            ball,
            steps=self.steps,
            step_size=step_size(self.step, ball, steps=self.steps),
            start=start,
            keep_best=not self.compat,
        )
        return pixels, texts

    def _score(
        self, model: VisionLanguageModel, fused: FusedEmbeddingModel | None, batch: PairBatch
    ) -> TextScore | None:
        if self.compat:
            return DivergenceScore(model, batch.texts)
        return None if fused is None else FusedScore(fused, batch, batch.pixels)

    def _fused(self, model: VisionLanguageModel) -> FusedEmbeddingModel | None:
        if self.embedding == "unimodal":
            return None
        if not isinstance(model, FusedEmbeddingModel):
            raise ValueError(
                f"Expected a model with fused embeddings for embedding='fusion', but {model.name!r} has none."
            )
        return model


def last_links(batch: PairBatch) -> Int64[Tensor, "links 2"]:
    """Return the link of every image to the last of its texts in the batch."""
    order = torch.arange(1, len(batch.texts) + 1, device=batch.pixels.device)
    last = (batch.positives * order).amax(dim=1)
    linked = last.nonzero().squeeze(1)
    return torch.stack([linked, last[linked] - 1], dim=1)


def positive_start(ball: LInfBall, ids: Int64[Tensor, " images"], *, seed: int) -> Pixels:
    """Return the clean pixels plus noise uniform in [0, eps], in [0, 1]; it depends on (seed, image id) alone."""
    noise = uniform(ids, tuple(ball.clean.shape[1:]), seed=seed, device=ball.clean.device)
    return (ball.clean + ball.eps * noise).clamp(0, 1)


def unimodal_loss(
    model: VisionLanguageModel, batch: PairBatch, texts: tuple[str, ...], *, alpha: float, unit_length: bool = False
) -> LossPerSample:
    """Return KL(clean image || image) + alpha * mean over its texts of KL(text || image), per image.

    Args:
        model: the victim.
        batch: gives the clean images and the links.
        texts: the changed texts.
        alpha: weight of the texts' term.
        unit_length: scale both embeddings of that term to length one.
    """
    clean, words = encode_images(model, batch.pixels), encode_texts(model, texts)
    if unit_length:
        words = unit(words)
    # KL is linear in its first argument but for the entropy, so the texts' mean distribution stands for them all.
    p = words.softmax(dim=-1)
    texts_mean = linked_mean(p, batch.positives)
    negative_entropy = linked_mean(torch.xlogy(p, p).sum(dim=-1, keepdim=True), batch.positives).squeeze(1)

    def loss(pixels: Pixels) -> Float[Tensor, " images"]:
        embeddings = model.encode_image(pixels).float()
        compared = unit(embeddings) if unit_length else embeddings
        from_texts = negative_entropy - (texts_mean * compared.log_softmax(dim=-1)).sum(dim=-1)
        return divergence(clean, embeddings) + alpha * from_texts

    return loss
