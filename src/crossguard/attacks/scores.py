"""Any classifier-like answer as class scores, and the losses that attacks on such scores raise.

Retrieval of images against fixed texts, or labels of sensors: each is a function from a batch of values in [0, 1] to
scores, and a set of classes that are right. A sample is right as long as any right class leads all wrong ones.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from crossguard.attacks.ball import Values

Rows: TypeAlias = Int64[Tensor, " rows"]
Scores: TypeAlias = Float[Tensor, "rows classes"]
Set: TypeAlias = Bool[Tensor, "rows classes"]
PerRow: TypeAlias = Float[Tensor, " rows"]


@dataclass(frozen=True)
class ClassScores:
    """What a victim answers to samples, as attacks see it.

    Args:
        scores: differentiable, from values in [0, 1] of some rows, and the sample that each row is of, to their scores
            (logits), float [rows, classes]. One row's scores do not depend on another row.
        right: bool [samples, classes], the classes that are right.
        wrong: bool [samples, classes], those that are wrong; classes in neither play no part for that sample.
    """

    scores: Callable[[Values, Rows], Scores]
    right: Set
    wrong: Set

    @property
    def attackable(self) -> Bool[Tensor, " samples"]:
        """Where there is something to lose, and something to lose it to."""
        return self.right.any(dim=1) & self.wrong.any(dim=1)

    def lead(self, values: Values, rows: Rows) -> PerRow:
        """Return by how much the best wrong class leads the best right one; at 0 or above the sample is lost."""
        return lead(self.scores(values, rows), self.right[rows], self.wrong[rows])

    def targets(self, clean: Values, count: int) -> Int64[Tensor, "samples targets"]:
        """Return the wrong classes of the highest clean scores, the highest first; -1 where there are no more."""
        with torch.no_grad():
            everyone = torch.arange(len(clean), device=clean.device)
            scores = self.scores(clean, everyone).masked_fill(~self.wrong, -torch.inf)
        values, classes = scores.topk(min(count, scores.shape[1]), dim=1)
        return torch.where(values > -torch.inf, classes, -1)


def lead(scores: Scores, right: Set, wrong: Set) -> PerRow:
    """Return by how much the best wrong class leads the best right one."""
    return _best(scores, wrong) - _best(scores, right)


def cross_entropy(scores: Scores, right: Set, wrong: Set) -> PerRow:
    """Return the surprise at the best right class among the wrong ones, in nats; other right classes do not count."""
    return _contest(scores, right, wrong).logsumexp(dim=1) - _best(scores, right)


def target_lead(scores: Scores, right: Set, target: Rows) -> PerRow:
    """Return by how much one class leads the best right one."""
    return scores.gather(1, target[:, None]).squeeze(1) - _best(scores, right)


def targeted_ratio(scores: Scores, right: Set, wrong: Set, target: Rows) -> PerRow:
    """Return the targeted difference of logits ratio (DLR; Croce & Hein, 2020): it knows neither shift nor scale.

    The lead of the target over the best right class, divided by the highest score less the mean of the third and the
    fourth, all among the best right class and the wrong ones. With fewer than four of these it is the lead alone.
    """
    ahead = target_lead(scores, right, target)
    contest = _contest(scores, right, wrong)
    if contest.shape[1] < 4:
        return ahead
    first, _, third, fourth = contest.topk(4, dim=1).values.unbind(dim=1)
    spread = torch.where(wrong.sum(dim=1) >= 3, first - (third + fourth) / 2, 1.0)
    return ahead / spread.clamp(min=1e-12)


def _best(scores: Scores, among: Set) -> PerRow:
    return scores.masked_fill(~among, -torch.inf).amax(dim=1)


def _contest(scores: Scores, right: Set, wrong: Set) -> Float[Tensor, "rows more"]:
    """The best right class, and the wrong ones."""
    return torch.cat([_best(scores, right)[:, None], scores.masked_fill(~wrong, -torch.inf)], dim=1)
