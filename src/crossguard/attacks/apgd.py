"""Auto-PGD (Croce & Hein, ICML 2020): momentum, and steps that halve when progress stalls; nothing to tune."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from crossguard.attacks.ascent import LossAndGradient, LossPerSample, better, with_gradient
from crossguard.attacks.ball import Ball, Values, wide

MOMENTUM, ENOUGH_INCREASES = 0.75, 0.75
"""alpha and rho of the paper."""


def checkpoints(steps: int) -> tuple[int, ...]:
    """Return the steps after which progress is judged: p_1 = 0.22, p_{j+1} = p_j + max(p_j - p_{j-1} - 0.03, 0.06).

    Example:
        >>> checkpoints(100)
        (22, 41, 57, 70, 80, 87, 93, 99)
    """
    places, before, now = [], 0.0, 0.22
    while now <= 1:
        # The paper takes ceil(p_j * steps); rounding first keeps 0.41 * 100 at 41.
        places.append(-int(-round(now * steps, 6) // 1))
        before, now = now, now + max(now - before - 0.03, 0.06)
    return tuple(dict.fromkeys(place for place in places if 0 < place < steps))


def auto_maximise(loss_per_sample: LossPerSample, ball: Ball, *, steps: int, start: Values | None = None) -> Values:
    """As `auto_ascend`, along the gradient of the loss itself."""
    return auto_ascend(with_gradient(loss_per_sample), loss_per_sample, ball, steps=steps, start=start)


def auto_ascend(
    gradient: LossAndGradient,
    value: LossPerSample,
    ball: Ball,
    *,
    steps: int,
    start: Values | None = None,
    first: float = 2.0,
) -> Values:
    """Maximise a loss of every sample over a ball by Auto-PGD.

    The first step is twice the radius. At every checkpoint, a sample's step is halved and it goes back to its best
    point when fewer than 3/4 of the steps since the last one raised the loss, or when neither its step nor its best
    loss changed since then. Takes `steps` gradients and one more forward.

    Args:
        gradient: gives the loss of every sample and the direction to step along.
        value: the loss alone.
        ball: the clean values and the budget.
        steps: number of gradient steps.
        start: where to begin, within the ball; default: the clean values.
        first: size of the first step, in radii; the paper's 2 leaves the start behind.

    Returns:
        The iterate of the highest loss per sample, detached.
    """
    current = previous = (ball.clean if start is None else start).detach()
    loss, direction = gradient(current)
    best, best_loss, best_direction = current, loss, direction
    size = torch.full_like(loss, first * ball.stride)
    increases = torch.zeros_like(loss)
    last_best, last_reduced, last_place = best_loss, torch.zeros_like(loss, dtype=torch.bool), 0
    places = set(checkpoints(steps))
    for step in range(1, steps + 1):
        plain = ball.project(current + wide(size, current) * ball.steepest(direction))
        momentum = MOMENTUM if step > 1 else 1.0
        moved = ball.project(current + momentum * (plain - current) + (1 - momentum) * (current - previous))
        previous, current = current, moved
        if step == steps:
            with torch.no_grad():
                return better(best, best_loss, current, value(current))[0]
        old_loss = loss
        loss, direction = gradient(current)
        increases += loss > old_loss
        best_direction = torch.where(wide(loss > best_loss, current), direction, best_direction)
        best, best_loss = better(best, best_loss, current, loss)
        if step in places:
            reduced = _stalled(increases, step - last_place, last_reduced, best_loss, last_best)
            size = torch.where(reduced, size / 2, size)
            back = wide(reduced, current)
            current, direction = (
                torch.where(back, best, current),
                torch.where(back, best_direction, direction),
            )
            loss = torch.where(reduced, best_loss, loss)
            last_best, last_reduced, last_place = best_loss, reduced, step
            increases = torch.zeros_like(increases)
    return best


def _stalled(
    increases: Float[Tensor, " images"],
    taken: int,
    last_reduced: Bool[Tensor, " images"],
    best_loss: Float[Tensor, " images"],
    last_best: Float[Tensor, " images"],
) -> Bool[Tensor, " images"]:
    few = increases < ENOUGH_INCREASES * taken
    nothing_new = ~last_reduced & (best_loss <= last_best)
    return few | nothing_new
