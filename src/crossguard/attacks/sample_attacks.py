"""The attacks on sensors and scenes: L-inf in every modality at once by PGD or Auto-PGD, and sparse ones."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from crossguard.attacks.noise import uniform
from crossguard.attacks.options import check_steps
from crossguard.attacks.parts import Climb, Part, Parts, PartsLoss, all_rows, choose, climb_in_box
from crossguard.attacks.placement import SparseSearch, sparse_ascent
from crossguard.attacks.sparse import sparse_search
from crossguard.checks import check_options, lookup
from crossguard.threat import Budget, Elements, LInf


class BoxClimb:
    """L-inf in every modality at once, each with its own eps: PGD or Auto-PGD on the joint loss.

    Args:
        climb: "pgd" or "apgd".
        steps: gradient steps per restart.
        restarts: random starts; the best result per sample is kept.
        step: size of a step of "pgd" as a share of eps; default: 1.25 / steps.
    """

    takes = LInf

    def __init__(self, climb: Climb, *, steps: int, restarts: int, step: float | None = None) -> None:
        check_steps(steps)
        if restarts < 1:
            raise ValueError(f"Expected `restarts` >= 1, but got {restarts}.")
        if step is not None and not 0 < step <= 2:
            raise ValueError(f"Expected `step` in (0, 2], a share of eps, but got {step}.")
        self.climb, self.steps, self.restarts, self.step = climb, steps, restarts, step

    def run(
        self,
        loss: PartsLoss,
        clean: Mapping[str, Part],
        budgets: Mapping[str, Budget],
        *,
        ids: Int64[Tensor, " samples"],
        seed: int,
        words: Mapping[str, int],
        rows_per_forward: int,
    ) -> Parts:
        """Return adversarial parts; `eps` is a share of each modality's range."""
        eps = {name: budget.eps for name, budget in budgets.items() if isinstance(budget, LInf)}
        low = {name: (values - eps.get(name, 0.0)).clamp(min=0) for name, values in clean.items()}
        high = {name: (values + eps.get(name, 0.0)).clamp(max=1) for name, values in clean.items()}
        best, best_loss = dict(clean), None
        for restart in range(self.restarts):
            start = {
                name: low[name]
                + (high[name] - low[name])
                * uniform(
                    ids,
                    tuple(values.shape[1:]),
                    seed=seed,
                    stream=restart * len(clean) + position,
                    device=values.device,
                )
                if eps.get(name, 0.0) > 0
                else values
                for position, (name, values) in enumerate(clean.items())
            }
            found = climb_in_box(loss, low, high, start, steps=self.steps, climb=self.climb, step=self.step)
            with torch.no_grad():
                value = loss(found, all_rows(found))
            if best_loss is None:
                best, best_loss = found, value
            else:
                best, best_loss = choose(value > best_loss, found, best), torch.maximum(value, best_loss)
        return best


class SparseClimb:
    """At most r_i elements of each modality take any values in range.

    Args:
        search: see `placement.SparseSearch`.
    """

    takes = Elements

    def __init__(self, search: SparseSearch) -> None:
        self.search = search

    def run(
        self,
        loss: PartsLoss,
        clean: Mapping[str, Part],
        budgets: Mapping[str, Budget],
        *,
        ids: Int64[Tensor, " samples"],
        seed: int,
        words: Mapping[str, int],
        rows_per_forward: int,
    ) -> Parts:
        """Return adversarial parts."""
        numbers = {name: budget.r for name, budget in budgets.items() if isinstance(budget, Elements)}
        search = replace(self.search, rows_per_forward=rows_per_forward)
        return sparse_ascent(loss, clean, budgets=numbers, search=search, ids=ids, seed=seed, words=words)


SampleClimb = BoxClimb | SparseClimb


def pgd(*, steps: int = 20, restarts: int = 1, step: float | None = None) -> SampleClimb:
    """Return L-inf PGD on all modalities at once."""
    return BoxClimb("pgd", steps=steps, restarts=restarts, step=step)


def apgd(*, steps: int = 20, restarts: int = 1) -> SampleClimb:
    """Return Auto-PGD on all modalities at once."""
    return BoxClimb("apgd", steps=steps, restarts=restarts)


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
        SampleAttackRow("pgd", "L-inf PGD on all modalities at once, each with its own eps", LInf, pgd),
        SampleAttackRow("apgd", "Auto-PGD on all modalities at once, each with its own eps", LInf, apgd),
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
