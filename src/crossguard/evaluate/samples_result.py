"""`SamplesResult`: everything an evaluation of a classifier or segmenter says, from its rows alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from jaxtyping import Float64

from crossguard.certify.pixel_metrics import PixelBounds
from crossguard.evaluate.bootstrap import DRAWS, percentile_interval, resamples
from crossguard.evaluate.intervals import paired_drop, wilson

INTERVALS = {
    "classification": "95 %: Wilson's score interval for shares, Agresti and Min's for the drop",
    "segmentation": f"95 %: percentiles of {DRAWS:,} bootstrap resamples of the images, whose pixels go together",
}
_PIXELS = tuple(field.name for field in fields(PixelBounds))


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
    figures: Mapping[str, Any]

    @property
    def kind(self) -> str:
        """ "classification" or "segmentation"."""
        return str(self.settings["kind"])

    @property
    def clean(self) -> dict[str, float]:
        """By metric ("accuracy"; or "pixel accuracy" and "IoU" of the positive class), without attack."""
        return dict(self.figures["clean"])

    @property
    def robust(self) -> dict[str, float] | None:
        """The same under attack; None when nothing was attacked."""
        return None if self.figures["robust"] is None else dict(self.figures["robust"])

    @property
    def success(self) -> dict[str, Any] | None:
        """The attack's success: `conditional`, the share of right answers that it made wrong (None where none was
        right), and `drop`, by metric, before minus after; None when nothing was attacked."""
        return self.figures["success"]

    @property
    def intervals(self) -> dict[str, Any]:
        """95 % intervals by figure: "clean", "robust", "drop" by metric, and "conditional"."""
        return dict(self.figures["intervals"])

    def summary(self) -> dict[str, Any]:
        """Return settings and figures as JSON values, without rows."""
        return {
            **self.settings,
            "samples": len(self.rows),
            **self.figures,
            "intervals_are": INTERVALS[self.kind],
            "examples": None,
        }

    def __str__(self) -> str:
        said = [f"{self.settings['label']} on {self.settings['data']} ({self.settings['split']})"]
        for metric, value in self.clean.items():
            after = "" if self.robust is None else f", {self.robust[metric]:.1f} under {self.settings['attack']}"
            said.append(f"{metric} {value:.1f} clean{after}")
        return ", ".join(said)


def sample_figures(rows: Sequence[Mapping[str, Any]], *, kind: str, seed: int) -> dict[str, Any]:
    """Return all figures of rows, as JSON values.

    Args:
        rows: as in `SamplesResult`.
        kind: "classification" or "segmentation".
        seed: of the bootstrap.

    Returns:
        `judged` (samples or pixels with a true label), `clean` and `robust` (by metric, percent), `success`,
        `intervals`.

    Raises:
        ValueError: nothing is judged.
    """
    return _label_figures(rows) if kind == "classification" else _mask_figures(rows, seed=seed)


def _label_figures(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    judged = [row for row in rows if row["label"] is not None]
    total = len(judged)
    if not total:
        raise ValueError("Expected samples with labels to speak of accuracy, but none has one.")
    before = np.array([row["clean"] == row["label"] for row in judged])
    found: dict[str, Any] = {
        "judged": total,
        "clean": {"accuracy": 100 * before.mean().item()},
        "robust": None,
        "success": None,
        "intervals": {"clean": {"accuracy": list(wilson(int(before.sum()), total))}},
    }
    if judged[0]["robust"] is None:
        return found
    after = np.array([row["robust"] == row["label"] for row in judged])
    right, lost, won = int(before.sum()), int((before & ~after).sum()), int((after & ~before).sum())
    found["robust"] = {"accuracy": 100 * after.mean().item()}
    found["success"] = {
        "conditional": 100 * lost / right if right else None,
        "drop": {"accuracy": 100 * (lost - won) / total},
    }
    found["intervals"] |= {
        "robust": {"accuracy": list(wilson(int(after.sum()), total))},
        "conditional": list(wilson(lost, right)) if right else None,
        "drop": {"accuracy": list(paired_drop(lost, won, total))},
    }
    return found


def _mask_figures(rows: Sequence[Mapping[str, Any]], *, seed: int) -> dict[str, Any]:
    weights = np.concatenate([np.ones((1, len(rows))), resamples(len(rows), seed=seed)])  # the data set itself first
    sides = ["clean"] if rows[0]["robust"] is None else ["clean", "robust"]
    counts = {s: _drawn(weights, [[row[s][name] for name in _PIXELS] for row in rows]) for s in sides}
    judged = int(counts["clean"][0, _PIXELS.index("judged")])
    if not judged:
        raise ValueError("Expected masks with labels to speak of accuracy, but all pixels are -1.")
    values = {s: _metrics(counts[s]) for s in sides}
    found: dict[str, Any] = {
        "judged": judged,
        **{s: {m: float(v[0]) for m, v in values[s].items()} for s in sides},
        "success": None,
        "intervals": {s: {m: _interval(v) for m, v in values[s].items()} for s in sides},
    }
    if "robust" not in sides:
        return {**found, "robust": None}
    lost = _drawn(weights, [[row["lost"], row["clean"]["right"]] for row in rows])
    drops = {m: values["clean"][m] - values["robust"][m] for m in values["clean"]}
    share = _share(lost[:, 0], lost[:, 1])
    known = bool(lost[0, 1])
    found["success"] = {
        "conditional": float(share[0]) if known else None,
        "drop": {m: float(v[0]) for m, v in drops.items()},
    }
    found["intervals"] |= {
        "conditional": _interval(share) if known else None,
        "drop": {m: _interval(v) for m, v in drops.items()},
    }
    return found


def _drawn(weights: Float64[np.ndarray, "draws images"], counts: Sequence[Sequence[int]]) -> np.ndarray:
    return np.asarray(weights @ np.array(counts, dtype=np.float64))


def _metrics(counts: Float64[np.ndarray, "draws numbers"]) -> dict[str, Float64[np.ndarray, " draws"]]:
    """Return the metrics that are defined on the data set; NaN in draws without a pixel to judge."""
    judged, right, positives, hits, false_alarms = counts.T
    found = {"pixel accuracy": _share(right, judged)}
    if positives[0]:
        found["IoU"] = _share(hits, positives + false_alarms)
    return found


def _share(part: Float64[np.ndarray, " draws"], whole: Float64[np.ndarray, " draws"]) -> Float64[np.ndarray, " draws"]:
    return 100 * np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)


def _interval(values: Float64[np.ndarray, " draws"]) -> list[float]:
    drawn = values[1:]
    return list(percentile_interval(drawn[~np.isnan(drawn)]))
