"""The attack that a defence must be judged by: on the very score the task ranks by, with Auto-PGD."""

from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from typing import Literal, get_args

import torch

from crossguard.attacks.apgd import auto_maximise
from crossguard.attacks.ascent import LossPerSample, Pixels, better, random_start
from crossguard.attacks.base import Attack, Budgets
from crossguard.attacks.budget import project_pixels
from crossguard.attacks.image_loss import image_loss
from crossguard.attacks.mixture import worst_mixture
from crossguard.attacks.objectives import Objective
from crossguard.attacks.options import check_steps
from crossguard.attacks.ranking import ranking_loss, text_states
from crossguard.attacks.remember import Remember
from crossguard.attacks.sources import SourceLike, make_source
from crossguard.attacks.swap import Order, swap_words
from crossguard.attacks.text_score import TextScore, text_score
from crossguard.checks import check_choice
from crossguard.data import PairBatch
from crossguard.models import VisionLanguageModel

Mode = Literal["joint", "alternating"]
Texts = tuple[str, ...]


class Adaptive(Attack):
    """Ascent on images and texts together; no half-step gives back what another one gained.

    Each round, (1) every text is attacked from its original under the present images, and the worse for the victim of
    its present and its new form is kept; (2) every image is attacked by Auto-PGD against the present texts, once per
    objective and start, from a random start and, after the first round, from where it stands; the best is kept per
    image. What is better is said by `judge`. At the end the images and the worst `variants` of every text that were
    met on the way are mixed, sample by sample, into the one set under which retrieval of the batch
    fails most (`worst_mixture`).

    "ranking" is what retrieval ranks by: the cross-entropy of the true partners among the images and texts of the batch
    by the cosine, and for fusion models the same by the match score among own and nearest partners. Give it batches of
    the size the defence was trained with, or larger; in a batch without strangers, whose texts all belong to all of its
    images, "ranking" and "contrastive" are 0, and "cosine" stands in for them. With "cosine" as judge and sole
    objective, results do not depend on the batch, and nothing is mixed. If the threat lets queries or the gallery alone
    be attacked, images are attacked against the clean texts and texts against the clean images, as retrieval will meet
    them.

    Args:
        mode: "alternating" holds the texts still while images move; "joint" lets every text be the worst of its
            `variants` for the images as they are at each gradient step.
        rounds: of texts, then images.
        steps: Auto-PGD steps per round, objective and start.
        restarts: random starts per round.
        objectives: losses to raise, of images (`image_loss`) and of texts (`text_score`): name the defence's own.
            "distance" is that of FARE and LEAF, "contrastive" that of TeCoA, MMCoA, MAT and MAT+.
        judge: "ranking" or "cosine".
        variants: how many forms of a text are kept in play.
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
        mode: str = "joint",
        rounds: int = 2,
        steps: int = 10,
        restarts: int = 1,
        objectives: Sequence[str] = ("ranking",),
        judge: str = "ranking",
        variants: int = 8,
        source: SourceLike = "thesaurus",
        order: str = "all",
    ) -> None:
        check_steps(steps)
        sizes = {"rounds": rounds, "restarts": restarts, "objectives": len(objectives), "variants": variants}
        for option, value in sizes.items():
            if value < 1:
                raise ValueError(f"Expected `{option}` of at least one, but got {value}.")
        self.mode: Mode = check_choice(mode, get_args(Mode), "mode")
        self.rounds, self.steps, self.restarts, self.variants = rounds, steps, restarts, variants
        self.objectives: tuple[Objective, ...] = tuple(
            check_choice(objective, get_args(Objective), "objectives") for objective in objectives
        )
        self.judge: Objective = check_choice(judge, ("ranking", "cosine"), "judge")
        self.order: Order = check_choice(order, get_args(Order), "order")
        self.source = make_source(source)

    def run(self, model: VisionLanguageModel, batch: PairBatch, *, budget: Budgets, seed: int) -> tuple[Pixels, Texts]:
        """Attack in rounds, then mix what was found; each side against the clean other one if only one is attacked."""
        how = self._without_strangers() if bool(batch.positives.all()) else self
        if budget.target != "both" and budget.words and budget.eps:
            pixels, _ = how._search(model, batch, replace(budget, words=0), seed)
            _, texts = how._search(model, batch, replace(budget, eps=0.0), seed)
            return pixels, texts
        return how._search(model, batch, budget, seed)

    def _without_strangers(self) -> "Adaptive":
        """Return this attack with "cosine" in the place of what compares with strangers."""
        how = copy(self)
        how.judge = "cosine"
        told: list[Objective] = ["cosine" if o in ("ranking", "contrastive") else o for o in self.objectives]
        how.objectives = tuple(dict.fromkeys(told))
        return how

    def _search(self, model: VisionLanguageModel, batch: PairBatch, budget: Budgets, seed: int) -> tuple[Pixels, Texts]:
        search = _Search(self, model, batch, budget, seed)
        for turn in range(self.rounds):
            search.change_texts()
            search.change_images(turn)
        if budget.eps:
            search.change_texts()
        if self.judge == "cosine":
            return search.pixels, search.texts
        return worst_mixture(model, batch, [search.pixels, *search.images], [search.texts, *search.variants])


class _Search:
    """One batch under attack: as it stands, and what was met on the way."""

    def __init__(self, how: Adaptive, model: VisionLanguageModel, batch: PairBatch, budget: Budgets, seed: int) -> None:
        self.how, self.model, self.batch, self.budget, self.seed = how, model, batch, budget, seed
        self.pixels, self.texts = batch.pixels, batch.texts
        self.images: list[Pixels] = []
        self.variants: list[Texts] = []

    def change_texts(self) -> None:
        """Attack the texts from the originals under the present images."""
        if not self.budget.words:
            return
        judge = Remember(self._text_score(self.how.judge), self.batch.texts, hidden=self.model.mask_token)
        for objective in self.how.objectives:
            found = swap_words(
                self.model,
                self.batch.texts,
                None,
                self.batch.positives,
                words=self.budget.words,
                kinds=self.budget.kinds,
                source=self.how.source,
                order=self.how.order,
                score=judge if objective == self.how.judge else self._text_score(objective),
            )
            before, after = (judge(texts, range(len(texts))) for texts in (self.texts, found))
            better_texts = zip(self.texts, found, before, after, strict=True)
            self.texts = tuple(new if a < b else old for old, new, b, a in better_texts)
        self.variants = judge.worst(self.texts, size=self.how.variants)

    def _text_score(self, objective: Objective) -> TextScore:
        return text_score(self.model, self.batch, self.pixels, objective=objective)

    def change_images(self, turn: int) -> None:
        """Attack the images against the present texts, or against the worst of their variants."""
        eps, how = self.budget.eps, self.how
        if not eps:
            return
        judge = self._image_loss(how.judge)
        with torch.no_grad():
            best, best_loss = self.pixels, judge(self.pixels)
        starts = [
            random_start(self.batch, eps=eps, seed=self.seed, stream=turn * how.restarts + restart)
            for restart in range(how.restarts)
        ]
        if turn:
            starts.append(self.pixels)
        for objective in how.objectives:
            loss = judge if objective == how.judge else self._image_loss(objective)
            for start in starts:
                found = auto_maximise(loss, self.batch.pixels, eps=eps, steps=how.steps, start=start)
                found = project_pixels(found, self.batch.pixels, eps=eps)
                self.images.append(found)
                with torch.no_grad():
                    best, best_loss = better(best, best_loss, found, judge(found))
        self.pixels = best

    def _image_loss(self, objective: Objective) -> LossPerSample:
        if objective == "ranking" and self.how.mode == "joint" and self.variants:
            flat = [text for forms in zip(*self.variants, strict=True) for text in forms]
            return ranking_loss(self.model, self.batch.positives, text_states(self.model, flat))
        return image_loss(self.model, self.batch, self.texts, objective=objective)
