"""What a study's figures rest on beside its seeds: the test images and texts, in their groups."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from crossguard.evaluate.retrieval import DIRECTIONS, cuts
from crossguard.evaluate.statistics import Estimate, Ratio

Row = Mapping[str, Any]


def over_samples(rows: Sequence[Row], side: str) -> dict[str, Ratio]:
    """Return, by metric, the share of test queries that hit, each counted as often as it does over the seeds.

    Args:
        rows: of one arm and trial, one per seed, with the `ranks` and `groups` of the queries; others are left out.
        side: "clean" or "robust".
    """
    known = [row for row in rows if "ranks" in row]
    if not known:
        return {}
    groups = dict(zip(DIRECTIONS, map(np.array, known[0]["groups"]), strict=True))
    ranks = {d: np.array([row["ranks"][side][d] for row in known]) for d in DIRECTIONS}
    ratios = {}
    for metric, direction, cut in cuts():
        hits = (ranks[direction] <= cut).mean(axis=0)
        ratios[metric] = Ratio(hits, np.ones(len(hits)), groups[direction])
    return ratios


def sample_figures(ratios: Mapping[str, Ratio]) -> dict[str, Estimate]:
    """Return the shares with their intervals over groups of test samples, by metric."""
    found = {metric: ratio.figure() for metric, ratio in ratios.items()}
    return {metric: figure for metric, figure in found.items() if figure is not None}


def sample_gains(ratios: Mapping[str, Ratio], reference: Mapping[str, Ratio]) -> dict[str, Estimate]:
    """Return how much more they are than the reference's, paired query by query, by metric."""
    found = {metric: ratio.minus(reference[metric]) for metric, ratio in ratios.items() if metric in reference}
    return {metric: figure for metric, figure in found.items() if figure is not None}
