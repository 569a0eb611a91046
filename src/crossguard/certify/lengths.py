"""Samples of different lengths: a certificate per sample, of the elements that it has."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int64, Shaped

from crossguard.certify.certificate import Certificate
from crossguard.certify.classify import certify
from crossguard.checks import lookup
from crossguard.data.samples import MultiModalSamples, element_count
from crossguard.models.base import MultiModalClassifier

Lengths = Mapping[str, Int64[np.ndarray, " samples"]]


@dataclass(frozen=True)
class VariedCertificate:
    """Certificates of samples of different lengths; each sample's holds for its own n and k.

    Args:
        samples: what was certified.
        parts: indices of the samples of equal lengths, and their certificate.
    """

    samples: MultiModalSamples
    parts: tuple[tuple[Int64[np.ndarray, " _"], Certificate], ...]

    @cached_property
    def labels(self) -> Int64[np.ndarray, " samples"]:
        """The smoothed labels."""
        return self._together([part.labels for _, part in self.parts])

    @cached_property
    def gaps(self) -> Float[np.ndarray, " samples"]:
        """Lower bounds on p_A - p_B, see `Certificate.gaps`."""
        return self._together([part.gaps for _, part in self.parts])

    def certified(self, radii: Mapping[str, int]) -> Bool[np.ndarray, " samples"]:
        """Return which samples' labels no attacker within `radii` can change; none whose radius exceeds its length."""
        for modality in radii:
            lookup(self.parts[0][1].counts.n, modality, what="modality in `radii`")
        found = []
        for ids, part in self.parts:
            beyond = any(r > part.counts.n[m] for m, r in radii.items())
            found.append(np.zeros(len(ids), dtype=bool) if beyond else part.certified(radii))
        return self._together(found)

    def accuracy(self, radii: Mapping[str, int] | None = None) -> float:
        """Return the share of judged samples with a right label certified at `radii`, in [0, 1].

        Raises:
            ValueError: no sample has a label.
        """
        judged = self.samples.labels >= 0
        if not judged.any():
            raise ValueError("Expected samples with labels to speak of accuracy, but all are -1.")
        return float((self.certified(radii or {}) & (self.labels == self.samples.labels))[judged].mean())

    def frontier(self, sample: int) -> Shaped[np.ndarray, "points axes"]:
        """Return all maximal radius vectors at which one sample is certified."""
        for ids, part in self.parts:
            place = np.flatnonzero(ids == sample)
            if len(place):
                return part.frontier(int(place[0]))
        raise ValueError(f"Expected a sample in 0..{len(self.labels) - 1}, but got {sample}.")

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per sample, with its own n and k."""
        rows = [{**row, "sample": int(i)} for ids, part in self.parts for i, row in zip(ids, part.rows(), strict=True)]
        return sorted(rows, key=lambda row: int(row["sample"]))

    def _together(self, values: Sequence[np.ndarray]) -> np.ndarray:
        whole = np.empty(len(self.samples), dtype=values[0].dtype)
        for (ids, _), part in zip(self.parts, values, strict=True):
            whole[ids] = part
        return whole


def certify_lengths(
    model: MultiModalClassifier,
    samples: MultiModalSamples,
    *,
    lengths: Lengths,
    keep: Mapping[str, int | float],
    folder: Path | str | None = None,
    **options: Any,
) -> VariedCertificate:
    """Certify samples that have different numbers of elements: what lies behind a sample's length is padding.

    Padding is never kept, and no attacker's edit of it counts. Under substitutions alone the model may know how many
    elements there are; insertions and deletions change that, and ask for elements that are kept at a rate.

    Args:
        model: the base classifier, which takes padded values as its masks say.
        samples: with arrays [samples, elements, ...] as long as the longest.
        lengths: elements of each sample, >= 1, by modality; a modality that is not named is full.
        keep: elements kept of each modality: a number, of which a shorter sample keeps all it has, or a rate in (0, 1),
            of which every sample of n keeps round(rate n), at least one. With other kinds than "substitution", rates
            keep every element independently with that chance, as `certify` does.
        folder: where counts are kept, a folder for each combination of lengths.
        options: others of `certify`.

    Raises:
        ValueError: lengths beyond the data or below 1, of another shape, or of an unknown modality; a rate outside
            (0, 1); numbers of elements with a kind other than substitution; or what `certify` refuses.
    """
    kinds = options.get("kind", "substitution")
    fixed = kinds == "substitution" or (isinstance(kinds, Mapping) and set(kinds.values()) <= {"substitution"})
    if not fixed and not all(isinstance(k, float) for k in keep.values()):
        raise ValueError(
            f"Expected kind 'substitution', or rates in `keep`, with lengths, but got {kinds!r} and {keep}."
        )
    sizes = {m: element_count(lookup(samples.modalities, m, what="modality")) for m in model.modalities}
    table = np.column_stack([_lengths(lengths, m, size, samples) for m, size in sizes.items()])
    for modality in lengths:
        lookup(sizes, modality, what="modality in `lengths`")
    plans = list(_plans(table, sizes, keep, fixed=fixed))  # all are checked before anything is drawn
    parts = []
    for ids, own, kept in plans:
        place = None if folder is None else Path(folder) / ("n-" + "-".join(map(str, own.values())))
        parts.append((ids, certify(model, samples.select(ids), keep=kept, lengths=own, folder=place, **options)))
    return VariedCertificate(samples, tuple(parts))


def _lengths(lengths: Lengths, modality: str, size: int, samples: MultiModalSamples) -> Int64[np.ndarray, " samples"]:
    if modality not in lengths:
        return np.full(len(samples), size, dtype=np.int64)
    found = np.asarray(lengths[modality])
    if found.shape != (len(samples),) or not np.issubdtype(found.dtype, np.integer):
        raise ValueError(
            f"Expected `lengths[{modality!r}]` to be integers [{len(samples)}], but got {found.dtype} "
            f"{list(found.shape)}."
        )
    if found.min() < 1 or found.max() > size:
        raise ValueError(
            f"Expected `lengths[{modality!r}]` in 1..{size}, the elements there are, but got {found.min()}.."
            f"{found.max()}."
        )
    return found.astype(np.int64)


def _plans(
    table: Int64[np.ndarray, "samples modalities"],
    sizes: Mapping[str, int],
    keep: Mapping[str, int | float],
    *,
    fixed: bool,
) -> Iterator[tuple[Int64[np.ndarray, " chosen"], dict[str, int], dict[str, int | float]]]:
    different, place = np.unique(table, axis=0, return_inverse=True)
    for group, row in enumerate(different.tolist()):
        own = dict(zip(sizes, row, strict=True))
        yield (
            np.flatnonzero(place.ravel() == group),
            own,
            {m: _kept(m, k, own) if fixed else k for m, k in keep.items()},
        )


def _kept(modality: str, k: int | float, own: Mapping[str, int]) -> int:
    n = lookup(own, modality, what="modality in `keep`")
    if isinstance(k, int):
        return min(k, n)
    if not 0 < k < 1:
        raise ValueError(
            f"Expected `keep[{modality!r}]` to be a number of elements or a rate in (0, 1), but got {k!r}."
        )
    return max(1, round(k * n))
