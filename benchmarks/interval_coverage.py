"""How often intervals hold the truth, and how wide they are: over groups, and Wilson's of independent samples beside.

    python benchmarks/interval_coverage.py [--groups 64] [--draws 4000] [--run RUN ...]

Simulated: groups of one, five or sixty samples, or of geometric or log-normal sizes; shares of hits from .01 to .99; a
beta variable as each group's own share, with an intraclass correlation from 0 to 1. Each line gives the lowest coverage
over the shares, where it is, and the mean width. Then drops of pairs of shares, and IoU of images and its drop.

With --run, the groups of a finished evaluation of retrieval are the population: so many of them are drawn again and
again, with replacement, and the truth is the share of all.
"""

import argparse
from collections.abc import Iterator

import numpy as np

from crossguard.evaluate.statistics import jackknife_bounds, lost_and_won_bounds, share_bounds
from crossguard.runs import RunFolder

SHARES = (0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99)
SIZES = ("one", "five", "sixty", "geometric", "log-normal")
Bounds = tuple[np.ndarray, np.ndarray]


def draw_sizes(kind: str, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Return samples per group."""
    if kind == "geometric":
        return rng.geometric(0.2, shape).astype(float)
    if kind == "log-normal":
        return np.maximum(1.0, np.floor(np.exp(rng.normal(1, 1, shape))))
    return np.full(shape, {"one": 1.0, "five": 5.0, "sixty": 60.0}[kind])


def draw_hits(share: float, rho: float, sizes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return hits of groups whose own share is a beta variable with intraclass correlation `rho`."""
    if share in (0, 1):
        return sizes * share
    if rho == 1:
        return sizes * (rng.random(sizes.shape) < share)
    own = share if rho == 0 else rng.beta(share * (1 - rho) / rho, (1 - share) * (1 - rho) / rho, sizes.shape)
    return rng.binomial(sizes.astype(int), own).astype(float)


def independent(part: np.ndarray, whole: np.ndarray) -> Bounds:
    """Return Wilson's interval of the same samples, taken as independent."""
    size, share = whole.sum(axis=-1), part.sum(axis=-1) / whole.sum(axis=-1)
    z = 1.959963984540054
    centre = (share + z * z / (2 * size)) / (1 + z * z / size)
    half = z / (1 + z * z / size) * np.sqrt(share * (1 - share) / size + z * z / (4 * size**2))
    return 100 * (centre - half), 100 * (centre + half)


def held(bounds: Bounds, truth: float) -> float:
    """Return how many of 100 intervals hold the truth (in percent)."""
    low, high = bounds
    return float(100 * ((low <= truth + 1e-9) & (truth - 1e-9 <= high)).mean())


def width(bounds: Bounds) -> float:
    """Return the mean width, in points."""
    return float((bounds[1] - bounds[0]).mean())


def of_shares(groups: int, draws: int, rng: np.random.Generator) -> Iterator[str]:
    """Give a line per kind of group and correlation."""
    yield "sizes       rho   lowest of 100 over shares (at)   width   Wilson's lowest (at)   width"
    for kind in SIZES:
        for rho in (0.0,) if kind == "one" else (0.0, 0.1, 0.3, 0.6, 1.0):
            found, plain = [], []
            for share in SHARES:
                sizes = draw_sizes(kind, (draws, groups), rng)
                hits = draw_hits(share, rho, sizes, rng)
                for bounds, kept in ((share_bounds(hits, sizes), found), (independent(hits, sizes), plain)):
                    kept.append((held(bounds, 100 * share), share, width(bounds)))
            (low, at, _), (other, there, _) = min(found), min(plain)
            widths = [float(np.mean([w for *_, w in kept])) for kept in (found, plain)]
            yield (
                f"{kind:11} {rho:<4} {low:14.1f} ({at:g})".ljust(48)
                + f"{widths[0]:6.1f} {other:14.1f} ({there:g})".ljust(30)
                + f"{widths[1]:7.1f}"
            )


def of_drops(groups: int, draws: int, rng: np.random.Generator) -> Iterator[str]:
    """Give a line per correlation: the lowest coverage over pairs of lost and won shares."""
    cases = ((0.01, 0.0), (0.03, 0.0), (0.05, 0.02), (0.1, 0.1), (0.3, 0.01), (0.3, 0.3), (0.6, 0.0), (0.95, 0.0))
    yield "drop: sizes  rho   lowest of 100 over pairs (lost, won)"
    for kind in SIZES:
        for rho in (0.0,) if kind == "one" else (0.0, 0.3, 1.0):
            found = []
            for lost, won in cases:
                sizes = draw_sizes(kind, (draws, groups), rng)
                changed = draw_hits(lost + won, rho, sizes, rng)
                gone = draw_hits(lost / (lost + won), rho, changed, rng)
                bounds = lost_and_won_bounds(gone, changed - gone, sizes)
                found.append((held(bounds, 100 * (lost - won)), (lost, won)))
            yield f"      {kind:11} {rho:<4} {min(found)[0]:6.1f} {min(found)[1]}"


def of_pixels(groups: int, draws: int, rng: np.random.Generator) -> Iterator[str]:
    """Give a line per distribution of IoU over images."""
    yield "IoU  spread   of 100   width   its drop of 100   width"
    for iou, spread in ((0.9, 0.03), (0.9, 0.15), (0.98, 0.03), (0.5, 0.2)):
        strength = iou * (1 - iou) / spread**2 - 1
        union = np.exp(rng.normal(6, 0.7, (draws, groups))).astype(int)
        hits = rng.binomial(union, rng.beta(iou * strength, (1 - iou) * strength, union.shape))
        left = rng.binomial(hits, rng.beta(19, 1, union.shape)).astype(float)
        more = (union + rng.poisson(union * 0.05)).astype(float)
        before = (hits.astype(float), union.astype(float))
        single, drop = share_bounds(*before), jackknife_bounds(before, (left, more))
        truth = 100 * (iou - 0.95 * iou / 1.05)
        yield (
            f"{iou:<4} {spread:<8} {held(single, 100 * iou):6.1f} {width(single):7.1f}"
            f" {held(drop, truth):16.1f} {width(drop):8.1f}"
        )


def of_run(path: str, groups: int, draws: int, rng: np.random.Generator) -> Iterator[str]:
    """Give a line per section, side and metric of a run of retrieval, whose groups are the population."""
    yield f"{path}: {groups} groups drawn {draws} times   truth   of 100   width   Wilson's   width"
    sections: dict[str, list[dict[str, int]]] = {}
    for row in RunFolder(path).read_rows():
        if "clean_rank" in row and "group" in row:
            sections.setdefault(f"{row['section']} {row['direction']}", []).append(row)
    for name, rows in sections.items():
        _, member = np.unique([row["group"] for row in rows], return_inverse=True)
        wholes = np.bincount(member).astype(float)
        for side in ("clean", "robust"):
            if rows[0][f"{side}_rank"] is None:
                continue
            for cut in (1, 5):
                hits = np.bincount(member, weights=[row[f"{side}_rank"] <= cut for row in rows])
                chosen = rng.integers(0, len(wholes), (draws, groups))
                drawn, truth = (hits[chosen], wholes[chosen]), 100 * hits.sum() / wholes.sum()
                own, plain = share_bounds(*drawn), independent(*drawn)
                yield (
                    f"{name + '@' + str(cut) + ' ' + side:45} {truth:10.1f} {held(own, truth):8.1f} {width(own):7.1f}"
                    f" {held(plain, truth):10.1f} {width(plain):7.1f}"
                )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", type=int, default=64)
    parser.add_argument("--draws", type=int, default=4000)
    parser.add_argument("--run", nargs="*", default=[])
    asked = parser.parse_args()
    rng = np.random.default_rng(0)
    for part in (of_shares, of_drops, of_pixels):
        print("\n".join(part(asked.groups, asked.draws, rng)), end="\n\n")
    for path in asked.run:
        print("\n".join(of_run(path, asked.groups, asked.draws, rng)), end="\n\n")


if __name__ == "__main__":
    main()
