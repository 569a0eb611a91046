"""What attacks on classifiers and segmenters raise, and by what their findings are judged."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import log
from typing import TypeAlias

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import relu

from crossguard.attacks.apgd import auto_ascend
from crossguard.attacks.ascent import LossPerSample, Start, with_gradient
from crossguard.attacks.ball import Ball, Values, wide
from crossguard.attacks.parts import Block, Box, Part, Parts, PartsLoss, all_rows, choose
from crossguard.checks import lookup
from crossguard.threat import Budget

LogProbabilities: TypeAlias = Float[Tensor, "rows labels ..."]
Truth: TypeAlias = Int64[Tensor, "rows ..."]
PerRow: TypeAlias = Float[Tensor, " rows"]
Climb: TypeAlias = Callable[[LossPerSample, Ball, Values], Values]
"""From a loss, a ball and a start to values of a higher loss."""
SLICE = 10
"""Steps of one run of the adaptive attack."""
STRONGEST = "strongest"
"""The objective that stands for all of a task's, the worst of each sample."""


def margin_loss(log_probabilities: LogProbabilities, truth: Truth) -> PerRow:
    """Return by how much the likeliest wrong label leads, in nats; above 0 where the answer is wrong.

    Of a segmentation the mean over the judged pixels of the lead, cut at 1: a pixel that is wrong for good asks for no
    more. Labels of -1 are not judged.
    """
    index = truth.clamp(min=0).unsqueeze(1)
    right = log_probabilities.gather(1, index).squeeze(1)
    wrong = log_probabilities.scatter(1, index, -torch.inf).amax(dim=1)
    lead = torch.where(truth >= 0, wrong - right, torch.zeros_like(right))
    return lead if lead.ndim == 1 else _mean(1 - relu(1 - lead), truth)


def entropy_loss(log_probabilities: LogProbabilities, truth: Truth) -> PerRow:
    """Return the cross-entropy of the true labels in nats, of a segmentation its mean over the judged pixels."""
    return _mean(_surprise(log_probabilities, truth), truth)


def masked_entropy_loss(log_probabilities: LogProbabilities, truth: Truth) -> PerRow:
    """Return the cross-entropy of the pixels that are still right; each lost one counts as log(labels), the most.

    Its gradient is that of the pixels still right alone (the masked cross-entropy of Croce et al., ECCV 2024, and the
    idea of SegPGD; Gu et al., ECCV 2022), and it rises with every pixel that is lost.
    """
    lost = log_probabilities.argmax(dim=1) != truth
    most = log(log_probabilities.shape[1])
    return _mean(torch.where(lost, most, _surprise(log_probabilities, truth)), truth)


def divergence_loss(log_probabilities: LogProbabilities, truth: Truth) -> PerRow:
    """Return the Jensen-Shannon divergence of the answer from the truth in nats, at most log 2; its mean over pixels.

    It flattens out where the answer is surely wrong (Croce et al., ECCV 2024).
    """
    surprise = _surprise(log_probabilities, truth)
    p = (-surprise).exp()
    # The divergence from a one-hot truth depends on the true label's share p alone.
    return _mean(log(2.0) - (p * surprise + (1 + p) * torch.log1p(p)) / 2, truth)


OBJECTIVES: dict[str, Callable[[LogProbabilities, Truth], PerRow]] = {
    "cross-entropy": entropy_loss,
    "margin": margin_loss,
    "masked-cross-entropy": masked_entropy_loss,
    "jensen-shannon": divergence_loss,
}
_OF_LABELS = ("cross-entropy", "margin")
"""Of a single label, the others only rescale the cross-entropy."""
_OF_MASKS = ("jensen-shannon", "masked-cross-entropy", "margin", "cross-entropy")
"""Those that let go of lost pixels first."""


def objectives_of(name: str, *, masks: bool) -> tuple[str, ...]:
    """Return the objectives that a name stands for.

    Raises:
        ValueError: an unknown name.
    """
    if name == STRONGEST:
        return _OF_MASKS if masks else _OF_LABELS
    lookup(OBJECTIVES | {STRONGEST: entropy_loss}, name, what="objective")
    return (name,)


def lost(log_probabilities: LogProbabilities, truth: Truth) -> PerRow:
    """Return how lost each sample is: the lead of the likeliest wrong label, or the share of wrong pixels."""
    if truth.ndim == 1:
        return margin_loss(log_probabilities, truth)
    return _mean((log_probabilities.argmax(dim=1) != truth).float(), truth)


@dataclass(frozen=True)
class Goal:
    """A batch of samples as attacks see it.

    Args:
        ask: differentiable log-probabilities of rows of parts, and the sample that each row is of.
        truth: the true labels or masks; -1 is not judged.
        settle: the nearest parts that can be stored, of rows and their samples.
        objectives: what is raised, one after the other; the worst of each sample is kept.
        clean: the samples as parts, in [0, 1].
        budgets: by modality.
        blocks: the samples' values as pictures, by modality.
        ids: what the samples are called, by which random numbers are drawn.
        seed: of the random numbers.
        words: modalities whose values are symbols, and how many there are.
        rows_per_forward: the most inputs of one forward pass where elements are tried.
    """

    ask: Callable[[Mapping[str, Part], Int64[Tensor, " rows"]], LogProbabilities]
    truth: Truth
    settle: Callable[[Mapping[str, Part], Int64[Tensor, " rows"]], Parts]
    objectives: tuple[str, ...]
    clean: Mapping[str, Part]
    budgets: Mapping[str, Budget]
    blocks: Mapping[str, Block]
    ids: Int64[Tensor, " samples"]
    seed: int
    words: Mapping[str, int]
    rows_per_forward: int

    @cached_property
    def box(self) -> Box | None:
        """All budgets as one ball; None where nothing may move."""
        return Box.around(self.clean, self.budgets, self.blocks)

    def loss(self, objective: str) -> PartsLoss:
        """Return an objective as a loss of rows of parts."""
        of = OBJECTIVES[objective]
        return lambda parts, rows: of(self.ask(parts, rows), self.truth[rows])

    @torch.no_grad()
    def judge(self, parts: Mapping[str, Part]) -> PerRow:
        """Return how lost each sample is with what can be stored of these parts."""
        rows = all_rows(parts)
        return lost(self.ask(self.settle(parts, rows), rows), self.truth)

    def climb(self, climbs: Iterable[tuple[str, Climb]], *, restarts: int, start: Start = "uniform") -> Parts:
        """Climb from several starts by one run after another, each from the worst of its restart so far.

        Args:
            climbs: an objective, and how to raise it.
            restarts: number of starts.
            start: "uniform" in the ball, or "clean".

        Returns:
            The most lost of each sample.
        """
        best, box = dict(self.clean), self.box
        if box is None:
            return best
        worst, climbs = self.judge(best), list(climbs)
        for restart in range(restarts):
            drawn = start == "uniform"
            current = box.ball.start(self.ids, seed=self.seed, stream=restart) if drawn else box.ball.clean
            so_far = torch.full_like(worst, -torch.inf)
            for objective, climb in climbs:
                reached = climb(box.loss(self.loss(objective)), box.ball, current)
                value = self.judge(box.split(reached))
                current = torch.where(wide(value > so_far, reached), reached, current)
                so_far = torch.maximum(value, so_far)
            best = choose(so_far > worst, box.split(current), best)
            worst = torch.maximum(so_far, worst)
        return best


def climb_by_slices(goal: Goal, *, steps: int, restarts: int) -> Parts:
    """Raise all objectives in turn by short runs of Auto-PGD, each from the worst so far.

    More steps or restarts never leave more: they add runs, and change none.

    Args:
        goal: the samples.
        steps: gradient steps of each objective and restart, in runs of ten, rounded up.
        restarts: random starts.
    """

    def run(number: int) -> Climb:
        # Later runs refine: the first step of a run leaves its start behind.
        first = 2.0 / 2 ** min(number, 3)
        return lambda loss, ball, start: auto_ascend(
            with_gradient(loss), loss, ball, steps=SLICE, start=start, first=first
        )

    runs = [(objective, run(number)) for number in range(-(-steps // SLICE)) for objective in goal.objectives]
    return goal.climb(runs, restarts=restarts)


def _surprise(log_probabilities: LogProbabilities, truth: Truth) -> Float[Tensor, "rows ..."]:
    return -log_probabilities.gather(1, truth.clamp(min=0).unsqueeze(1)).squeeze(1)


def _mean(values: Float[Tensor, "rows ..."], truth: Truth) -> PerRow:
    """Return the mean over what is judged; 0 for a row without."""
    judged = (truth >= 0).unsqueeze(-1).flatten(1)
    kept = torch.where(judged, values.unsqueeze(-1).flatten(1), 0.0)
    return kept.sum(dim=1) / judged.sum(dim=1).clamp(min=1)
