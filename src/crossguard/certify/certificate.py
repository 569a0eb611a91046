"""`Certificate`: what certification found out about each sample, and certified accuracy over radii."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int64, Shaped

from crossguard.certify.bounds import Bound, lead_bounds
from crossguard.certify.counts import Counts
from crossguard.certify.decide import SCOPES
from crossguard.certify.ensemble import leads
from crossguard.certify.frontier import maximal_radii, share_at_least
from crossguard.certify.issued import Issued
from crossguard.certify.leaders import most_votes
from crossguard.certify.looks import level_of
from crossguard.certify.noise import AnyMargins, NoisyMargins
from crossguard.checks import lookup


@dataclass(frozen=True)
class Grid:
    """Certified accuracy at all combinations of radii.

    Attributes:
        radii: the radii of each modality, by its name, in the order of the axes: elements, or L2 of noisy ones.
        accuracy: float64 [radii of the first modality, of the second, ...], in [0, 1].
    """

    radii: Mapping[str, tuple[float | int, ...]]
    accuracy: Float[np.ndarray, "*axes"]


@dataclass(frozen=True, kw_only=True, repr=False)
class SampleCertificate(Issued):
    """Certificates of one answer per sample, by the lead that each answer's votes prove.

    All that is said about a sample holds together, for all radii at once, with probability 1 - alpha over the draws.
    Truth enters only in `accuracy`, `grid`, `radii`, `area`, `rows` and `summary`, where samples labelled -1 do not
    count.
    """

    @property
    @abstractmethod
    def gaps(self) -> Float[np.ndarray, " samples"]:
        """Lower bounds on p_A - p_B; a sample is certified wherever the margin of the radii is at most its gap."""

    @property
    @abstractmethod
    def right(self) -> Bool[np.ndarray, " samples"]:
        """Judged samples whose answer is right, certified or not."""

    @property
    def metric(self) -> str:
        """What the share of right and certified samples is called."""
        return "accuracy"

    @cached_property
    def judged(self) -> Bool[np.ndarray, " samples"]:
        """Samples with a label."""
        return np.asarray(self.samples.labels >= 0)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Signs that the figures say less than they seem to."""
        return ()

    @property
    def scope(self) -> str:
        """What alpha covers, in words."""
        return SCOPES["published" if self.deterministic else "bonferroni"]

    @cached_property
    def margins(self) -> AnyMargins:
        """The margins that radii ask for."""
        return self.first.margins(self.kinds)

    @cached_property
    def abstained(self) -> Bool[np.ndarray, " samples"]:
        """Samples of which nothing is certified, not even that the smoothed label is the likeliest."""
        return self.gaps < 0

    @property
    def abstention(self) -> float:
        """Share of the samples that abstain, in [0, 1]."""
        return float(self.abstained.mean())

    def certified(self, radii: Mapping[str, float | int]) -> Bool[np.ndarray, " samples"]:
        """Return which samples' labels no attacker within `radii` can change; whether they are right plays no part.

        Args:
            radii: elements that may be edited, by modality, and L2 distances of those under noise; a modality that is
                not named is not attacked.

        Raises:
            ValueError: an unknown modality, or a radius that is not whole, negative or > n.
        """
        return self.gaps >= self.margins.at([self._vector(radii)])[0]

    def accuracy(self, radii: Mapping[str, float | int] | None = None) -> float:
        """Return certified accuracy in [0, 1]: the share of judged samples with a right label certified at `radii`.

        Args:
            radii: as `certified`; None stands for no attack, where a sample that abstains still counts as wrong.

        Raises:
            ValueError: as `certified`, or no sample has a label.
        """
        return float((self.certified(radii or {}) & self.right).sum() / self._total)

    @property
    def clean_accuracy(self) -> float:
        """Share of judged samples whose smoothed label is right, certified or not, in [0, 1]."""
        return float(self.right.sum() / self._total)

    def grid(self, radii: Mapping[str, Sequence[float | int]] | None = None) -> Grid:
        """Return certified accuracy at all combinations of radii.

        Args:
            radii: the radii of each modality by name; None takes 0, 1, ... to the first that no sample is certified
                at, and of those under noise eighths of the largest that some sample is certified at.

        Raises:
            ValueError: a modality is missing or unknown, or a radius is not whole, negative or > n.
        """
        if radii is None:
            reach = dict(zip(self.modalities, self._reach, strict=True))
            radii = {m: range(min(int(reach[m]) + 1, n) + 1) for m, n in self.first.n.items()}
            radii |= {m: tuple(np.linspace(0, reach[m], 9).tolist()) for m in self.first.noise}
        for modality in radii:
            lookup(dict.fromkeys(self.modalities), modality, what="modality in `radii`")
        axes = {m: tuple(lookup(radii, m, what="modality")) for m in self.modalities}
        return Grid(axes, self.shares(list(axes.values()), self._total))

    def shares(self, axes: Sequence[Sequence[float | int]], total: int) -> Float[np.ndarray, "*axes"]:
        """Return the right samples that are certified at all combinations of radii, as shares of `total`."""
        return share_at_least(self.gaps[self.right], self.margins.grid(axes), total)

    def frontier(self, sample: int) -> Shaped[np.ndarray, "points axes"]:
        """Return all maximal radius vectors at which one sample is certified; no row when it abstains.

        Beside noise they are float64, and the last entry is how far noisy modalities may be moved: eps in L2 of a
        single one, of several s, the square root of sum_i (eps_i / sigma_i)^2.
        """
        gap = float(self.gaps[sample])
        if isinstance(self.margins, NoisyMargins):
            return self.margins.frontier(gap)
        return maximal_radii(self.margins, gap)

    def radii(self) -> dict[str, float]:
        """Return the average certified radius of each modality, attacked alone; 0 where wrong or abstaining."""
        gaps, samples = np.unique(self.gaps[self.right], return_counts=True)  # as many as there are counts
        totals = np.zeros(len(self.modalities))
        for gap, count in zip(gaps.tolist(), samples.tolist(), strict=True):
            totals += count * np.maximum(self.margins.reach(gap), 0)
        return dict(zip(self.modalities, (totals / self._total).tolist(), strict=True))

    def area(self) -> float:
        """Return the area under the frontier: the average number of radius vectors a right label is certified at.

        Beside noise, the average sum of the last entries of the frontier, over all certified radii of the others.
        """
        if isinstance(self.margins, NoisyMargins):
            gaps, samples = np.unique(self.gaps[self.right], return_counts=True)
            areas = [self.margins.frontier(gap)[:, -1].sum() for gap in gaps.tolist()]
            return float(np.dot(areas, samples) / self._total)
        return float(self.grid().accuracy.sum())

    @property
    def _total(self) -> int:
        total = int(self.judged.sum())
        if not total:
            raise ValueError("Expected samples with labels to speak of accuracy, but all are -1.")
        return total

    @property
    def _reach(self) -> tuple[float | int, ...]:
        return tuple(max(0, r) for r in self.margins.reach(float(self.gaps.max())))

    def _vector(self, radii: Mapping[str, float | int]) -> tuple[float | int, ...]:
        for modality in radii:
            lookup(dict.fromkeys(self.modalities), modality, what="modality in `radii`")
        return tuple(radii.get(m, 0) for m in self.modalities)


@dataclass(frozen=True, kw_only=True, repr=False)
class Certificate(SampleCertificate):
    """Labels and certificates of samples; every method reads the counts, none draws.

    Args:
        counts: int64 votes [samples, labels].
        selection: votes of separate draws that chose the labels, or None.
        bound: "majority", "gap" or "both".
    """

    counts: Counts
    selection: Counts | None
    bound: Bound

    @property
    def first(self) -> Counts:
        """The votes."""
        return self.counts

    @property
    def level(self) -> float:
        """The part of alpha that this look at the counts has: all of it where they are looked at once."""
        return level_of(self.counts, self.alpha)

    @cached_property
    def labels(self) -> Int64[np.ndarray, " samples"]:
        """The smoothed labels: most votes, the lowest label among equals."""
        return most_votes((self.selection or self.counts).votes)[0]

    @cached_property
    def votes(self) -> Int64[np.ndarray, " samples"]:
        """Votes for each sample's smoothed label, of `counts.draws`."""
        return np.take_along_axis(self.counts.votes, self.labels[:, None], axis=1)[:, 0]

    @cached_property
    def gaps(self) -> Float[np.ndarray, " samples"]:
        """Lower bounds on p_A - p_B; a sample is certified wherever the margin of the radii is at most its gap.

        Of a published design the leads themselves, as shares of the votes.
        """
        if self.deterministic:
            return leads(self.counts.votes) / self.counts.draws
        return lead_bounds(
            self.counts.votes,
            self.votes,
            self.counts.draws,
            self.level,
            bound=self.bound,
            separate=self.selection is not None,
        )

    @property
    def warnings(self) -> tuple[str, ...]:
        """Signs that the figures say less than they seem to."""
        found = []
        if len(self.labels) > 1 and len(set(self.labels.tolist())) == 1:
            found.append(f"every sample gets the label {self.samples.classes[self.labels[0]]!r}")
        if self.counts.draws > 1 and (self.votes == self.counts.draws).all():
            found.append("answers do not depend on what is kept: every sub-sample of a sample gets the same label")
        return tuple(found)

    @cached_property
    def right(self) -> Bool[np.ndarray, " samples"]:
        """Judged samples whose label is right, certified or not."""
        return np.asarray(self.judged & (self.labels == self.samples.labels))

    def judged_by(self, labels: Int64[np.ndarray, " samples"]) -> "Certificate":
        """Return the same certificates held against true labels that were not at hand when they were made.

        Args:
            labels: class index of each sample, -1 where unknown.

        Raises:
            ValueError: another number of labels than samples, or a label that is no class.
        """
        return replace(self, samples=replace(self.samples, labels=labels))

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per sample, of plain JSON values."""
        classes = self.samples.classes
        return [
            {
                **self.settings,
                "sample": i,
                "group": int(self.samples.groups[i]),
                "label": classes[label] if label >= 0 else None,
                "predicted": classes[self.labels[i]],
                "right": bool(self.right[i]) if label >= 0 else None,
                "votes": int(self.votes[i]),
                "abstained": bool(self.abstained[i]),
                "frontier": self.frontier(i).tolist(),
            }
            for i, label in enumerate(self.samples.labels.tolist())
        ]

    def summary(self) -> dict[str, Any]:
        """Return the settings and the main figures, as plain JSON values."""
        return {
            **self.settings,
            "samples": len(self.samples),
            "selection_draws": self.selection.draws if self.selection else 0,
            "bound": self.bound,
            "scope": self.scope,
            "ablation": self.ablation,
            "looks": list(self.counts.looks),
            "level": self.level,
            "clean_accuracy": self.clean_accuracy,
            "certified_accuracy_unattacked": self.accuracy(),
            "abstention": self.abstention,
            "warnings": list(self.warnings),
            "average_radius": self.radii(),
            "area": self.area(),
            "seconds": self.seconds,
        }
