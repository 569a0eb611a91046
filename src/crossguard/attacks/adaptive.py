"""The attack that a defence must be judged by: joint, alternating, on the score the task ranks by, with Auto-PGD."""

from collections.abc import Sequence
from typing import get_args

import torch

from crossguard.attacks.apgd import auto_maximise
from crossguard.attacks.ascent import Pixels, better, random_start
from crossguard.attacks.base import Attack, Budgets
from crossguard.attacks.encode import encode_images, encode_unit_texts
from crossguard.attacks.image_loss import Objective, image_loss
from crossguard.attacks.options import check_choice, check_steps
from crossguard.attacks.sources import SourceLike, make_source
from crossguard.attacks.swap import Order, TextObjective, score_texts, swap_words
from crossguard.data import PairBatch
from crossguard.models import VisionLanguageModel


class Adaptive(Attack):
    """Alternating ascent on images and texts; no half-step ever gives back what another one gained.

    Each round, (1) every text is attacked from its original under the present images, and the better of its present and
    its new form is kept; (2) every image is attacked by Auto-PGD against the present texts, once per objective and
    start, from a random start and, after the first round, from where it stands; the best is kept per image. Both
    sides are judged by `judge`: "contrastive" is the cross-entropy of the true partners among the images and texts of
    the batch, which is what retrieval ranks by and what contrastive defences train on; give it batches of the size the
    defence was trained with, or larger. With "cosine" and no "contrastive" objective results do not depend on the
    batch.

    Args:
        rounds: of texts, then images.
        steps: Auto-PGD steps per round, objective and start.
        restarts: random starts per round.
        objectives: losses of the image steps, see `image_loss`; "distance" is that of FARE.
        judge: "contrastive" or "cosine"; also the loss of the text steps.
        source: as for `WordSwap`.
        order: as for `WordSwap`.

    Raises:
        ValueError: an option out of range.
    """

    name = "adaptive"
    uses = frozenset({"image", "text"})

    def __init__(
        self,
        *,
        rounds: int = 2,
        steps: int = 10,
        restarts: int = 1,
        objectives: Sequence[str] = ("contrastive", "cosine"),
        judge: str = "contrastive",
        source: SourceLike = "thesaurus",
        order: str = "all",
    ) -> None:
        check_steps(steps)
        for option, value in (("rounds", rounds), ("restarts", restarts), ("objectives", len(objectives))):
            if value < 1:
                raise ValueError(f"Expected `{option}` of at least one, but got {value}.")
        self.rounds, self.steps, self.restarts = rounds, steps, restarts
        self.objectives: tuple[Objective, ...] = tuple(
            check_choice(objective, get_args(Objective), "objectives") for objective in objectives
        )
        self.judge: TextObjective = check_choice(judge, get_args(TextObjective), "judge")
        self.order: Order = check_choice(order, get_args(Order), "order")
        self.source = make_source(source)

    def run(
        self, model: VisionLanguageModel, batch: PairBatch, *, budget: Budgets, seed: int
    ) -> tuple[Pixels, tuple[str, ...]]:
        """Alternate text and image steps."""
        pixels, texts = batch.pixels, batch.texts
        for turn in range(self.rounds):
            if budget.words:
                texts = self._texts(model, batch, pixels, texts, words=budget.words)
            if budget.eps:
                pixels = self._images(model, batch, pixels, texts, eps=budget.eps, seed=seed, turn=turn)
        if budget.words and budget.eps:
            texts = self._texts(model, batch, pixels, texts, words=budget.words)
        return pixels, texts

    @torch.no_grad()
    def _texts(
        self,
        model: VisionLanguageModel,
        batch: PairBatch,
        pixels: Pixels,
        texts: tuple[str, ...],
        *,
        words: int,
    ) -> tuple[str, ...]:
        features, links = encode_images(model, pixels), batch.positives
        found = swap_words(
            model,
            batch.texts,
            features,
            links,
            words=words,
            source=self.source,
            order=self.order,
            objective=self.judge,
        )
        before, after = (score_texts(model, t, features, links, objective=self.judge) for t in (texts, found))
        return tuple(new if a < b else old for old, new, b, a in zip(texts, found, before, after, strict=True))

    def _images(
        self,
        model: VisionLanguageModel,
        batch: PairBatch,
        pixels: Pixels,
        texts: tuple[str, ...],
        *,
        eps: float,
        seed: int,
        turn: int,
    ) -> Pixels:
        features = encode_unit_texts(model, texts)
        judge = image_loss(model, batch, features, objective=self.judge)
        with torch.no_grad():
            best, best_loss = pixels, judge(pixels)
        starts = [
            random_start(batch, eps=eps, seed=seed, stream=turn * self.restarts + restart)
            for restart in range(self.restarts)
        ]
        if turn:
            starts.append(pixels)
        for objective in self.objectives:
            loss = image_loss(model, batch, features, objective=objective)
            for start in starts:
                found = auto_maximise(loss, batch.pixels, eps=eps, steps=self.steps, start=start)
                with torch.no_grad():
                    best, best_loss = better(best, best_loss, found, judge(found))
        return best
