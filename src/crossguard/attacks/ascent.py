"""Projected gradient ascent, as pure functions that attacks and training's inner maximisation share."""

from collections.abc import Callable
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from crossguard.attacks.ball import Ball, LInfBall, Values, wide

Pixels: TypeAlias = Float[Tensor, "images 3 height width"]
LossPerSample: TypeAlias = Callable[[Values], Float[Tensor, " images"]]
LossAndGradient: TypeAlias = Callable[[Values], tuple[Float[Tensor, " images"], Values]]
StepRule = Literal["co-attack", "sga"]
Start = Literal["uniform", "clean"]


def step_size(rule: StepRule | float, ball: Ball, *, steps: int) -> float:
    """Return the size of one step, in the units of the ball's stride.

    Args:
        rule: "co-attack" is 1.25 radii / steps; "sga" is 0.5/255 for L-inf, and for other budgets a quarter of the
            radius, which it is at 2/255; a number is itself.
        ball: that the steps are taken in; what is any value in a few places counts as of radius 1.
        steps: number of steps.
    """
    if isinstance(rule, str):
        half = 0.5 / 255 if isinstance(ball, LInfBall) else ball.stride / 4
        return {"co-attack": 1.25 * ball.stride / max(1, steps), "sga": half}[rule]
    return rule


def with_gradient(loss_per_sample: LossPerSample) -> LossAndGradient:
    """Turn a loss per sample into a function that also gives its gradient to the pixels, and to nothing else."""

    def evaluate(pixels: Values) -> tuple[Float[Tensor, " images"], Values]:
        pixels = pixels.detach().requires_grad_(True)
        with torch.enable_grad():
            loss = loss_per_sample(pixels)
            (gradient,) = torch.autograd.grad(loss.sum(), pixels)
        return loss.detach(), gradient

    return evaluate


def with_momentum(gradient: LossAndGradient, *, decay: float) -> LossAndGradient:
    """Add to each direction the decayed sum of those before, each scaled to mean size one (MI-FGSM; Dong et al., 2018).

    Args:
        gradient: what gives loss and direction.
        decay: share of the sum that stays at each step, at least 0; 1 in the paper.
    """
    total: Values | None = None

    def evaluate(pixels: Values) -> tuple[Float[Tensor, " images"], Values]:
        nonlocal total
        loss, direction = gradient(pixels)
        size = direction.flatten(1).abs().mean(dim=1)
        scaled = direction / wide(size.clamp(min=torch.finfo(size.dtype).tiny), direction)
        total = scaled if total is None else decay * total + scaled
        return loss, total

    return evaluate


def maximise(
    loss_per_sample: LossPerSample,
    ball: Ball,
    *,
    steps: int,
    step_size: float,
    start: Values | None = None,
    keep_best: bool = True,
) -> Values:
    """Maximise a loss of every sample over a ball by gradient steps.

    Gradients are taken for the values alone: nothing reaches the `.grad` of weights, frozen or not. Samples are
    independent as long as the loss of one does not depend on another's values.

    Args:
        loss_per_sample: differentiable, from values to float [images]; their sum is differentiated.
        ball: the clean values in [0, 1] and the budget, such as `LInfBall(pixels, eps=2 / 255)`.
        steps: number of gradient steps (one forward and backward each).
        step_size: in the ball's units, of `LInfBall` those of pixels in [0, 1].
        start: where to begin, within the ball; default: the clean values.
        keep_best: return the iterate of the highest loss per sample (the start is one; costs one more forward) instead
            of the last one.

    Returns:
        Values within the ball, detached.
    """
    return ascend(
        with_gradient(loss_per_sample),
        loss_per_sample,
        ball,
        steps=steps,
        step_size=step_size,
        start=start,
        keep_best=keep_best,
    )


def ascend(
    gradient: LossAndGradient,
    value: LossPerSample,
    ball: Ball,
    *,
    steps: int,
    step_size: float,
    start: Values | None = None,
    keep_best: bool = True,
) -> Values:
    """As `maximise`, over any ball, with the direction of steps given apart: it may average views, `value` does not.

    Args:
        gradient: gives the loss of every sample and the direction to step along.
        value: the loss alone, by which the best iterate is kept.
        ball: the clean values and the budget.
        steps: number of steps.
        step_size: in units of the ball's stride.
        start: where to begin, within the ball; default: the clean values.
        keep_best: return the iterate of the highest loss per sample instead of the last.
    """
    current = (ball.clean if start is None else start).detach()
    best, best_loss = current, None
    for _ in range(steps):
        loss, direction = gradient(current)
        if keep_best:
            best, best_loss = better(best, best_loss, current, loss)
        current = ball.project(current + step_size * ball.steepest(direction))
    if not keep_best:
        return current
    with torch.no_grad():
        return better(best, best_loss, current, value(current))[0]


def better(
    best: Values, best_loss: Float[Tensor, " images"] | None, current: Values, loss: Float[Tensor, " images"]
) -> tuple[Values, Float[Tensor, " images"]]:
    """Return, per sample, the pixels of the higher loss and that loss; `best_loss` None stands for the first look."""
    if best_loss is None:
        return current, loss
    higher = loss > best_loss
    return torch.where(wide(higher, current), current, best), torch.where(higher, loss, best_loss)


def best_of_starts(
    once: Callable[[Values | None, int], Values],
    loss: LossPerSample,
    ball: Ball,
    ids: Int64[Tensor, " images"],
    *,
    seed: int,
    restarts: int,
    start: Start,
) -> Values:
    """Run an ascent from one or several starts and keep the best result per sample.

    Args:
        once: one ascent, from a start (None: the clean values), with its number.
        loss: judges the results, float [images].
        ball: where starts are drawn in.
        ids: what the samples are called, by which starts are drawn.
        seed: of the starts.
        restarts: number of starts.
        start: "uniform" in the ball, or "clean".
    """
    best, best_loss = ball.clean, None
    for restart in range(restarts):
        found = once(ball.start(ids, seed=seed, stream=restart) if start == "uniform" else None, restart)
        if restarts == 1:
            return found
        with torch.no_grad():
            best, best_loss = better(best, best_loss, found, loss(found))
    return best
