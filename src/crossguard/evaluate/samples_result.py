"""`SamplesResult`: everything an evaluation of a classifier or segmenter says, from its rows alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

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
class SamplesResult:
    """One classifier or segmenter on one data set, clean and, if it was attacked, robust.

    All figures are in percent.

    Args:
        rows: one per sample, in order. Keys: `sample`, `group`, `edited` and `linf` (by modality: elements changed, and
            the largest change as a share of the range; None without attack), `section`, `model`, `data`, `split`,
            `attack`, `threat`, `seed`. Of classification `label` (None: not judged), `clean` and `robust`, by name. Of
            segmentation `clean` and `robust` are numbers of pixels (`judged`, `right`, `positives`, `hits`,
            `false_alarms`), and `lost` are pixels that were right before and are wrong under attack.
        settings: what was measured: `label`, `part`, `model`, `data`, `split`, `attack`, `threat`, `seed`, ...
    """

    rows: Sequence[Mapping[str, Any]]
    settings: Mapping[str, Any]

    @property
    def kind(self) -> str:
        """ "classification" or "segmentation"."""
        return str(self.settings["kind"])

    @property
    def attacked(self) -> bool:
        """Whether there was an attack."""
        return self.settings["attack"] is not None

    @cached_property
    def figures(self) -> dict[str, dict[str, Figure | None]]:
        """By figure ("clean", "robust", "conditional", "drop") and metric: value, interval, samples and groups.

        Groups are those of the samples: people, scenes, clips. None where a figure is not defined.

        Raises:
            ValueError: nothing is judged.
        """
        before = self.ratios("clean")
        if not any(ratio.whole.any() for ratio in before.values()):
            raise ValueError("Expected samples with labels to speak of accuracy, but none has one.")
        if not self.attacked:
            return attack_figures(before)
        lost = None if self.kind == "classification" else {"pixel accuracy": self._lost_pixels()}
        return attack_figures(before, self.ratios("robust"), lost=lost)

    @property
    def judged(self) -> int:
        """Samples, of segmentation pixels, with a true label."""
        return int(next(iter(self.ratios("clean").values())).whole.sum())

    @property
    def clean(self) -> dict[str, float]:
        """By metric ("accuracy"; or "pixel accuracy" and "IoU" of the positive class), without attack."""
        return {metric: figure.value for metric, figure in self.figures["clean"].items() if figure is not None}

    @property
    def robust(self) -> dict[str, float] | None:
        """The same under attack; None when nothing was attacked."""
        if not self.attacked:
            return None
        return {metric: figure.value for metric, figure in self.figures["robust"].items() if figure is not None}

    @property
    def success(self) -> dict[str, Any] | None:
        """The attack's success: `conditional`, the share of right answers that it made wrong (None where none was
        right), and `drop`, by metric, before minus after; None when nothing was attacked."""
        if not self.attacked:
            return None
        (conditional,) = values_of(self.figures["conditional"]).values()
        return {"conditional": conditional, "drop": values_of(self.figures["drop"])}

    @property
    def intervals(self) -> dict[str, Any]:
        """95 % intervals by figure: "clean", "robust", "drop" by metric, and "conditional"; None: there is none."""
        found: dict[str, Any] = intervals_of(self.figures)
        if self.attacked:
            (found["conditional"],) = found["conditional"].values()
        return found

    def ratios(self, side: str) -> dict[str, Ratio]:
        """Return, by metric, what is right on a side ("clean" or "robust"), sample by sample in their groups."""
        if self.kind == "classification":
            right = [row["label"] is not None and row[side] == row["label"] for row in self.rows]
            judged = [row["label"] is not None for row in self.rows]
            return {"accuracy": Ratio(np.array(right, np.float64), np.array(judged, np.float64), self._groups)}
        found = {"pixel accuracy": Ratio(self._of(side, "right"), self._of(side, "judged"), self._groups)}
        positives = self._of(side, "positives")
        if positives.any():
            union = positives + self._of(side, "false_alarms")
            found["IoU"] = Ratio(self._of(side, "hits"), union, self._groups)
        return found

    def _of(self, side: str, number: str) -> np.ndarray:
        return np.array([row[side][number] for row in self.rows], dtype=np.float64)

    def _lost_pixels(self) -> Ratio:
        lost = np.array([row["lost"] for row in self.rows], dtype=np.float64)
        return Ratio(lost, self._of("clean", "right"), self._groups)

    @property
    def _groups(self) -> np.ndarray:
        return np.array([row["group"] for row in self.rows])

    def summary(self) -> dict[str, Any]:
        """Return settings and figures as JSON values, without rows."""
        return {
            **self.settings,
            "samples": len(self.rows),
            "judged": self.judged,
            "clean": self.clean,
            "robust": self.robust,
            "success": self.success,
            "intervals": self.intervals,
            "figures": told(self.figures),
            "intervals_are": INTERVALS,
            "examples": None,
        }

    def __str__(self) -> str:
        said = [f"{self.settings['label']} on {self.settings['data']} ({self.settings['split']})"]
        for metric, value in self.clean.items():
            after = "" if self.robust is None else f", {self.robust[metric]:.1f} under {self.settings['attack']}"
            said.append(f"{metric} {value:.1f} clean{after}")
        return ", ".join(said)
