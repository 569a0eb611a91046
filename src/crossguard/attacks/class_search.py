"""The parts of AutoAttack (Croce & Hein, ICML 2020) on any class scores: each attacks what those before left."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from crossguard.attacks.apgd import auto_ascend
from crossguard.attacks.ascent import LossPerSample, with_gradient
from crossguard.attacks.ball import Ball, LInfBall, NormBall, Values, wide
from crossguard.attacks.fab import nearest_border
from crossguard.attacks.options import check_counts
from crossguard.attacks.parts import Block
from crossguard.attacks.scores import (
    ClassScores,
    PerRow,
    Rows,
    Scores,
    Set,
    cross_entropy,
    lead,
    target_lead,
    targeted_ratio,
)
from crossguard.attacks.square import random_squares, stripes

Settle: TypeAlias = Callable[[Values, Rows], Values]
"""From values that were found, and the samples that the rows are of, to the nearest ones that can be stored."""
Loss: TypeAlias = Callable[[Scores, Set, Set], PerRow]
_QUERIES_AT_ONCE = 100
"""After so many queries, samples that are lost leave the search."""
_STREAMS = 2**24
"""Numbers of random streams that one part may use."""


class Search:
    """Samples under attack, and the worst that was found of each.

    Args:
        scored: what the victim answers.
        ball: the clean values and the budget.
        ids: what the samples are called, by which random numbers are drawn.
        seed: of the random numbers.
        settle: to values that can be stored: only what is lost as stored is lost. None: all values can be.
        blocks: how the values of a sample are cut for squares; None: they are one picture, [channels, height, width].

    Attributes:
        values: the settled values of the highest lead of a wrong class.
        lead: that lead; a sample is lost at 0 or above.
    """

    def __init__(
        self,
        scored: ClassScores,
        ball: Ball,
        *,
        ids: Int64[Tensor, " samples"],
        seed: int,
        settle: Settle | None = None,
        blocks: Sequence[Block] | None = None,
    ) -> None:
        self.scored, self.ball, self.ids, self.seed, self.settle = scored, ball, ids, seed, settle
        channels, height, width = ball.clean.shape[1:] if blocks is None else (0, 0, 0)
        self.blocks = ((channels, height, width),) if blocks is None else tuple(blocks)
        self.values = ball.clean
        everyone = torch.arange(len(ids), device=ball.clean.device)
        with torch.no_grad():
            self.lead = scored.lead(self.values, everyone)

    def left(self) -> "Attempt | None":
        """Return the samples whose answer is still right, for another attempt; None where there are none."""
        rows = (self.scored.attackable & (self.lead < 0)).nonzero().flatten()
        if not len(rows):
            return None
        return Attempt(self, rows)

    @torch.no_grad()
    def keep(self, attempt: "Attempt") -> None:
        """Take over what an attempt found, where it is worse than what was known."""
        rows, found = attempt.rows, attempt.values
        if self.settle is not None:
            found = self.settle(found, rows)
        new = self.scored.lead(found, rows)
        higher = new > self.lead[rows]
        self.values = self.values.index_put((rows,), torch.where(wide(higher, found), found, self.values[rows]))
        self.lead = self.lead.index_put((rows,), torch.where(higher, new, self.lead[rows]))


class Attempt:
    """Some samples under attack: the values of the highest lead among all that their victim was asked about.

    Args:
        search: what they are of.
        rows: which samples.
    """

    def __init__(self, search: Search, rows: Rows) -> None:
        self.search, self.rows = search, rows
        self.ball, self.ids, self.seed = search.ball.rows(rows), search.ids[rows], search.seed
        self.right, self.wrong = search.scored.right[rows], search.scored.wrong[rows]
        self.values, self.lead = self.ball.clean, search.lead[rows]

    def see(self, values: Values, found: Float[Tensor, " rows"]) -> None:
        """Remember values within the ball, and the lead there, where it is the highest so far."""
        higher = found > self.lead
        self.values = torch.where(wide(higher, values), values.detach(), self.values)
        self.lead = torch.where(higher, found, self.lead)

    def raising(self, loss: Loss, *, seen: bool = True) -> LossPerSample:
        """Return a loss of the samples' scores as a function of their values; what it is asked about is seen."""

        def evaluate(values: Values) -> Float[Tensor, " rows"]:
            scores = self.search.scored.scores(values, self.rows)
            if seen:
                self.see(values, lead(scores.detach(), self.right, self.wrong))
            return loss(scores, self.right, self.wrong)

        return evaluate


@runtime_checkable
class ScorePart(Protocol):
    """One attack of the ensemble."""

    def run(self, search: Search, *, stream: int) -> None:
        """Attack what is left, with random numbers from `stream` on."""
        ...


@dataclass(frozen=True)
class CrossEntropyPart:
    """`apgd-ce`: Auto-PGD on the cross-entropy.

    Args:
        steps: gradient steps of each restart.
        restarts: random starts; what an earlier one lost is not attacked again.
    """

    steps: int = 100
    restarts: int = 1

    def __post_init__(self) -> None:
        check_counts(steps=self.steps, restarts=self.restarts)

    def run(self, search: Search, *, stream: int) -> None:
        """Attack what is left."""
        for restart in range(self.restarts):
            attempt = search.left()
            if attempt is None:
                return
            start = attempt.ball.start(attempt.ids, seed=attempt.seed, stream=stream + restart)
            loss = attempt.raising(cross_entropy)
            auto_ascend(with_gradient(loss), loss, attempt.ball, steps=self.steps, start=start)
            search.keep(attempt)


@dataclass(frozen=True)
class _OverTargets(ABC):
    """What is tried towards one wrong class after another.

    Args:
        steps: gradient steps of each target and restart.
        targets: wrong classes, those of the highest clean scores first.
        restarts: starts of each target.
    """

    steps: int = 100
    targets: int = 9
    restarts: int = 1

    def __post_init__(self) -> None:
        check_counts(steps=self.steps, targets=self.targets, restarts=self.restarts)

    def run(self, search: Search, *, stream: int) -> None:
        """Attack what is left."""
        for number, target in enumerate(_targets(search, self.targets, self.restarts)):
            attempt = search.left()
            if attempt is None:
                return
            self._towards(target[attempt.rows], attempt, number, stream=stream + number)
            search.keep(attempt)

    @abstractmethod
    def _towards(self, aim: Int64[Tensor, " rows"], attempt: Attempt, number: int, *, stream: int) -> None:
        """Attack towards one wrong class each; `number` counts targets and restarts."""


@dataclass(frozen=True)
class TargetedPart(_OverTargets):
    """`apgd-t`: Auto-PGD on the targeted difference of logits ratio, towards one wrong class after another.

    Args:
        steps: gradient steps of each target and restart.
        targets: wrong classes, those of the highest clean scores first.
        restarts: random starts of each target.
    """

    def _towards(self, aim: Int64[Tensor, " rows"], attempt: Attempt, number: int, *, stream: int) -> None:
        start = attempt.ball.start(attempt.ids, seed=attempt.seed, stream=stream)
        loss = attempt.raising(lambda s, right, wrong: targeted_ratio(s, right, wrong, aim))
        auto_ascend(with_gradient(loss), loss, attempt.ball, steps=self.steps, start=start)


@dataclass(frozen=True)
class BorderPart(_OverTargets):
    """`fab-t`: the nearest wrong answers by projections onto the borders to one wrong class after another.

    Args:
        steps: gradient steps of each target and restart, each with another forward.
        targets: wrong classes, those of the highest clean scores first.
        restarts: the first begins at the clean values, others at random within half the budget.
    """

    def _towards(self, aim: Int64[Tensor, " rows"], attempt: Attempt, number: int, *, stream: int) -> None:
        ball, start = attempt.ball, attempt.ball.clean
        assert isinstance(ball, NormBall)
        if number % self.restarts:
            start = ball.scaled(0.5).start(attempt.ids, seed=attempt.seed, stream=stream)
        ahead = attempt.raising(lambda s, right, wrong: target_lead(s, right, aim), seen=False)
        any_wrong = attempt.raising(lead, seen=False)
        nearest_border(ahead, any_wrong, ball, start, steps=self.steps, see=attempt.see)


@dataclass(frozen=True)
class SquarePart:
    """`square`: random search without gradients, by squares at the corners of the ball.

    Args:
        queries: forward passes of each restart.
        restarts: random starts.
    """

    queries: int = 5000
    restarts: int = 1

    def __post_init__(self) -> None:
        check_counts(queries=self.queries, restarts=self.restarts)

    def run(self, search: Search, *, stream: int) -> None:
        """Attack what is left."""
        for restart in range(self.restarts):
            first = stream + restart * (self.queries + len(search.blocks))
            best, best_lead = search.ball.clean, search.lead
            for begin in range(0, self.queries, _QUERIES_AT_ONCE):
                attempt = search.left()
                if attempt is None:
                    return
                rows, ball, ids, seed = attempt.rows, attempt.ball, attempt.ids, search.seed
                assert isinstance(ball, LInfBall)
                ask = attempt.raising(lead, seen=False)
                now, now_lead = best[rows], best_lead[rows]
                if not begin:
                    with torch.no_grad():
                        now = stripes(ball, search.blocks, ids, seed=seed, stream=first + self.queries)
                        now_lead = ask(now)
                now, now_lead = random_squares(
                    ask,
                    ball,
                    now,
                    now_lead,
                    blocks=search.blocks,
                    queries=range(max(1, begin), min(begin + _QUERIES_AT_ONCE, self.queries)),
                    budget=self.queries,
                    ids=ids,
                    seed=seed,
                    stream=first,
                )
                best, best_lead = best.index_put((rows,), now), best_lead.index_put((rows,), now_lead)
                attempt.see(now, now_lead)
                search.keep(attempt)


def run_parts(search: Search, parts: Sequence[ScorePart]) -> None:
    """Attack with one part after another what those before left."""
    for number, part in enumerate(parts):
        part.run(search, stream=number * _STREAMS)


def _targets(search: Search, count: int, restarts: int) -> list[Int64[Tensor, " samples"]]:
    """Return the target of every sample by turns, each as often as there are restarts.

    A sample with fewer wrong classes goes on with its first again.
    """
    targets = search.scored.targets(search.ball.clean, count)
    targets = torch.where(targets < 0, targets[:, :1].clamp(min=0), targets)
    return [target for target in targets.unbind(dim=1) for _ in range(restarts)]


def standard_parts(
    *, steps: int = 100, targets: int = 9, restarts: int = 1, queries: int = 5000
) -> tuple[ScorePart, ...]:
    """Return AutoAttack's parts in its order; the defaults are its standard version's.

    Raises:
        ValueError: a number below one.
    """
    return (
        CrossEntropyPart(steps=steps, restarts=restarts),
        TargetedPart(steps=steps, targets=targets, restarts=restarts),
        BorderPart(steps=steps, targets=targets, restarts=restarts),
        SquarePart(queries=queries, restarts=restarts),
    )
