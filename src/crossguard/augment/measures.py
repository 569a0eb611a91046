"""Looking at augmented samples before use: alignment, diversity, distribution gap, from unit embeddings."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int64
from scipy.sparse import csr_array

from crossguard.augment.base import Side

Features = Float[np.ndarray, "samples dim"]


@dataclass(frozen=True)
class Measures:
    """What one source gave, over all samples that it made; None where no reference model looked or nothing is there.

    Args:
        source: its name; "originals" for the data themselves.
        gives: what it makes.
        made: samples made.
        repeats: those that repeat an original or an earlier sample, and add nothing new.
        filtered: those below the alignment threshold, which were left out.
        alignment: mean cosine of a sample with the originals that it was made for, in [-1, 1].
        diversity: mean cosine distance between two samples of one item, in [0, 2], over items with two or more.
        gap: Fréchet distance between samples and originals of the same side, 0 and up. For "originals": between two
            random halves of them, which is what chance alone gives.
    """

    source: str
    gives: Side
    made: int
    repeats: int = 0
    filtered: int = 0
    alignment: float | None = None
    diversity: float | None = None
    gap: float | None = None

    @property
    def added(self) -> int:
        """New texts or pictures beside the originals."""
        return 0 if self.source == "originals" else self.made - self.repeats - self.filtered

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; `from_dict` reads them back."""
        return {**asdict(self), "added": self.added}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Measures":
        """Read what `to_dict` wrote."""
        return cls(**{key: value for key, value in values.items() if key != "added"})


def alignment(
    samples: Features, partners: Float[np.ndarray, "partners dim"], pairs: Int64[np.ndarray, "pairs 2"]
) -> Float[np.ndarray, " samples"]:
    """Return every sample's mean cosine with its partners.

    Args:
        samples: unit vectors.
        partners: unit vectors of the other side.
        pairs: (row of `samples`, row of `partners`); every sample has at least one.
    """
    cosines = np.einsum("ij,ij->i", samples[pairs[:, 0]], partners[pairs[:, 1]])
    sums = np.bincount(pairs[:, 0], weights=cosines, minlength=len(samples))
    return sums / np.bincount(pairs[:, 0], minlength=len(samples))


def diversity(samples: Features, items: Int64[np.ndarray, " samples"]) -> float | None:
    """Return the mean over items of the mean cosine distance between two different samples of the item.

    With unit vectors u_1..u_n the mean cosine of two of them is (|u_1 + ... + u_n|^2 - n) / (n (n - 1)).

    Args:
        samples: unit vectors.
        items: which item each sample is of.

    Returns:
        A number in [0, 2]; None when no item has two samples.
    """
    _, group, sizes = np.unique(items, return_inverse=True, return_counts=True)
    several = sizes > 1
    if not several.any():
        return None
    member = csr_array((np.ones(len(items)), (group, np.arange(len(items)))), shape=(len(sizes), len(items)))
    sums = (member @ samples.astype(np.float64))[several]
    n = sizes[several]
    cosines = ((sums**2).sum(axis=1) - n) / (n * (n - 1))
    return float(1 - cosines.mean())


def frechet_distance(a: Float[np.ndarray, "a dim"], b: Float[np.ndarray, "b dim"]) -> float | None:
    """Return the squared Fréchet distance between Gaussians fitted to two sets (Heusel et al., 2017, eq. 6).

    |m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)), with covariances over n. The trace of the root is taken from the
    eigenvalues of C_a^(1/2) C_b C_a^(1/2), which are real and not negative. The estimate is biased upwards for few
    samples: compare sets of like size only.

    Returns:
        A number >= 0; None when a set has fewer than two members.
    """
    if min(len(a), len(b)) < 2:
        return None
    a, b = a.astype(np.float64), b.astype(np.float64)
    cov_a, cov_b = (np.atleast_2d(np.cov(x, rowvar=False, bias=True)) for x in (a, b))
    values, vectors = np.linalg.eigh(cov_a)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    product = np.linalg.eigvalsh(root @ cov_b @ root)
    trace = np.trace(cov_a) + np.trace(cov_b) - 2 * np.sqrt(product.clip(min=0)).sum()
    return float(max(0.0, ((a.mean(axis=0) - b.mean(axis=0)) ** 2).sum() + trace))
