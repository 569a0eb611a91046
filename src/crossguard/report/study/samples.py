"""What a study's figures rest on beside its seeds: the test images and texts, in their groups."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from crossguard.evaluate.retrieval import CUTS, DIRECTIONS, cuts
from crossguard.evaluate.statistics import Estimate, Ratio

Row = Mapping[str, Any]


def over_samples(rows: Sequence[Row], side: str) -> dict[str, Ratio]:
    """Return, by metric, the share of test queries that hit, each counted as often as it does over the seeds.

    Args:
        rows: of one arm and trial, one per seed, with the `ranks` and `groups` of the queries; others are left out.
        side: "clean", "robust" or "shared".

    Returns:
        Also, as "mean@K", the mean of both directions: every direction weighs the same, however many queries it has.
    """
    known = [row for row in rows if side in row.get("ranks", ())]
    if not known:
        return {}
    groups = dict(zip(DIRECTIONS, map(np.array, known[0]["groups"]), strict=True))
    ranks = {d: np.array([row["ranks"][side][d] for row in known]) for d in DIRECTIONS}
    ratios = {}
    for metric, direction, cut in cuts():
        hits = (ranks[direction] <= cut).mean(axis=0)
        ratios[metric] = Ratio(hits, np.ones(len(hits)), groups[direction])
    return ratios | {f"mean@{cut}": _mean(ratios[f"tr@{cut}"], ratios[f"ir@{cut}"]) for cut in CUTS}


def _mean(one: Ratio, other: Ratio) -> Ratio:
    """Return the mean of two shares whose samples belong to the same groups; weights add up to the samples."""
    half = (len(one.whole) + len(other.whole)) / 2
    weights = [np.full(len(ratio.whole), half / len(ratio.whole)) for ratio in (one, other)]
    parts = [weight * ratio.part for weight, ratio in zip(weights, (one, other), strict=True)]
    return Ratio(np.concatenate(parts), np.concatenate(weights), np.concatenate([one.groups, other.groups]))


def sample_figures(ratios: Mapping[str, Ratio]) -> dict[str, Estimate]:
    """Return the shares with their intervals over groups of test samples, by metric."""
    found = {metric: ratio.figure() for metric, ratio in ratios.items()}
    return {metric: figure for metric, figure in found.items() if figure is not None}


def sample_gains(ratios: Mapping[str, Ratio], reference: Mapping[str, Ratio]) -> dict[str, Estimate]:
    """Return how much more they are than the reference's, paired query by query, by metric."""
    found = {metric: ratio.minus(reference[metric]) for metric, ratio in ratios.items() if metric in reference}
    return {metric: figure for metric, figure in found.items() if figure is not None}
