"""The attacks on sensors and scenes: L-inf in every modality at once, AutoAttack's parts, and sparse ones."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any, Literal, TypeAlias

import torch
from jaxtyping import Int64
from torch import Tensor
from torch.nn.functional import one_hot

from crossguard.attacks.apgd import auto_ascend
from crossguard.attacks.ascent import LossPerSample, ascend, with_gradient
from crossguard.attacks.ball import LInfBall, Values, wide
from crossguard.attacks.class_search import (
    BorderPart,
    CrossEntropyPart,
    ScorePart,
    Search,
    SquarePart,
    TargetedPart,
    run_parts,
    standard_parts,
)
from crossguard.attacks.goals import Goal
from crossguard.attacks.options import check_counts
from crossguard.attacks.parts import Box, Part, Parts, choose
from crossguard.attacks.placement import SparseSearch, sparse_ascent
from crossguard.attacks.scores import ClassScores, Rows, Scores
from crossguard.attacks.sparse import sparse_search
from crossguard.checks import check_options, lookup
from crossguard.threat import Budget, Elements, LInf

Climb: TypeAlias = Callable[[LossPerSample, LInfBall, Values], Values]
"""From a loss, a ball and a start to values of a higher loss."""
Kind = Literal["pgd", "apgd"]
SLICE = 10
"""Steps of one run of the adaptive attack."""


@dataclass(frozen=True)
class Asked:
    """What an attack on samples is given beside its goal.

    Args:
        clean: the samples as parts, in [0, 1].
        budgets: by modality.
        ids: what the samples are called, by which random numbers are drawn.
        seed: of the random numbers.
        words: modalities whose values are symbols, and how many there are.
        rows_per_forward: the most inputs of one forward pass where elements are tried.
    """

    clean: Mapping[str, Part]
    budgets: Mapping[str, Budget]
    ids: Int64[Tensor, " samples"]
    seed: int
    words: Mapping[str, int]
    rows_per_forward: int

    def box(self) -> Box | None:
        """Return the L-inf budgets as one box; `eps` is a share of each modality's range."""
        return Box.around(self.clean, {m: b.eps for m, b in self.budgets.items() if isinstance(b, LInf)})


class BoxClimb:
    """L-inf in every modality at once, each with its own eps: one objective after another, the worst of each sample.

    The first objective begins at a random start, each other one where the worst so far was found.

    Args:
        kind: "pgd" or "apgd".
        steps: gradient steps of each objective and restart.
        restarts: random starts.
        step: size of a step of "pgd" as a share of eps; default: 1.25 / steps.
    """

    takes = LInf
    masks = True

    def __init__(self, kind: Kind, *, steps: int, restarts: int, step: float | None = None) -> None:
        check_counts(steps=steps, restarts=restarts)
        if step is not None and not 0 < step <= 2:
            raise ValueError(f"Expected `step` in (0, 2], a share of eps, but got {step}.")
        self.kind, self.steps, self.restarts, self.step = kind, steps, restarts, step

    def run(self, goal: Goal, asked: Asked) -> Parts:
        """Return adversarial parts."""
        return _climbs(goal, asked, [(o, self._climb) for o in goal.objectives], restarts=self.restarts)

    def _climb(self, loss: LossPerSample, ball: LInfBall, start: Values) -> Values:
        if self.kind == "apgd":
            return auto_ascend(with_gradient(loss), loss, ball, steps=self.steps, start=start)
        size = 1.25 / self.steps if self.step is None else self.step
        return ascend(with_gradient(loss), loss, ball, steps=self.steps, step_size=size, start=start)


class AdaptiveClimb:
    """The strongest L-inf attack there is here: Auto-PGD by short runs, the objectives in turn, from the worst so far.

    More steps or restarts never leave more: they add runs, and change none.

    Args:
        steps: gradient steps of each objective and restart, in runs of ten, rounded up.
        restarts: random starts.
    """

    takes = LInf
    masks = True

    def __init__(self, *, steps: int, restarts: int) -> None:
        check_counts(steps=steps, restarts=restarts)
        self.steps, self.restarts = steps, restarts

    def run(self, goal: Goal, asked: Asked) -> Parts:
        """Return adversarial parts."""
        runs = [
            (objective, _short_run(number))
            for number in range(-(-self.steps // SLICE))
            for objective in goal.objectives
        ]
        return _climbs(goal, asked, runs, restarts=self.restarts)


def _short_run(number: int) -> Climb:
    # Later runs refine: the first step of a run leaves its start behind.
    first = 2.0 / 2 ** min(number, 3)
    return lambda loss, ball, start: auto_ascend(with_gradient(loss), loss, ball, steps=SLICE, start=start, first=first)


def _climbs(goal: Goal, asked: Asked, runs: Iterable[tuple[str, Climb]], *, restarts: int) -> Parts:
    """Climb from several starts by one run after another, each from the worst of its restart so far."""
    best = dict(asked.clean)
    box = asked.box()
    if box is None:
        return best
    worst, runs = goal.judge(best), list(runs)
    for restart in range(restarts):
        current = box.ball.start(asked.ids, seed=asked.seed, stream=restart)
        so_far = torch.full_like(worst, -torch.inf)
        for objective, climb in runs:
            reached = climb(box.loss(goal.loss(objective)), box.ball, current)
            value = goal.judge(box.split(reached))
            current = torch.where(wide(value > so_far, reached), reached, current)
            so_far = torch.maximum(value, so_far)
        best = choose(so_far > worst, box.split(current), best)
        worst = torch.maximum(so_far, worst)
    return best


class SparseClimb:
    """At most r_i elements of each modality take any values in range; the objectives in turn, the worst of each sample.

    Args:
        search: see `placement.SparseSearch`.
    """

    takes = Elements
    masks = True

    def __init__(self, search: SparseSearch) -> None:
        self.search = search

    def run(self, goal: Goal, asked: Asked) -> Parts:
        """Return adversarial parts."""
        numbers = {name: budget.r for name, budget in asked.budgets.items() if isinstance(budget, Elements)}
        search = replace(self.search, rows_per_forward=asked.rows_per_forward)
        best = dict(asked.clean)
        if not any(numbers.values()):
            return best
        worst = goal.judge(best)
        for objective in goal.objectives:
            found = sparse_ascent(
                goal.loss(objective),
                asked.clean,
                budgets=numbers,
                search=search,
                ids=asked.ids,
                seed=asked.seed,
                words=asked.words,
            )
            value = goal.judge(found)
            best, worst = choose(value > worst, found, best), torch.maximum(value, worst)
        return best


class ScoreClimb:
    """AutoAttack's parts on the labels' scores, in every modality at once; for classifiers alone.

    Args:
        parts: one after another, each on the samples that are still right.
    """

    takes = LInf
    masks = False

    def __init__(self, *parts: ScorePart) -> None:
        self.parts: Sequence[ScorePart] = parts

    def run(self, goal: Goal, asked: Asked) -> Parts:
        """Return adversarial parts."""
        box = asked.box()
        if box is None:
            return dict(asked.clean)
        labels = len(goal.ask(asked.clean, torch.arange(len(goal.truth), device=goal.truth.device))[0])
        right = one_hot(goal.truth.clamp(min=0), labels).bool() & (goal.truth >= 0)[:, None]

        def scores(values: Values, rows: Rows) -> Scores:
            return goal.ask(box.split(values, rows), rows)

        search = Search(
            ClassScores(scores, right, ~right),
            box.ball,
            ids=asked.ids,
            seed=asked.seed,
            settle=lambda values, rows: box.join(goal.settle(box.split(values, rows), rows)),
            blocks=[_block(goal.shapes[name]) for name in box.names],
        )
        run_parts(search, self.parts)
        return box.split(search.values)


def _block(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return what squares are drawn in: a picture, or a series as a picture of one row."""
    if len(shape) == 3:
        return shape[0], shape[1], shape[2]
    return prod(shape[1:]), 1, shape[0]


SampleClimb = BoxClimb | AdaptiveClimb | SparseClimb | ScoreClimb


def pgd(*, steps: int = 20, restarts: int = 1, step: float | None = None) -> SampleClimb:
    """Return L-inf PGD on all modalities at once."""
    return BoxClimb("pgd", steps=steps, restarts=restarts, step=step)


def apgd(*, steps: int = 20, restarts: int = 1) -> SampleClimb:
    """Return Auto-PGD on all modalities at once."""
    return BoxClimb("apgd", steps=steps, restarts=restarts)


def adaptive(*, steps: int = 50, restarts: int = 1) -> SampleClimb:
    """Return the strongest attack within L-inf budgets."""
    return AdaptiveClimb(steps=steps, restarts=restarts)


def auto_attack(*, steps: int = 100, targets: int = 9, restarts: int = 1, queries: int = 5000) -> SampleClimb:
    """Return AutoAttack on the labels' scores; defaults as `standard_parts`."""
    return ScoreClimb(*standard_parts(steps=steps, targets=targets, restarts=restarts, queries=queries))


def apgd_ce(*, steps: int = 100, restarts: int = 1) -> SampleClimb:
    """Return the first part of AutoAttack."""
    return ScoreClimb(CrossEntropyPart(steps=steps, restarts=restarts))


def apgd_t(*, steps: int = 100, targets: int = 9, restarts: int = 1) -> SampleClimb:
    """Return the second part of AutoAttack."""
    return ScoreClimb(TargetedPart(steps=steps, targets=targets, restarts=restarts))


def fab_t(*, steps: int = 100, targets: int = 9, restarts: int = 1) -> SampleClimb:
    """Return the third part of AutoAttack."""
    return ScoreClimb(BorderPart(steps=steps, targets=targets, restarts=restarts))


def square(*, queries: int = 5000, restarts: int = 1) -> SampleClimb:
    """Return the last part of AutoAttack."""
    return ScoreClimb(SquarePart(queries=queries, restarts=restarts))


def sparse(
    *, placement: str = "gradient", shortlist: int = 16, rounds: int = 4, trials: int = 0, steps: int = 20
) -> SampleClimb:
    """Return the sparse attack; options as `crossguard.attacks.Sparse`."""
    return SparseClimb(
        sparse_search(
            placement=placement, shortlist=shortlist, rounds=rounds, trials=trials, steps=steps, rows_per_forward=256
        )
    )


@dataclass(frozen=True)
class SampleAttackRow:
    """One attack on samples: its name, one line about it, the budgets it takes, and how to build it."""

    name: str
    summary: str
    takes: type[LInf] | type[Elements]
    build: Callable[..., SampleClimb]


SAMPLE_ATTACKS: dict[str, SampleAttackRow] = {
    row.name: row
    for row in (
        SampleAttackRow("adaptive", "the strongest: all objectives in turn by Auto-PGD; judge by it", LInf, adaptive),
        SampleAttackRow("pgd", "L-inf PGD on all modalities at once, each with its own eps", LInf, pgd),
        SampleAttackRow("apgd", "Auto-PGD on all modalities at once, each with its own eps", LInf, apgd),
        SampleAttackRow("auto-attack", "AutoAttack on labels, all modalities at once", LInf, auto_attack),
        SampleAttackRow("apgd-ce", "Auto-PGD on the cross-entropy; part of auto-attack", LInf, apgd_ce),
        SampleAttackRow("apgd-t", "Auto-PGD on the targeted DLR loss; part of auto-attack", LInf, apgd_t),
        SampleAttackRow("fab-t", "the nearest samples of other labels; part of auto-attack", LInf, fab_t),
        SampleAttackRow("square", "random squares, without gradients; part of auto-attack", LInf, square),
        SampleAttackRow("sparse", "a few elements of each modality, of any values in range", Elements, sparse),
    )
}


def make_sample_attack(name: str, **options: Any) -> SampleClimb:
    """Build an attack on samples by its name.

    Raises:
        ValueError: an unknown name or option (the nearest known one is named), or a value out of range.
    """
    row = lookup(SAMPLE_ATTACKS, name, what="attack on samples")
    check_options(row.build, options, what=f"attack {name!r}")
    return row.build(**options)


def check_task(name: str, search: SampleClimb, *, masks: bool) -> None:
    """Refuse an attack on labels for a segmenter.

    Raises:
        ValueError: naming the attack that does it.
    """
    if masks and not search.masks:
        raise ValueError(
            f"Expected an attack on masks for a segmenter, such as 'adaptive', but {name!r} attacks labels of whole "
            "samples."
        )


def check_sample_budgets(
    name: str, threat: Mapping[str, Budget], modalities: tuple[str, ...], words: Mapping[str, int]
) -> None:
    """Refuse budgets that an attack on samples cannot work within.

    Raises:
        ValueError: no budget, an unknown modality, another type of budget than the attack's, insertion or deletion, or
            a small change of words.
    """
    takes = lookup(SAMPLE_ATTACKS, name, what="attack on samples").takes
    if not threat:
        raise ValueError("Expected a budget for at least one modality, but the threat model has none.")
    for modality, budget in threat.items():
        lookup(dict.fromkeys(modalities), modality, what="modality in the threat model")
        if not isinstance(budget, takes):
            raise ValueError(
                f"Expected {takes.__name__} as the budget of {modality!r} for attack {name!r}, but got {budget!r}."
            )
        if isinstance(budget, Elements) and budget.kind != "substitution":
            raise ValueError(
                f"Expected substitution of elements of {modality!r}: attack {name!r} replaces elements and cannot "
                f"insert or delete any, but got kind={budget.kind!r}."
            )
        if isinstance(budget, LInf) and modality in words:
            raise ValueError(f"Expected Elements as the budget of {modality!r}, whose values are words.")
