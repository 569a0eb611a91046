"""`RetrievalResult`: everything an evaluation says, computed from its rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64

from crossguard.evaluate.examples import Examples
from crossguard.evaluate.retrieval import DIRECTIONS, Direction, cuts, recalls
from crossguard.evaluate.statistics import (
    INTERVALS,
    Figure,
    Ratio,
    attack_figures,
    intervals_of,
    told,
    values_of,
)


@dataclass(frozen=True)
class RetrievalResult:
    """Retrieval of one model on one data set, clean and, if it was attacked, robust.

    All figures are in percent and follow from the rows alone.

    Args:
        rows: one per query, all of direction "tr" before all of "ir", in the order of the data set. Keys: `section`,
            `direction`, `index`, `query` (image key or text), `group` (`OneToManyPairs.groups`), `clean_rank`,
            `robust_rank` and `shared_rank` (from 1; the latter two None without attack), `model`, `data`, `split`,
            `attack`, `threat`, `seed`, and of the query as it was asked under attack `linf` (images), `words` and
            `adversarial_text` (texts).
        settings: what was measured: `label`, `model`, `data`, `split`, `attack`, `threat`, `seed`, ...
        examples: a few queries to look at; None without attack.
        warnings: signs that the figures say less than they seem to, see `evaluate.sanity`.
    """

    rows: Sequence[Mapping[str, Any]]
    settings: Mapping[str, Any]
    examples: Examples | None = None
    warnings: tuple[str, ...] = ()

    @cached_property
    def figures(self) -> dict[str, dict[str, Figure | None]]:
        """By figure ("clean", "robust", "shared", "conditional", "drop") and metric: value, interval, what it rests on.

        Groups are what links make of images and texts (`OneToManyPairs.groups`). None where a figure is not defined.
        """
        if not self.attacked:
            return attack_figures(self.ratios("clean"))
        one_set = {metric: ratio.figure() for metric, ratio in self.ratios("shared").items()}
        return {**attack_figures(self.ratios("clean"), self.ratios("robust")), "shared": one_set}

    @cached_property
    def clean(self) -> dict[str, float]:
        """tr@1 tr@5 tr@10 ir@1 ir@5 ir@10 without attack, in percent."""
        return recalls({d: torch.from_numpy(self._ranks(d, "clean")) for d in DIRECTIONS})

    @cached_property
    def robust(self) -> dict[str, float] | None:
        """The same under attack; None when nothing was attacked."""
        if not self.attacked:
            return None
        return recalls({d: torch.from_numpy(self._ranks(d, "robust")) for d in DIRECTIONS})

    @cached_property
    def shared(self) -> dict[str, float] | None:
        """The same under one set of images and texts for both directions; None when nothing was attacked.

        Most attacks make one set, so that this is `robust`. An attack on the whole gallery ("adaptive") makes one for
        each direction, under which `robust` is, and a third that is worst for both.
        """
        if not self.attacked:
            return None
        return recalls({d: torch.from_numpy(self._ranks(d, "shared")) for d in DIRECTIONS})

    @cached_property
    def success(self) -> dict[str, dict[str, float | None]] | None:
        """The attack's success by definition and metric, in percent; None when nothing was attacked.

        "conditional" (Lu et al., SGA, 2023): right before and wrong after, of those right before; None where no query
        was right before. "drop" (Zhang et al., Co-Attack, 2022): recall before minus recall after.
        """
        if not self.attacked:
            return None
        return {definition: values_of(self.figures[definition]) for definition in ("conditional", "drop")}

    @property
    def intervals(self) -> dict[str, dict[str, tuple[float, float] | None]]:
        """95 % intervals by figure ("clean", "robust", "shared", "conditional", "drop") and metric, in percent.

        Over groups of images and texts, see `evaluate.statistics`; None where there are too few of them (`figures` says
        why, and has the values by group).
        """
        return intervals_of(self.figures)

    def ratios(self, side: str) -> dict[str, Ratio]:
        """Return, by metric, which queries of a side ("clean", "robust" or "shared") hit, in their groups."""
        groups = {d: self._of(d, "group") for d in DIRECTIONS}
        ranks = {d: self._ranks(d, side) for d in DIRECTIONS}
        return {metric: Ratio.of_hits(ranks[d] <= cut, groups[d]) for metric, d, cut in cuts()}

    @property
    def attacked(self) -> bool:
        """Whether there was an attack."""
        return self.settings["attack"] is not None

    def ranks(self) -> dict[str, dict[str, list[int]]]:
        """Return the rank of every query, by side ("clean", and "robust" under attack) and direction ("tr", "ir")."""
        sides = ("clean", "robust") if self.attacked else ("clean",)
        return {side: {d: self._ranks(d, side).tolist() for d in DIRECTIONS} for side in sides}

    def summary(self) -> dict[str, Any]:
        """Return settings and figures as JSON values, without rows and pictures."""
        return {
            **self.settings,
            "images": len(self._ranks("tr", "clean")),
            "texts": len(self._ranks("ir", "clean")),
            "clean": self.clean,
            "robust": self.robust,
            "shared": self.shared,
            "success": self.success,
            "intervals": self.intervals,
            "figures": told(self.figures),
            "intervals_are": INTERVALS,
            "examples": None if self.examples is None else self.examples.to_dict(),
            "warnings": list(self.warnings),
        }

    def _of(self, direction: Direction, field: str) -> Int64[np.ndarray, " queries"]:
        return np.array([row[field] for row in self.rows if row["direction"] == direction], dtype=np.int64)

    def _ranks(self, direction: Direction, side: str) -> Int64[np.ndarray, " queries"]:
        return self._of(direction, f"{side}_rank")

    def __str__(self) -> str:
        said = [f"{self.settings['label']} on {self.settings['data']} ({self.settings['split']})"]
        said += [f"{metric} {self.clean[metric]:.1f} % clean" for metric in ("tr@1", "ir@1")]
        if self.robust is not None:
            attack = self.settings["attack"]
            said += [f"{metric} {self.robust[metric]:.1f} % under {attack}" for metric in ("tr@1", "ir@1")]
        return ", ".join(said)
