"""Samples of different lengths: a certificate per sample, of the elements that it has."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int64, Shaped

from crossguard.certify.certificate import Certificate, SampleCertificate
from crossguard.certify.classify import certify
from crossguard.certify.counts import Counts
from crossguard.checks import lookup
from crossguard.data.lengths import checked_lengths
from crossguard.data.samples import MultiModalSamples, element_count
from crossguard.models.base import MultiModalClassifier

Lengths = Mapping[str, Int64[np.ndarray, " samples"]]


@dataclass(frozen=True, kw_only=True, repr=False)
class VariedCertificate(SampleCertificate):
    """Certificates of samples of different lengths; each sample's holds for its own n and k.

    Args:
        parts: indices of the samples of equal lengths, and their certificate.
    """

    parts: tuple[tuple[Int64[np.ndarray, " _"], Certificate], ...]

    @property
    def first(self) -> Counts:
        """The votes of the longest samples."""
        return max((part.counts for _, part in self.parts), key=lambda counts: sum(counts.n.values()))

    @cached_property
    def labels(self) -> Int64[np.ndarray, " samples"]:
        """The smoothed labels."""
        return self._together([part.labels for _, part in self.parts])

    @cached_property
    def gaps(self) -> Float[np.ndarray, " samples"]:
        """Lower bounds on p_A - p_B, see `Certificate.gaps`."""
        return self._together([part.gaps for _, part in self.parts])

    @cached_property
    def right(self) -> Bool[np.ndarray, " samples"]:
        """Judged samples whose label is right, certified or not."""
        return self._together([part.right for _, part in self.parts])

    def certified(self, radii: Mapping[str, float | int]) -> Bool[np.ndarray, " samples"]:
        """Return which samples' labels no attacker within `radii` can change; none whose radius exceeds its length."""
        for modality in radii:
            lookup(dict.fromkeys(self.modalities), modality, what="modality in `radii`")
        found = []
        for ids, part in self.parts:
            beyond = any(r > part.counts.n.get(m, np.inf) for m, r in radii.items())
            found.append(np.zeros(len(ids), dtype=bool) if beyond else part.certified(radii))
        return self._together(found)

    def shares(self, axes: Sequence[Sequence[float | int]], total: int) -> Float[np.ndarray, "*axes"]:
        """Return the right samples that are certified at all combinations of radii, as shares of `total`."""
        table = np.zeros([len(axis) for axis in axes])
        for _, part in self.parts:
            within = [
                [place for place, r in enumerate(axis) if r <= part.counts.n.get(m, np.inf)]
                for m, axis in zip(self.modalities, axes, strict=True)
            ]
            own = [[axis[place] for place in places] for axis, places in zip(axes, within, strict=True)]
            table[np.ix_(*within)] += part.shares(own, 1)
        return table / total

    def frontier(self, sample: int) -> Shaped[np.ndarray, "points axes"]:
        """Return all maximal radius vectors at which one sample is certified."""
        for ids, part in self.parts:
            place = np.flatnonzero(ids == sample)
            if len(place):
                return part.frontier(int(place[0]))
        raise ValueError(f"Expected a sample in 0..{len(self.labels) - 1}, but got {sample}.")

    def radii(self) -> dict[str, float]:
        """Return the average certified radius of each modality, attacked alone; 0 where wrong or abstaining."""
        judged = [(part.radii(), int(part.judged.sum())) for _, part in self.parts if part.judged.any()]
        return {m: sum(own[m] * count for own, count in judged) / self._total for m in self.modalities}

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per sample, with its own n and k."""
        rows = [{**row, "sample": int(i)} for ids, part in self.parts for i, row in zip(ids, part.rows(), strict=True)]
        return sorted(rows, key=lambda row: int(row["sample"]))

    @property
    def _reach(self) -> tuple[float | int, ...]:
        return tuple(max(reach) for reach in zip(*(part._reach for _, part in self.parts), strict=True))

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
    told = checked_lengths(lengths, sizes, len(samples))
    every = np.ones(len(samples), dtype=np.int64)
    table = np.column_stack([told.get(m, every * size) for m, size in sizes.items()])
    plans = list(_plans(table, sizes, keep, fixed=fixed))  # all are checked before anything is drawn
    parts = []
    for ids, own, kept in plans:
        place = None if folder is None else Path(folder) / ("n-" + "-".join(map(str, own.values())))
        parts.append((ids, certify(model, samples.select(ids), keep=kept, lengths=own, folder=place, **options)))
    one = parts[0][1]
    common = {name: getattr(one, name) for name in ("model", "alpha", "kinds", "ablation", "fill", "units", "identity")}
    seconds = sum(part.seconds for _, part in parts)
    return VariedCertificate(samples=samples, parts=tuple(parts), seconds=seconds, **common)


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
