"""Projected gradient ascent on pixels, as pure functions that attacks and training's inner maximisation share."""

from collections.abc import Callable
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from crossguard.attacks.ball import LInfBall, Values, wide
from crossguard.data import PairBatch

Pixels: TypeAlias = Float[Tensor, "images 3 height width"]
LossPerSample: TypeAlias = Callable[[Values], Float[Tensor, " images"]]
LossAndGradient: TypeAlias = Callable[[Values], tuple[Float[Tensor, " images"], Values]]
StepRule = Literal["co-attack", "sga"]
Start = Literal["uniform", "clean"]


def step_size(rule: StepRule | float, *, eps: float, steps: int) -> float:
    """Return the size of one step in [0, 1] pixel units.

    Args:
        rule: "co-attack" is 1.25 eps / steps; "sga" is 0.5/255; a number is itself.
        eps: L-inf budget.
        steps: number of steps.
    """
    if isinstance(rule, str):
        return {"co-attack": 1.25 * eps / max(1, steps), "sga": 0.5 / 255}[rule]
    return rule


def random_start(batch: PairBatch, *, eps: float, seed: int, stream: int = 0) -> Pixels:
    """Return the batch's pixels plus noise uniform in [-eps, eps], in [0, 1]; it depends on (seed, image id) alone."""
    return LInfBall(batch.pixels, eps).start(batch.image_ids, seed=seed, stream=stream)


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
    pixels: Values,
    *,
    eps: float,
    steps: int,
    step_size: float,
    start: Values | None = None,
    keep_best: bool = True,
) -> Values:
    """Maximise a loss of every sample over the L-inf ball around `pixels` by signed gradient steps.

    Gradients are taken for the pixels alone: nothing reaches the `.grad` of weights, frozen or not. Samples are
    independent as long as the loss of one does not depend on another's pixels.

    Args:
        loss_per_sample: differentiable, from pixels to float [images]; their sum is differentiated.
        pixels: the clean pixels in [0, 1], the centre of the ball.
        eps: L-inf budget in [0, 1] pixel units.
        steps: number of gradient steps (one forward and backward each).
        step_size: in [0, 1] pixel units.
        start: where to begin, within the ball; default: the clean pixels.
        keep_best: return the iterate of the highest loss per sample (the start is one; costs one more forward) instead
            of the last one.

    Returns:
        Values within `eps` of the clean ones and in [0, 1], detached.
    """
    return ascend(
        with_gradient(loss_per_sample),
        loss_per_sample,
        LInfBall(pixels, eps),
        steps=steps,
        step_size=step_size,
        start=start,
        keep_best=keep_best,
    )


def ascend(
    gradient: LossAndGradient,
    value: LossPerSample,
    ball: LInfBall,
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
        step_size: in the ball's units.
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
    once: Callable[[Pixels | None, int], Pixels],
    loss: LossPerSample,
    batch: PairBatch,
    *,
    eps: float,
    seed: int,
    restarts: int,
    start: Start,
) -> Pixels:
    """Run an ascent from one or several starts and keep the best result per sample.

    Args:
        once: one ascent, from a start (None: the clean pixels), with its number.
        loss: judges the results, float [images].
        batch: gives the clean pixels and the image ids that starts are drawn by.
        eps: L-inf budget.
        seed: of the starts.
        restarts: number of starts.
        start: "uniform" in [-eps, eps] or "clean".
    """
    best, best_loss = batch.pixels, None
    for restart in range(restarts):
        found = once(random_start(batch, eps=eps, seed=seed, stream=restart) if start == "uniform" else None, restart)
        if restarts == 1:
            return found
        with torch.no_grad():
            best, best_loss = better(best, best_loss, found, loss(found))
    return best
