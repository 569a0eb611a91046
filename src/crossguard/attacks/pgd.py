"""L-inf projected gradient descent on images (Madry et al., 2018)."""

from typing import get_args

from crossguard.attacks.ascent import (
    LossPerSample,
    Pixels,
    Start,
    StepRule,
    best_of_starts,
    maximise,
    step_size,
)
from crossguard.attacks.base import Attack, Budgets
from crossguard.attacks.image_loss import Objective, image_loss
from crossguard.attacks.options import check_choice, check_starts, check_step_rule, check_steps
from crossguard.data import PairBatch
from crossguard.models import VisionLanguageModel


class PGD(Attack):
    """L-inf PGD on images alone (Madry et al., 2018), with the step rules of Co-Attack and SGA.

    Args:
        steps: gradient steps per restart.
        step: "co-attack" (1.25 eps / steps), "sga" (0.5/255), or a size in [0, 1] pixel units.
        start: "uniform" in [-eps, eps], or "clean".
        restarts: independent runs; the best result per sample is kept. Only for `start="uniform"`.
        keep_best: keep the best iterate per sample instead of the last.
        objective: "cosine" (own texts), "contrastive" (own texts among the batch's), "ranking" and "match" (of fusion
            models) or "distance" (from the clean image, which needs a random start), see `image_loss`.

    Raises:
        ValueError: an option out of range.
    """

    name = "pgd"
    uses = frozenset({"image"})

    def __init__(
        self,
        *,
        steps: int = 10,
        step: str | float = "co-attack",
        start: str = "uniform",
        restarts: int = 1,
        keep_best: bool = True,
        objective: str = "cosine",
    ) -> None:
        check_steps(steps)
        self.steps, self.restarts, self.keep_best = steps, restarts, keep_best
        self.step: StepRule | float = check_step_rule(step)
        self.start: Start = check_starts(start, restarts, objective)
        self.objective: Objective = check_choice(objective, get_args(Objective), "objective")

    def run(
        self, model: VisionLanguageModel, batch: PairBatch, *, budget: Budgets, seed: int
    ) -> tuple[Pixels, tuple[str, ...]]:
        """Attack the images against their clean texts."""
        if budget.eps == 0:
            return batch.pixels, batch.texts
        loss = image_loss(model, batch, batch.texts, objective=self.objective)
        return self.images(loss, batch, eps=budget.eps, seed=seed), batch.texts

    def images(self, loss: LossPerSample, batch: PairBatch, *, eps: float, seed: int) -> Pixels:
        """Maximise any loss of the images with this attack's steps, start and restarts."""

        def once(start: Pixels | None) -> Pixels:
            return maximise(
                loss,
                batch.pixels,
                eps=eps,
                steps=self.steps,
                step_size=step_size(self.step, eps=eps, steps=self.steps),
                start=start,
                keep_best=self.keep_best,
            )

        return best_of_starts(once, loss, batch, eps=eps, seed=seed, restarts=self.restarts, start=self.start)
