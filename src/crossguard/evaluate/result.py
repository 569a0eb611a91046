"""`RetrievalResult`: everything an evaluation says, computed from its rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64

from crossguard.evaluate.examples import Examples
from crossguard.evaluate.intervals import paired_drop, wilson
from crossguard.evaluate.retrieval import DIRECTIONS, Direction, cuts, recalls

INTERVALS = (
    "95 %: Wilson's score interval for recalls and for conditional success, Agresti and Min's for the drop; "
    "queries are taken as independent"
)


@dataclass(frozen=True)
class RetrievalResult:
    """Retrieval of one model on one data set, clean and, if it was attacked, robust.

    All figures are in percent and follow from the rows alone.

    Args:
        rows: one per query, all of direction "tr" before all of "ir", in the order of the data set. Keys: `section`,
            `direction`, `index`, `query` (image key or text), `clean_rank`, `robust_rank` and `shared_rank` (from 1;
            the latter two None without attack), `model`, `data`, `split`, `attack`, `threat`, `seed`, and of the query
            as it was asked under attack `linf` (images), `words` and `adversarial_text` (texts).
        settings: what was measured: `label`, `model`, `data`, `split`, `attack`, `threat`, `seed`, ...
        examples: a few queries to look at; None without attack.
        warnings: signs that the figures say less than they seem to, see `evaluate.sanity`.
    """

    rows: Sequence[Mapping[str, Any]]
    settings: Mapping[str, Any]
    examples: Examples | None = None
    warnings: tuple[str, ...] = ()

    @cached_property
    def clean(self) -> dict[str, float]:
        """tr@1 tr@5 tr@10 ir@1 ir@5 ir@10 without attack, in percent."""
        return recalls({d: torch.from_numpy(self._ranks(d, "clean_rank")) for d in DIRECTIONS})

    @cached_property
    def robust(self) -> dict[str, float] | None:
        """The same under attack; None when nothing was attacked."""
        if not self.attacked:
            return None
        return recalls({d: torch.from_numpy(self._ranks(d, "robust_rank")) for d in DIRECTIONS})

    @cached_property
    def shared(self) -> dict[str, float] | None:
        """The same under one set of images and texts for both directions; None when nothing was attacked.

        Most attacks make one set, so that this is `robust`. An attack on the whole gallery ("adaptive") makes one for
        each direction, under which `robust` is, and a third that is worst for both.
        """
        if not self.attacked:
            return None
        return recalls({d: torch.from_numpy(self._ranks(d, "shared_rank")) for d in DIRECTIONS})

    @cached_property
    def success(self) -> dict[str, dict[str, float | None]] | None:
        """The attack's success by definition and metric, in percent; None when nothing was attacked.

        "conditional" (Lu et al., SGA, 2023): right before and wrong after, of those right before; None where no query
        was right before. "drop" (Zhang et al., Co-Attack, 2022): recall before minus recall after.
        """
        if self.robust is None:
            return None
        conditional: dict[str, float | None] = {}
        for metric, direction, cut in cuts():
            right, lost, _ = self._changes(direction, cut)
            conditional[metric] = 100 * lost / right if right else None
        drop: dict[str, float | None] = {m: self.clean[m] - self.robust[m] for m in self.clean}
        return {"conditional": conditional, "drop": drop}

    @cached_property
    def intervals(self) -> dict[str, dict[str, tuple[float, float] | None]]:
        """95 % intervals by figure ("clean", "robust", "shared", "conditional", "drop") and metric, in percent.

        Wilson's score interval for shares; Agresti and Min's for the drop, a difference of paired shares. Queries
        are taken as independent.
        """
        found: dict[str, dict[str, tuple[float, float] | None]] = {"clean": {}}
        if self.attacked:
            found |= {"robust": {}, "shared": {}, "conditional": {}, "drop": {}}
        for metric, direction, cut in cuts():
            total = len(self._ranks(direction, "clean_rank"))
            found["clean"][metric] = wilson(self._hits(direction, cut, "clean_rank"), total)
            if self.attacked:
                right, lost, won = self._changes(direction, cut)
                found["robust"][metric] = wilson(self._hits(direction, cut, "robust_rank"), total)
                found["shared"][metric] = wilson(self._hits(direction, cut, "shared_rank"), total)
                found["conditional"][metric] = wilson(lost, right) if right else None
                found["drop"][metric] = paired_drop(lost, won, total)
        return found

    @property
    def attacked(self) -> bool:
        """Whether there was an attack."""
        return self.settings["attack"] is not None

    def summary(self) -> dict[str, Any]:
        """Return settings and figures as JSON values, without rows and pictures."""
        return {
            **self.settings,
            "images": len(self._ranks("tr", "clean_rank")),
            "texts": len(self._ranks("ir", "clean_rank")),
            "clean": self.clean,
            "robust": self.robust,
            "shared": self.shared,
            "success": self.success,
            "intervals": {
                figure: {metric: None if pair is None else list(pair) for metric, pair in metrics.items()}
                for figure, metrics in self.intervals.items()
            },
            "intervals_are": INTERVALS,
            "examples": None if self.examples is None else self.examples.to_dict(),
            "warnings": list(self.warnings),
        }

    def _ranks(self, direction: Direction, field: str) -> Int64[np.ndarray, " queries"]:
        return np.array([row[field] for row in self.rows if row["direction"] == direction], dtype=np.int64)

    def _hits(self, direction: Direction, cut: int, field: str) -> int:
        return int((self._ranks(direction, field) <= cut).sum())

    def _changes(self, direction: Direction, cut: int) -> tuple[int, int, int]:
        before = self._ranks(direction, "clean_rank") <= cut
        after = self._ranks(direction, "robust_rank") <= cut
        return int(before.sum()), int((before & ~after).sum()), int((~before & after).sum())

    def __str__(self) -> str:
        said = [f"{self.settings['label']} on {self.settings['data']} ({self.settings['split']})"]
        said += [f"{metric} {self.clean[metric]:.1f} % clean" for metric in ("tr@1", "ir@1")]
        if self.robust is not None:
            attack = self.settings["attack"]
            said += [f"{metric} {self.robust[metric]:.1f} % under {attack}" for metric in ("tr@1", "ir@1")]
        return ", ".join(said)
