"""Attacks by gradient steps: PGD and Auto-PGD, on images against texts, and on sensors and scenes."""

from abc import abstractmethod
from typing import ClassVar, NamedTuple, get_args

from jaxtyping import Int64
from torch import Tensor

from crossguard.attacks.apgd import auto_maximise
from crossguard.attacks.ascent import (
    LossAndGradient,
    LossPerSample,
    Start,
    StepRule,
    ascend,
    best_of_starts,
    step_size,
    with_gradient,
    with_momentum,
)
from crossguard.attacks.ball import Ball, Values
from crossguard.attacks.base import ANY_BALL, Attack
from crossguard.attacks.budget import Budgets
from crossguard.attacks.goals import Goal
from crossguard.attacks.image_loss import image_loss
from crossguard.attacks.objectives import Objective
from crossguard.attacks.options import check_starts, check_step_rule, check_steps
from crossguard.attacks.parts import Parts
from crossguard.attacks.towards import Chosen
from crossguard.attacks.views import diverse_gradient
from crossguard.checks import check_choice
from crossguard.data import PairBatch
from crossguard.models import VisionLanguageModel

STEPS, SAMPLE_STEPS = 10, 20
"""By default, for each restart: on images against texts; on sensors and scenes, for each objective."""


class Draw(NamedTuple):
    """What random numbers belong to: samples, the attack's seed, and a restart."""

    ids: Int64[Tensor, " samples"]
    seed: int
    number: int


class GradientAttack(Attack):
    """Base of attacks that raise any loss of values in any ball.

    Of sensors and scenes it raises one objective after another, the first from the start, each other one from the worst
    so far, and keeps the worst of each sample.

    Attributes:
        steps: gradient steps per restart (and objective); None: the default.
        start: "uniform" in the ball, or "clean".
        restarts: independent runs; the best result per sample is kept.
        objective: of images against texts.
    """

    uses = frozenset({"image"})
    takes = ANY_BALL
    masks: ClassVar[bool] = True
    aims: ClassVar[bool] = True
    steps: int | None
    start: Start
    restarts: int
    objective: Objective

    @abstractmethod
    def once(self, loss: LossPerSample, ball: Ball, start: Values | None, steps: int, draw: Draw) -> Values:
        """Raise a loss from one start (None: the clean values)."""

    def run(
        self, model: VisionLanguageModel, batch: PairBatch, *, budget: Budgets, seed: int
    ) -> tuple[Values, tuple[str, ...]]:
        """Attack the images against their clean texts."""
        if not budget.moves_images:
            return batch.pixels, batch.texts
        loss = image_loss(model, batch, batch.texts, objective=self.objective)
        return self.raised(loss, budget.ball(model, batch.pixels), batch.image_ids, seed=seed), batch.texts

    def run_towards(
        self, model: VisionLanguageModel, batch: PairBatch, chosen: Chosen, *, budget: Budgets, seed: int
    ) -> tuple[Values, tuple[str, ...]]:
        """Raise the likelihood of a chosen text among all."""
        if not budget.moves_images:
            return batch.pixels, batch.texts
        loss, ball = chosen.of_images(model, batch.pixels), budget.ball(model, batch.pixels)
        return self.raised(loss, ball, batch.image_ids, seed=seed), batch.texts

    def raised(self, loss: LossPerSample, ball: Ball, ids: Int64[Tensor, " samples"], *, seed: int) -> Values:
        """Maximise any loss with this attack's steps, start and restarts."""
        steps = self.steps or STEPS
        return best_of_starts(
            lambda start, number: self.once(loss, ball, start, steps, Draw(ids, seed, number)),
            loss,
            ball,
            ids,
            seed=seed,
            restarts=self.restarts,
            start=self.start,
        )

    def run_samples(self, goal: Goal) -> Parts:
        """Attack sensors and scenes."""
        steps = self.steps or SAMPLE_STEPS

        def climb(loss: LossPerSample, ball: Ball, start: Values) -> Values:
            return self.once(loss, ball, start, steps, Draw(goal.ids, goal.seed, 0))

        return goal.climb(
            [(objective, climb) for objective in goal.objectives], restarts=self.restarts, start=self.start
        )


class PGD(GradientAttack):
    """Projected gradient descent: signed gradient steps, for L2 along the gradient itself, within the budget.

    Args:
        steps: gradient steps per restart; default: 10, of sensors and scenes 20 for each objective.
        step: a rule, or a size in the budget's units (pixels in [0, 1] for L-inf; of sensors and scenes shares of each
            modality's budget). "co-attack" is 1.25 radii / steps, "sga" is 0.5/255, see `step_size`.
        start: "uniform" in the budget, or "clean".
        restarts: independent runs; the best result per sample is kept. Only for `start="uniform"`.
        keep_best: keep the best iterate per sample instead of the last.
        momentum: decay of the sum of directions (MI-FGSM; 1 in its paper), at least 0; 0 steps by the gradient alone.
        diversity: chance in [0, 1] of an image to be shown smaller, at a random place, when a gradient is taken (DI;
            0.5 in its paper). With `keep_best` this costs another forward per step. Of images alone.
        shrink: the smallest size of such a view, in (0, 1].
        objective: of images against texts: "cosine" (own texts), "contrastive" (own texts among the batch's), "ranking"
            and "match" (of fusion models) or "distance" (from the clean image, which needs a random start), see
            `image_loss`.

    Raises:
        ValueError: an option out of range.
    """

    name = "pgd"

    def __init__(
        self,
        *,
        steps: int | None = None,
        step: str | float = "co-attack",
        start: str = "uniform",
        restarts: int = 1,
        keep_best: bool = True,
        momentum: float = 0.0,
        diversity: float = 0.0,
        shrink: float = 0.9,
        objective: str = "cosine",
    ) -> None:
        check_steps(STEPS if steps is None else steps)
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

    def once(self, loss: LossPerSample, ball: Ball, start: Values | None, steps: int, draw: Draw) -> Values:
        """Take the steps from one start."""
        gradient = with_gradient(loss)
        if self.diversity:
            gradient = diverse_gradient(
                loss, draw.ids, chance=self.diversity, shrink=self.shrink, seed=draw.seed, stream=draw.number
            )
        direction: LossAndGradient = with_momentum(gradient, decay=self.momentum) if self.momentum else gradient
        return ascend(
            direction,
            loss,
            ball,
            steps=steps,
            step_size=step_size(self.step, ball, steps=steps),
            start=start,
            keep_best=self.keep_best,
        )

    def run_samples(self, goal: Goal) -> Parts:
        """Attack sensors and scenes.

        Raises:
            ValueError: `diversity`, which is of images.
        """
        if self.diversity:
            raise ValueError(
                "Expected diversity=0 for sensors and scenes: the views that it takes are of images alone."
            )
        return super().run_samples(goal)


class APGD(GradientAttack):
    """Auto-PGD: no step size to choose.

    Args:
        steps: gradient steps per restart; default: 10, of sensors and scenes 20 for each objective.
        start: as for `PGD`.
        restarts: as for `PGD`.
        objective: as for `PGD`.

    Raises:
        ValueError: an option out of range.
    """

    name = "apgd"

    def __init__(
        self,
        *,
        steps: int | None = None,
        start: str = "uniform",
        restarts: int = 1,
        objective: str = "cosine",
    ) -> None:
        check_steps(STEPS if steps is None else steps)
        self.steps, self.restarts = steps, restarts
        self.start: Start = check_starts(start, restarts, objective)
        self.objective: Objective = check_choice(objective, get_args(Objective), "objective")

    def once(self, loss: LossPerSample, ball: Ball, start: Values | None, steps: int, draw: Draw) -> Values:
        """Climb from one start."""
        return auto_maximise(loss, ball, steps=steps, start=start)
