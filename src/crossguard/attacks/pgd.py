"""L-inf projected gradient descent on images (Madry et al., 2018)."""

from typing import get_args

from crossguard.attacks.ascent import (
    LossAndGradient,
    LossPerSample,
    Pixels,
    Start,
    StepRule,
    ascend,
    best_of_starts,
    step_size,
    with_gradient,
    with_momentum,
)
from crossguard.attacks.ball import LInfBall
from crossguard.attacks.base import Attack, Budgets
from crossguard.attacks.image_loss import image_loss
from crossguard.attacks.objectives import Objective
from crossguard.attacks.options import check_starts, check_step_rule, check_steps
from crossguard.attacks.views import diverse_gradient
from crossguard.checks import check_choice
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
        momentum: decay of the sum of directions (MI-FGSM; 1 in its paper), at least 0; 0 steps by the gradient alone.
        diversity: chance in [0, 1] of an image to be shown smaller, at a random place, when a gradient is taken (DI;
            0.5 in its paper). With `keep_best` this costs another forward per step.
        shrink: the smallest size of such a view, in (0, 1].
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
        momentum: float = 0.0,
        diversity: float = 0.0,
        shrink: float = 0.9,
        objective: str = "cosine",
    ) -> None:
        check_steps(steps)
        if not 0 <= momentum < float("inf"):
            raise ValueError(f"Expected `momentum` >= 0, but got {momentum}.")
        if not 0 <= diversity <= 1:
            raise ValueError(f"Expected `diversity` in [0, 1], but got {diversity}.")
        if not 0 < shrink <= 1:
            raise ValueError(f"Expected `shrink` in (0, 1], but got {shrink}.")
        self.momentum, self.diversity, self.shrink = momentum, diversity, shrink
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

        def once(start: Pixels | None, restart: int) -> Pixels:
            return ascend(
                self._direction(loss, batch, seed=seed, stream=restart),
                loss,
                LInfBall(batch.pixels, eps),
                steps=self.steps,
                step_size=step_size(self.step, eps=eps, steps=self.steps),
                start=start,
                keep_best=self.keep_best,
            )

        return best_of_starts(once, loss, batch, eps=eps, seed=seed, restarts=self.restarts, start=self.start)

    def _direction(self, loss: LossPerSample, batch: PairBatch, *, seed: int, stream: int) -> LossAndGradient:
        if self.diversity:
            gradient = diverse_gradient(
                loss, batch, chance=self.diversity, shrink=self.shrink, seed=seed, stream=stream
            )
        else:
            gradient = with_gradient(loss)
        return with_momentum(gradient, decay=self.momentum) if self.momentum else gradient
