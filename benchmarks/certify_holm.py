"""The certificate stage of a segmentation: Holm from a histogram of counts against Holm by sorting, per radius.

    python benchmarks/certify_holm.py [--images 58] [--reference-images 3]

Counts are generated at the size of KITTI Road (375 x 1242 pixels, two labels). Both ways start from counts and end
in a mask of certified pixels per radius; the masks must be the same.
"""

import argparse
import json
import time

import numpy as np

from crossguard.certify import Margins, certify_counts
from crossguard.certify.bounds import p_value_table

HEIGHT, WIDTH, DRAWS, ALPHA = 375, 1242, 100, 0.001
N, K = (HEIGHT * WIDTH,) * 2, (8988, 996)
RADII = [(r, 2 * r) for r in range(25)]


def counts_of(seed: int) -> np.ndarray:
    """Votes of 100 sub-samples: mostly unanimous, less so along the border of a road."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0 : 1 : HEIGHT * 1j, 0 : 1 : WIDTH * 1j]
    distance = y - 0.4 - np.abs(x - 0.5 + 0.1 * rng.normal()) * (0.6 + 0.2 * rng.normal())
    chance = 1 / (1 + np.exp(-60 * distance))
    road = rng.binomial(DRAWS, np.where(np.abs(distance) > 0.12, np.round(chance), chance))
    return np.stack([DRAWS - road, road], axis=-1)


def by_sorting(counts: np.ndarray) -> np.ndarray:
    """Per radius: sort all p-values, compare the j-th with alpha / (m - j + 1), stop at the first failure."""
    certified = np.zeros((len(RADII), *counts.shape[:-1]), dtype=bool)
    top = counts.max(axis=-1).ravel()
    for j, margin in enumerate(Margins(N, K).at(RADII)):
        p_values = np.exp(p_value_table(DRAWS, min(1.0, 0.5 + margin / 2)))[top]
        order = np.argsort(p_values, kind="stable")
        passing = p_values[order] <= ALPHA / (len(order) - np.arange(len(order)))
        rejected = order[: len(order) if passing.all() else int(np.argmin(passing))]
        certified[j].ravel()[rejected] = True
    return certified


def main() -> None:
    """Time both ways and print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=58)
    parser.add_argument("--reference-images", type=int, default=3)
    options = parser.parse_args()
    seconds, reference, same = [], [], True
    for seed in range(options.images):
        counts = counts_of(seed)
        start = time.perf_counter()
        found = certify_counts(counts, n=N, k=K, radii=RADII, alpha=ALPHA, correction="holm").certified
        seconds.append(time.perf_counter() - start)
        if seed < options.reference_images:
            start = time.perf_counter()
            expected = by_sorting(counts)
            reference.append(time.perf_counter() - start)
            same &= bool((found == expected).all())
    report = {
        "images": options.images,
        "radii": len(RADII),
        "draws": DRAWS,
        "seconds": round(sum(seconds), 3),
        "seconds_per_image": round(float(np.mean(seconds)), 4),
        "sorting_seconds_per_image": round(float(np.mean(reference)), 3),
        "times_faster": round(float(np.mean(reference) / np.mean(seconds)), 1),
        "same_answers": same,
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
