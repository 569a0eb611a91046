"""FAB: the nearest wrong answer, by projections onto linearised borders (Croce & Hein, ICML 2020)."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from crossguard.attacks.ascent import LossPerSample, with_gradient
from crossguard.attacks.ball import NormBall, Values, wide

OVERSHOOT, LARGEST_PULL, BACKWARD, SEARCHES = 1.05, 0.1, 0.9, 3
"""eta, alpha_max and beta of the paper, and the steps of its final search."""


def nearest_border(
    ahead: LossPerSample,
    lead: LossPerSample,
    ball: NormBall,
    start: Values,
    *,
    steps: int,
    see: Callable[[Values, Float[Tensor, " samples"]], None],
) -> Float[Tensor, " samples"]:
    """Walk along the border to a target class, and look for the wrong answer nearest to the clean values.

    At each step the border is taken for the plane that the gradient shows. The step goes to the plane from where the
    walk is, drawn a little to the plane's point nearest to the clean values; past the border, the walk goes back a
    tenth of the way. At the end the border between the nearest wrong answer and the clean values is looked for closely.

    Args:
        ahead: the lead of the target class over the right ones, differentiable.
        lead: the lead of the best wrong class; an answer is wrong at 0 or above.
        ball: the clean values, and the norm. The walk may leave its radius.
        start: where to begin.
        steps: gradient steps, each with another forward.
        see: told of values within the ball, and of `lead` there.

    Returns:
        The distance of the nearest wrong answer that was found, in the ball's units; infinite where there was none.
    """
    clean, current, slope_of = ball.clean, start, with_gradient(ahead)
    with torch.no_grad():
        clean_lead = lead(clean)
    best, best_lead, nearest = clean, clean_lead, torch.full_like(clean_lead, torch.inf)

    @torch.no_grad()
    def judge(values: Values) -> tuple[Float[Tensor, " samples"], Float[Tensor, " samples"]]:
        found, distance = lead(values), ball.length(values - clean)
        see(ball.project(values), torch.where(distance <= ball.radius * (1 + 1e-5), found, -torch.inf))
        return found, distance

    for _ in range(steps):
        height, slope = slope_of(current)
        rise_from_clean = (slope * (current - clean)).flatten(1).sum(dim=1)
        there = ball.to_plane(current, slope, -height)
        home = ball.to_plane(clean, slope, rise_from_clean - height)
        far, near = ball.length(there), ball.length(home)
        pull = wide((far / (far + near).clamp(min=1e-12)).clamp(max=LARGEST_PULL), clean)
        current = ((1 - pull) * (current + OVERSHOOT * there) + pull * (clean + OVERSHOOT * home)).clamp(0, 1)
        found, distance = judge(current)
        closer = (found >= 0) & (distance < nearest)
        best = torch.where(wide(closer, clean), current, best)
        best_lead, nearest = torch.where(closer, found, best_lead), torch.where(closer, distance, nearest)
        current = torch.where(wide(found >= 0, clean), clean + BACKWARD * (current - clean), current)

    inner, inner_lead = clean, clean_lead
    for _ in range(SEARCHES):
        share = inner_lead / (inner_lead - best_lead).clamp(max=-1e-12)
        middle = torch.lerp(inner, best, wide(share, clean))
        found, distance = judge(middle)
        closer = (found >= 0) & nearest.isfinite()
        best = torch.where(wide(closer, clean), middle, best)
        best_lead, nearest = torch.where(closer, found, best_lead), torch.where(closer, distance, nearest)
        inner = torch.where(wide(closer, clean), inner, middle)
        inner_lead = torch.where(closer, inner_lead, found)
    # On the ball's rim the answer is as wrong as this direction makes it: rounding to what can be stored may cost some.
    judge(clean + (best - clean) * wide((ball.radius / nearest.clamp(min=1e-12)).nan_to_num(0.0), clean))
    return nearest
