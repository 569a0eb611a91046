"""Auto-PGD over several losses at once, in runs that double: any number of steps begins as every smaller one does.

Auto-PGD's schedule depends on its number of steps, so that 40 steps may leave more than 20. Here the schedule is that
of runs of 5, 5, 10, 20, 40, ... steps, each from the best point of those before, and what was best at the end of each
run is a candidate: more steps add candidates and change none.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from crossguard.attacks.apgd import ENOUGH_INCREASES, MOMENTUM, checkpoints
from crossguard.attacks.ascent import Pixels
from crossguard.attacks.ball import Ball, wide

FIRST = 5
"""The steps of the first run, and the fewest that there are."""

Judged: TypeAlias = tuple[Float[Tensor, " rows"], Float[Tensor, " rows"], Bool[Tensor, " rows"]]
RowLoss: TypeAlias = Callable[[Pixels, Int64[Tensor, " rows"]], Judged]
"""From pixels and the numbers of their rows: the loss to raise, what the best is told by, and who is done."""


def runs(steps: int) -> list[int]:
    """Return the lengths of the runs that fit into some steps.

    Example:
        >>> runs(5), runs(12), runs(40)
        ([5], [5, 5], [5, 5, 10, 20])
    """
    lengths, total = [FIRST], FIRST
    while 2 * total <= steps:
        lengths.append(total)
        total *= 2
    return lengths


@dataclass
class _Rows:
    """The state of Auto-PGD for the rows that still move."""

    ids: Int64[Tensor, " rows"]
    current: Pixels
    previous: Pixels
    direction: Pixels
    loss: Float[Tensor, " rows"]
    top: Float[Tensor, " rows"]
    top_pixels: Pixels
    top_direction: Pixels
    size: Float[Tensor, " rows"]
    increases: Float[Tensor, " rows"]
    last_top: Float[Tensor, " rows"]
    last_reduced: Bool[Tensor, " rows"]

    def keep(self, rows: Bool[Tensor, " rows"]) -> None:
        for name, value in vars(self).items():
            setattr(self, name, value[rows])


@dataclass
class _Best:
    """What was best of every row so far: told by what a loss judges by, with the loss and its direction there."""

    pixels: Pixels
    judged: Float[Tensor, " rows"]
    loss: Float[Tensor, " rows"]
    direction: Pixels
    changed: Bool[Tensor, " rows"]


def ascend_in_runs(
    loss: RowLoss, ball: Ball, start: Pixels, *, steps: int
) -> Iterator[tuple[int, Int64[Tensor, " moved"], Pixels]]:
    """Raise a loss of every row within a ball, and give what is best after every run.

    Args:
        loss: tells rows apart by their numbers; a row that is done moves no more and costs nothing.
        ball: about the clean pixels of every row, float [rows, 3, height, width] in [0, 1].
        start: where to begin, within the ball.
        steps: the most gradients, the one at the start included, see `runs`.

    Yields:
        The number of the run, the rows whose best changed in it (all of them in the first), and their best pixels.
    """
    flat = torch.zeros(len(start), device=start.device)
    best = _Best(start.clone(), flat - torch.inf, flat.clone(), torch.zeros_like(start), flat.bool())
    rows = torch.arange(len(start), device=start.device)
    _, _, done = _look(loss, best, ball, start, rows)
    alive = rows[~done]
    for number, length in enumerate(runs(steps)):
        if len(alive):
            alive = _run(loss, ball, best, alive, first=not number, steps=length)
        moved = best.changed.nonzero().squeeze(1)
        yield number, moved, best.pixels[moved]
        best.changed = torch.zeros_like(best.changed)


def _look(
    loss: RowLoss, best: _Best, ball: Ball, at: Pixels, ids: Int64[Tensor, " rows"]
) -> tuple[Float[Tensor, " rows"], Pixels, Bool[Tensor, " rows"]]:
    """Return the loss, the direction of its gradient, and who is done; keep what is best."""
    at = at.detach().requires_grad_(True)
    with torch.enable_grad():
        value, judged, done = loss(at, ids)
        (gradient,) = torch.autograd.grad(value.sum(), at)
    value, judged, direction = value.detach(), judged.detach(), ball.steepest(gradient)
    higher = judged > best.judged[ids]
    rows = ids[higher]
    best.pixels[rows], best.judged[rows] = at.detach()[higher], judged[higher]
    best.loss[rows], best.direction[rows] = value[higher], direction[higher]
    best.changed[rows] = True
    return value, direction, done


def _run(
    loss: RowLoss,
    ball: Ball,
    best: _Best,
    alive: Int64[Tensor, " rows"],
    *,
    first: bool,
    steps: int,
) -> Int64[Tensor, " alive"]:
    """One run of Auto-PGD from the best points, and on with them; return who is not done.

    The first run has looked at its start already, and takes a step less.
    """
    start, value, direction = best.pixels[alive], best.loss[alive], best.direction[alive]
    flat = torch.zeros_like(value)
    size = flat + (2 * ball.stride if first else ball.stride)
    state = _Rows(alive, start, start, direction, value, value, start, direction, size, flat, value, flat.bool())
    places, last = set(checkpoints(steps)), 0
    for step in range(1, steps + (not first)):
        if not len(state.ids):
            break
        ids = state.ids
        here = ball.rows(ids)
        plain = here.project(state.current + wide(state.size, state.current) * state.direction)
        momentum = MOMENTUM if step > 1 else 1.0
        moved = state.current + momentum * (plain - state.current) + (1 - momentum) * (state.current - state.previous)
        state.previous, state.current = state.current, here.project(moved)
        before = state.loss
        state.loss, state.direction, done = _look(loss, best, here, state.current, ids)
        state.increases = state.increases + (state.loss > before)
        higher = state.loss > state.top
        state.top_pixels = torch.where(wide(higher, state.current), state.current, state.top_pixels)
        state.top_direction = torch.where(wide(higher, state.current), state.direction, state.top_direction)
        state.top = torch.where(higher, state.loss, state.top)
        if step in places:
            few = state.increases < ENOUGH_INCREASES * (step - last)
            reduced = few | (~state.last_reduced & (state.top <= state.last_top))
            back = wide(reduced, state.current)
            state.size = torch.where(reduced, state.size / 2, state.size)
            state.current = torch.where(back, state.top_pixels, state.current)
            state.direction = torch.where(back, state.top_direction, state.direction)
            state.loss = torch.where(reduced, state.top, state.loss)
            state.last_top, state.last_reduced, last = state.top, reduced, step
            state.increases = torch.zeros_like(state.increases)
        state.keep(~done)
    return state.ids
