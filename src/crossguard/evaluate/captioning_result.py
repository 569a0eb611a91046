"""`CaptioningResult`: everything an evaluation of captioning says, from its rows and the scores of its captions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from crossguard.evaluate.bootstrap import DRAWS, percentile_interval, resamples
from crossguard.evaluate.captioning_scores import score_captions
from crossguard.evaluate.captioning_tokens import Tokenizer
from crossguard.evaluate.intervals import wilson
from crossguard.evaluate.sample_examples import SampleExamples

INTERVALS = (
    f"95 %: percentiles of {DRAWS:,} bootstrap resamples of the images for scores and drops (n-gram weights of CIDEr "
    "held), Wilson's score interval for the share of changed captions"
)


@dataclass(frozen=True)
class CaptioningResult:
    """Captions of one model on one data set, clean and, if it was attacked, robust.

    Scores are times 100, as they are published.

    Args:
        rows: one per image, in the order of the data set. Keys: `index`, `image`, `references`, `clean_caption`,
            `clean_loss` (mean loss of the references, nats per token), `robust_caption`, `robust_loss` (None without
            attack), `linf`, `section`, `model`, `data`, `split`, `attack`, `threat`, `seed`.
        settings: what was measured: `label`, `model`, `data`, `split`, `beams`, `objective`, `attack`, `seed`, ...
        figures: scores of the captions, see `caption_figures`.
        examples: a few images to look at.
    """

    rows: Sequence[Mapping[str, Any]]
    settings: Mapping[str, Any]
    figures: Mapping[str, Any]
    examples: SampleExamples | None = None

    @property
    def attacked(self) -> bool:
        """Whether there was an attack."""
        return self.settings["attack"] is not None

    @property
    def clean(self) -> dict[str, float]:
        """Every metric that could be computed, without attack."""
        return dict(self.figures["clean"])

    @property
    def robust(self) -> dict[str, float] | None:
        """The same under attack; None when nothing was attacked."""
        return None if self.figures["robust"] is None else dict(self.figures["robust"])

    @property
    def success(self) -> dict[str, Any] | None:
        """The attack's success: `changed`, the share of captions that are not the same, in percent, and `drop`, by
        metric, the score before minus the score after; None when nothing was attacked."""
        return self.figures["success"]

    @property
    def intervals(self) -> dict[str, Any]:
        """95 % intervals by figure ("clean", "robust", "drop": by metric; "changed")."""
        return dict(self.figures["intervals"])

    @property
    def missing(self) -> dict[str, str]:
        """By metric, why it could not be computed."""
        return dict(self.figures["missing"])

    def summary(self) -> dict[str, Any]:
        """Return settings and figures as JSON values, without rows and pictures."""
        return {
            **self.settings,
            "images": len(self.rows),
            "references": sum(len(row["references"]) for row in self.rows),
            **self.figures,
            "intervals_are": INTERVALS,
            "examples": None if self.examples is None else self.examples.to_dict(),
        }

    def __str__(self) -> str:
        said = [f"{self.settings['label']} on {self.settings['data']} ({self.settings['split']})"]
        said += [f"{metric} {value:.1f} clean" for metric, value in self.clean.items() if metric in ("BLEU-4", "CIDEr")]
        if self.robust is not None and self.success is not None:
            said += [f"CIDEr {self.robust['CIDEr']:.1f} under {self.settings['attack']}"]
            said += [f"{self.success['changed']:.1f} % of captions changed"]
        return ", ".join(said)


def caption_figures(rows: Sequence[Mapping[str, Any]], *, tokenizer: Tokenizer, seed: int) -> dict[str, Any]:
    """Return all figures of the captions in rows, as JSON values.

    Args:
        rows: as in `CaptioningResult`.
        tokenizer: how captions are cut into words.
        seed: of the bootstrap.

    Returns:
        `clean` and `robust` (by metric), `success`, `intervals`, `loss` (mean loss of the references, by side),
        `missing` (by metric, why) and `tokenizer`.

    Raises:
        ImportError: pycocoevalcap is not installed.
    """
    references = [row["references"] for row in rows]
    sides = ["clean"] if rows[0]["robust_caption"] is None else ["clean", "robust"]
    weights = resamples(len(rows), seed=seed)
    scores = {s: score_captions(references, [r[f"{s}_caption"] for r in rows], tokenizer=tokenizer) for s in sides}
    missing = {metric: why for found in scores.values() for metric, why in found.missing.items()}
    metrics = [metric for metric in scores["clean"].metrics if metric not in missing]
    points = {s: {m: float(scores[s].overall()[m][0]) for m in metrics} for s in sides}
    drawn = {s: scores[s].overall(weights) for s in sides}
    intervals: dict[str, Any] = {s: {m: list(percentile_interval(drawn[s][m])) for m in metrics} for s in sides}
    success = None
    if "robust" in sides:
        changed = sum(row["clean_caption"] != row["robust_caption"] for row in rows)
        success = {
            "changed": 100 * changed / len(rows),
            "drop": {m: points["clean"][m] - points["robust"][m] for m in metrics},
        }
        intervals["drop"] = {m: list(percentile_interval(drawn["clean"][m] - drawn["robust"][m])) for m in metrics}
        intervals["changed"] = list(wilson(changed, len(rows)))
    return {
        "clean": points["clean"],
        "robust": points.get("robust"),
        "success": success,
        "intervals": intervals,
        "loss": {s: float(np.mean([row[f"{s}_loss"] for row in rows])) for s in sides},
        "missing": missing,
        "tokenizer": tokenizer,
    }
