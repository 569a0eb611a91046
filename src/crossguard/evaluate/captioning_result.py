"""`CaptioningResult`: everything an evaluation of captioning says, from its rows and the scores of its captions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from crossguard.evaluate.captioning_scores import score_captions
from crossguard.evaluate.captioning_tokens import Tokenizer
from crossguard.evaluate.sample_examples import SampleExamples
from crossguard.evaluate.statistics import (
    DRAWS,
    FEWEST_GROUPS,
    Figure,
    Ratio,
    bootstrap_figure,
    group_draws,
    intervals_of,
    told,
    values_of,
)
from crossguard.runs import as_read_back

INTERVALS = (
    f"95 %, over groups of images that share captions: {DRAWS:,} bootstrap resamples of the groups for scores and "
    "drops (n-gram weights of CIDEr held), Wilson's score interval at the groups' effective size for the share of "
    "changed captions; the model is held fixed"
)


@dataclass(frozen=True)
class CaptioningResult:
    """Captions of one model on one data set, clean and, if it was attacked, robust.

    Scores are times 100, as they are published.

    Args:
        rows: one per image, in the order of the data set. Keys: `index`, `image`, `group` (`OneToManyPairs.groups`),
            `references`, `clean_caption`, `clean_loss` (mean loss of the references, nats per token), `robust_caption`,
            `robust_loss` (None without attack), `linf`, `section`, `model`, `data`, `split`, `attack`, `threat`,
            `seed`.
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
        """95 % intervals by figure ("clean", "robust", "drop": by metric; "changed"); None where there is none."""
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
        `clean` and `robust` (by metric), `success`, `intervals`, `figures` (with images and groups), `draws` (the
        scores of every resample of the groups, by side and metric), `loss` (mean loss of the references, by side),
        `missing` (by metric, why) and `tokenizer`.

    Raises:
        ImportError: pycocoevalcap is not installed.
    """
    references = [row["references"] for row in rows]
    sides = ["clean"] if rows[0]["robust_caption"] is None else ["clean", "robust"]
    names, member = np.unique([row["group"] for row in rows], return_inverse=True)
    few = len(names) < FEWEST_GROUPS  # of few groups each alone, else resamples of all
    weights = np.eye(len(names)) if few else group_draws(len(names), seed=seed)
    scores = {s: score_captions(references, [r[f"{s}_caption"] for r in rows], tokenizer=tokenizer) for s in sides}
    missing = {metric: why for found in scores.values() for metric, why in found.missing.items()}
    metrics = [metric for metric in scores["clean"].metrics if metric not in missing]
    points = {s: {m: float(scores[s].overall()[m][0]) for m in metrics} for s in sides}
    drawn = {s: scores[s].overall(weights[:, member]) for s in sides}

    def figure(value: float, values: np.ndarray) -> Figure:
        by_group = dict(zip(map(str, names), values.tolist(), strict=True)) if few else None
        return bootstrap_figure(value, values, n=len(rows), groups=len(names), by_group=by_group)

    figures: dict[str, dict[str, Figure | None]] = {
        s: {m: figure(points[s][m], drawn[s][m]) for m in metrics} for s in sides
    }
    success = None
    if "robust" in sides:
        changed = np.array([row["clean_caption"] != row["robust_caption"] for row in rows])
        figures["drop"] = {
            m: figure(points["clean"][m] - points["robust"][m], drawn["clean"][m] - drawn["robust"][m]) for m in metrics
        }
        figures["changed"] = {"captions": Ratio.of_hits(changed, names[member]).figure()}
        success = {"changed": 100 * float(changed.mean()), "drop": values_of(figures["drop"])}
    intervals: dict[str, Any] = intervals_of(figures)
    if success is not None:
        intervals["changed"] = intervals["changed"]["captions"]
    return as_read_back(
        {
            "clean": points["clean"],
            "robust": points.get("robust"),
            "success": success,
            "intervals": intervals,
            "figures": told(figures),
            "draws": {} if few else {s: {m: drawn[s][m].round(2).tolist() for m in metrics} for s in sides},
            "loss": {s: float(np.mean([row[f"{s}_loss"] for row in rows])) for s in sides},
            "missing": missing,
            "tokenizer": tokenizer,
        }
    )
