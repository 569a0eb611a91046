"""AutoAttack and its parts: images against their own texts among all texts, sensors against their labels."""

from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import one_hot

from crossguard.attacks.ascent import Pixels
from crossguard.attacks.ball import Values
from crossguard.attacks.base import ANY_BALL, Attack, Takes
from crossguard.attacks.budget import Budgets
from crossguard.attacks.class_search import (
    BorderPart,
    CrossEntropyPart,
    ScorePart,
    Search,
    SquarePart,
    TargetedPart,
    run_parts,
    standard_parts,
)
from crossguard.attacks.goals import Goal
from crossguard.attacks.parts import Parts
from crossguard.attacks.ranking import NEGATIVES, contested, cosines, image_states, ranking_scores, text_states
from crossguard.attacks.scores import ClassScores, Rows, Scores
from crossguard.attacks.towards import Chosen
from crossguard.checks import lookup
from crossguard.data import PairBatch
from crossguard.models import FusionModel, VisionLanguageModel
from crossguard.threat import L2, LInf

PARTS = ("apgd-ce", "apgd-t", "fab-t", "square")
LINF: Takes = {**ANY_BALL, "image": (LInf,)}
NORMS: Takes = {**ANY_BALL, "image": (LInf, L2)}


def image_scores(model: VisionLanguageModel, batch: PairBatch) -> ClassScores:
    """Return the scores that retrieval ranks texts by for images: the classes are the batch's texts.

    Texts linked with an image are right, all others wrong. A fusion model is asked about the contested pairs alone
    (see `ranking.contested`), as in retrieval.
    """
    texts, positives = text_states(model, batch.texts), batch.positives
    asked = torch.ones_like(positives)
    if isinstance(model, FusionModel):
        with torch.no_grad():
            asked = contested(cosines(image_states(model, batch.pixels), texts), positives, negatives=NEGATIVES)

    def scores(pixels: Float[Tensor, "rows 3 height width"], rows: Rows) -> Scores:
        return ranking_scores(model, image_states(model, pixels), texts, asked[rows]).float()

    return ClassScores(scores, right=positives, wrong=asked & ~positives)


class OnScores(Attack):
    """Base of attacks on class scores: one part after another, each on the images that are still found.

    Images are attacked against their own clean texts among all texts: an image is lost when another text ranks as high
    as all its own. Images that rank wrongly already are left clean, so that these attacks say much about TR@1, and
    little about other figures. Sensors and scenes have labels for classes, in all budgeted modalities at once; masks
    are not attacked.

    Attributes:
        parts: the attacks on scores.
    """

    uses = frozenset({"image"})
    takes = LINF
    masks: ClassVar[bool] = False
    aims: ClassVar[bool] = True
    parts: tuple[ScorePart, ...]

    def run(
        self, model: VisionLanguageModel, batch: PairBatch, *, budget: Budgets, seed: int
    ) -> tuple[Pixels, tuple[str, ...]]:
        """Attack the images against their clean texts."""
        return self._lost(lambda: image_scores(model, batch), model, batch, budget=budget, seed=seed)

    def run_towards(
        self, model: VisionLanguageModel, batch: PairBatch, chosen: Chosen, *, budget: Budgets, seed: int
    ) -> tuple[Pixels, tuple[str, ...]]:
        """Attack the images until a chosen text leads all others: it is the wrong class, and they are the right ones.

        Raises:
            ValueError: a fusion model, which scores no whole gallery.
        """
        if isinstance(model, FusionModel):
            raise ValueError(
                f"Expected an attack that aims by likelihoods (pgd, apgd) for the fusion model {model.name!r}, but got "
                f"{self.name!r}."
            )
        aimed = torch.zeros(len(batch.pixels), len(chosen.gallery), dtype=torch.bool, device=batch.pixels.device)
        aimed[:, chosen.places] = True
        scores = ClassScores(
            lambda pixels, rows: chosen.logits(model, image_states(model, pixels)), right=~aimed, wrong=aimed
        )
        return self._lost(lambda: scores, model, batch, budget=budget, seed=seed)

    def _lost(
        self,
        scores: Callable[[], ClassScores],
        model: VisionLanguageModel,
        batch: PairBatch,
        *,
        budget: Budgets,
        seed: int,
    ) -> tuple[Pixels, tuple[str, ...]]:
        if not budget.moves_images:
            return batch.pixels, batch.texts
        ball = budget.ball(model, batch.pixels)
        # Leads near zero decide, which bfloat16 does not resolve.
        with torch.autocast(batch.pixels.device.type, enabled=False):
            search = Search(
                scores(),
                ball,
                ids=batch.image_ids,
                seed=seed,
                settle=lambda pixels, rows: ball.rows(rows).to_pixels(pixels),
            )
            run_parts(search, self.parts)
        return search.values, batch.texts

    def run_samples(self, goal: Goal) -> Parts:
        """Attack sensors and scenes that are labelled as a whole."""
        box = goal.box
        if box is None:
            return dict(goal.clean)
        labels = len(goal.ask(goal.clean, torch.arange(len(goal.truth), device=goal.truth.device))[0])
        right = one_hot(goal.truth.clamp(min=0), labels).bool() & (goal.truth >= 0)[:, None]

        def scores(values: Values, rows: Rows) -> Scores:
            return goal.ask(box.split(values, rows), rows)

        search = Search(
            ClassScores(scores, right, ~right),
            box.ball,
            ids=goal.ids,
            seed=goal.seed,
            settle=lambda values, rows: box.join(goal.settle(box.split(values, rows), rows)),
            blocks=[goal.blocks[name] for name in box.names],
        )
        run_parts(search, self.parts)
        return box.split(search.values)


class AutoAttack(OnScores):
    """AutoAttack (Croce & Hein, ICML 2020): `apgd-ce`, `apgd-t`, `fab-t`, `square`, by default as its authors run them.

    Args:
        steps: gradient steps of each run of the first three.
        targets: texts that `apgd-t` and `fab-t` aim at, those of the highest clean scores first.
        restarts: of every part.
        queries: of `square`.
        parts: which of the four run, in this order; default: all. Tables of robust CLIPs use the first two.

    Raises:
        ValueError: a number below one, an unknown part, or none.
    """

    name = "auto-attack"

    def __init__(
        self,
        *,
        steps: int = 100,
        targets: int = 9,
        restarts: int = 1,
        queries: int = 5000,
        parts: Sequence[str] = PARTS,
    ) -> None:
        built = standard_parts(steps=steps, targets=targets, restarts=restarts, queries=queries)
        known = dict(zip(PARTS, built, strict=True))
        self.parts = tuple(lookup(known, name, what="part of auto-attack") for name in parts)
        if not self.parts:
            raise ValueError("Expected at least one of AutoAttack's parts, but got none.")


class APGDCE(OnScores):
    """The first part of `auto-attack`: Auto-PGD on the cross-entropy of the best own text among the others.

    Args:
        steps: gradient steps of each restart.
        restarts: random starts.

    Raises:
        ValueError: a number below one.
    """

    name = "apgd-ce"
    takes = ANY_BALL

    def __init__(self, *, steps: int = 100, restarts: int = 1) -> None:
        self.parts = (CrossEntropyPart(steps=steps, restarts=restarts),)


class APGDT(OnScores):
    """The second part of `auto-attack`: Auto-PGD on the targeted DLR loss, towards one other text after another.

    Args:
        steps: gradient steps of each target and restart.
        targets: texts to aim at, those of the highest clean scores first.
        restarts: random starts of each target.

    Raises:
        ValueError: a number below one.
    """

    name = "apgd-t"
    takes = ANY_BALL

    def __init__(self, *, steps: int = 100, targets: int = 9, restarts: int = 1) -> None:
        self.parts = (TargetedPart(steps=steps, targets=targets, restarts=restarts),)


class FABT(OnScores):
    """The third part of `auto-attack`: the nearest images that rank one other text after another above their own.

    Args:
        steps: gradient steps of each target and restart.
        targets: texts to aim at, those of the highest clean scores first.
        restarts: the first begins at the clean image, others at random within half the budget.

    Raises:
        ValueError: a number below one.
    """

    name = "fab-t"
    takes = NORMS

    def __init__(self, *, steps: int = 100, targets: int = 9, restarts: int = 1) -> None:
        self.parts = (BorderPart(steps=steps, targets=targets, restarts=restarts),)


class Square(OnScores):
    """The last part of `auto-attack`: random squares at the corners of the budget, without gradients.

    Args:
        queries: forward passes of each restart.
        restarts: random starts.

    Raises:
        ValueError: a number below one.
    """

    name = "square"

    def __init__(self, *, queries: int = 5000, restarts: int = 1) -> None:
        self.parts = (SquarePart(queries=queries, restarts=restarts),)
