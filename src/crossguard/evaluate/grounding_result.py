"""`GroundingResult`: everything an evaluation of grounding says, computed from its rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from crossguard.evaluate.grounding_boxes import RIGHT
from crossguard.evaluate.sample_examples import SampleExamples
from crossguard.evaluate.statistics import (
    INTERVALS,
    Figure,
    Ratio,
    attack_figures,
    intervals_of,
    told,
    values_of,
)

PROPOSALS = "boxes of a detector that saw the clean images; the attack does not move them"


@dataclass(frozen=True)
class GroundingResult:
    """Grounding by one model on one data set, clean and, if it was attacked, robust.

    All figures are in percent and follow from the rows alone.

    Args:
        rows: one per expression, in the order of the data set. Keys: `index`, `key` (number in the annotation file),
            `image`, `text`, `truth` (the true box), `best_iou` (of the best proposal), `clean_box`, `clean_iou`,
            `robust_box`, `robust_iou` (None without attack; a box is also None where the map points nowhere), `linf`
            of the image, `words` and `adversarial_text` of the expression, `section`, `model`, `data`, `split`,
            `attack`, `threat`, `seed`.
        settings: what was measured: `label`, `model`, `data`, `split`, `layer`, `attack`, `threat`, `seed`, ...
        examples: a few expressions to look at; None where none were kept.
    """

    rows: Sequence[Mapping[str, Any]]
    settings: Mapping[str, Any]
    examples: SampleExamples | None = None

    @property
    def attacked(self) -> bool:
        """Whether there was an attack."""
        return self.settings["attack"] is not None

    @cached_property
    def clean(self) -> dict[str, float]:
        """`accuracy`: share of expressions whose chosen box overlaps the true one by at least one half."""
        return {"accuracy": 100 * float(self._right("clean_iou").mean())}

    @cached_property
    def robust(self) -> dict[str, float] | None:
        """The same under attack; None when nothing was attacked."""
        return {"accuracy": 100 * float(self._right("robust_iou").mean())} if self.attacked else None

    @cached_property
    def ceiling(self) -> float:
        """Share of expressions for which some proposal is right: what no choice among them can exceed."""
        return 100 * float(self._right("best_iou").mean())

    @cached_property
    def pointless(self) -> dict[str, float]:
        """Share of expressions without an answer, as the map points nowhere; `clean` and, if attacked, `robust`."""
        shown = ("clean", "robust") if self.attacked else ("clean",)
        return {side: 100 * float(np.mean([row[f"{side}_box"] is None for row in self.rows])) for side in shown}

    @cached_property
    def success(self) -> dict[str, dict[str, float | None]] | None:
        """The attack's success in both definitions, in percent; None when nothing was attacked.

        "conditional": right before and wrong after, of those right before; None where none was. "drop": accuracy
        before minus accuracy after.
        """
        if not self.attacked:
            return None
        return {definition: values_of(self.figures[definition]) for definition in ("conditional", "drop")}

    @cached_property
    def figures(self) -> dict[str, dict[str, Figure | None]]:
        """By figure ("clean", "robust", "conditional", "drop", "ceiling", "pointless clean", "pointless robust") and
        metric: value, interval, expressions and groups, which are the images.

        None where a figure is not defined.
        """
        found = attack_figures(self.ratios("clean"), self.ratios("robust") if self.attacked else None)
        found["ceiling"] = {"accuracy": self._share(self._right("best_iou")).figure()}
        for side in self.pointless:
            nowhere = np.array([row[f"{side}_box"] is None for row in self.rows])
            found[f"pointless {side}"] = {"accuracy": self._share(nowhere).figure()}
        return found

    @property
    def intervals(self) -> dict[str, dict[str, tuple[float, float] | None]]:
        """95 % intervals by figure, as `figures`, in percent; None where there is none."""
        return intervals_of(self.figures)

    def ratios(self, side: str) -> dict[str, Ratio]:
        """Return, by metric, which expressions of a side ("clean" or "robust") are right, in groups of an image."""
        return {"accuracy": self._share(self._right(f"{side}_iou"))}

    def _share(self, hits: np.ndarray) -> Ratio:
        return Ratio.of_hits(hits, np.array([row["image"] for row in self.rows]))

    def summary(self) -> dict[str, Any]:
        """Return settings and figures as JSON values, without rows and pictures."""
        return {
            **self.settings,
            "images": len({row["image"] for row in self.rows}),
            "expressions": len(self.rows),
            "clean": self.clean,
            "robust": self.robust,
            "success": self.success,
            "ceiling": self.ceiling,
            "pointless": self.pointless,
            "intervals": self.intervals,
            "figures": told(self.figures),
            "intervals_are": INTERVALS,
            "proposals_are": PROPOSALS,
            "examples": None if self.examples is None else self.examples.to_dict(),
        }

    def _right(self, field: str) -> np.ndarray:
        return np.array([row[field] >= RIGHT for row in self.rows], dtype=bool)

    def __str__(self) -> str:
        settings = self.settings
        said = f"{settings['label']} on {settings['data']} ({settings['split']}): {self.clean['accuracy']:.1f} % clean"
        under = "" if self.robust is None else f", {self.robust['accuracy']:.1f} % under {settings['attack']}"
        return f"{said}{under} (proposals from the clean images)"
