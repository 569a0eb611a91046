"""Co-Attack (Zhang et al., ACM MM 2022): texts are changed first, images then flee their clean selves and the texts."""

import torch
from jaxtyping import Float
from torch import Tensor

from crossguard.attacks.ascent import LossPerSample, Pixels, StepRule, maximise, random_start, step_size
from crossguard.attacks.base import Attack, Budgets
from crossguard.attacks.encode import encode_images, encode_texts
from crossguard.attacks.objectives import linked_mean
from crossguard.attacks.options import check_step_rule, check_steps
from crossguard.attacks.sources import SourceLike
from crossguard.attacks.swap import WordSwap
from crossguard.data import PairBatch
from crossguard.models import VisionLanguageModel


class CoAttack(Attack):
    """Co-Attack on unimodal embeddings.

    1. Word-swap of every text under the clean images.
    2. PGD of every image on KL(clean image || image) + alpha * mean over its texts of KL(adversarial text || image),
       where an embedding stands for the distribution softmax(embedding) over its dimensions.

    An image's texts all count, so that no caption overwrites the others.

    Args:
        alpha: weight of the text's term (3 in the paper).
        steps: PGD steps.
        step: as for `PGD`.
        source: as for `WordSwap`.
        order: as for `WordSwap`.

    Raises:
        ValueError: an option out of range.
    """

    name = "co-attack"
    uses = frozenset({"image", "text"})

    def __init__(
        self,
        *,
        alpha: float = 3.0,
        steps: int = 10,
        step: str | float = "co-attack",
        source: SourceLike = "thesaurus",
        order: str = "importance",
    ) -> None:
        if not alpha >= 0:
            raise ValueError(f"Expected `alpha` >= 0, but got {alpha}.")
        check_steps(steps)
        self.alpha, self.steps = alpha, steps
        self.step: StepRule | float = check_step_rule(step)
        self.words = WordSwap(source=source, order=order)

    def run(
        self, model: VisionLanguageModel, batch: PairBatch, *, budget: Budgets, seed: int
    ) -> tuple[Pixels, tuple[str, ...]]:
        """Attack texts, then images."""
        texts = self.words.texts(model, batch, batch.pixels, words=budget.words)
        if budget.eps == 0:
            return batch.pixels, texts
        pixels = maximise(
            self._loss(model, batch, texts),
            batch.pixels,
            eps=budget.eps,
            steps=self.steps,
            step_size=step_size(self.step, eps=budget.eps, steps=self.steps),
            start=random_start(batch, eps=budget.eps, seed=seed),
        )
        return pixels, texts

    def _loss(self, model: VisionLanguageModel, batch: PairBatch, texts: tuple[str, ...]) -> LossPerSample:
        clean = encode_images(model, batch.pixels).softmax(dim=-1)
        words = encode_texts(model, texts).softmax(dim=-1)
        targets = clean + self.alpha * linked_mean(words, batch.positives)
        negative_entropy = self._negative_entropy(clean) + self.alpha * linked_mean(
            self._negative_entropy(words)[:, None], batch.positives
        ).squeeze(1)

        # KL is linear in its first argument but for the entropy, so the texts' mean distribution stands for them all.
        def loss(pixels: Pixels) -> Float[Tensor, " images"]:
            log_q = model.encode_image(pixels).float().log_softmax(dim=-1)
            return negative_entropy - (targets * log_q).sum(dim=-1)

        return loss

    @staticmethod
    def _negative_entropy(p: Float[Tensor, "samples dim"]) -> Float[Tensor, " samples"]:
        return torch.special.entr(p).sum(dim=-1).neg()
