"""`Certificate`: what certification found out about each sample, and certified accuracy over radii."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int64

from crossguard.certify.bounds import Bound, lead_bounds
from crossguard.certify.counts import Counts
from crossguard.certify.decide import SCOPES
from crossguard.certify.design import Ablation
from crossguard.certify.ensemble import leads
from crossguard.certify.frontier import maximal_radii, share_at_least
from crossguard.certify.leaders import most_votes
from crossguard.certify.looks import alpha_of_look
from crossguard.certify.saved_design import SavedDesign
from crossguard.certify.thresholds import RadiusMargins, Scheme
from crossguard.checks import lookup
from crossguard.data.samples import MultiModalSamples


@dataclass(frozen=True)
class Grid:
    """Certified accuracy at all combinations of radii.

    Attributes:
        radii: the radii of each modality, by its name, in the order of the axes.
        accuracy: float64 [radii of the first modality, of the second, ...], in [0, 1].
    """

    radii: Mapping[str, tuple[int, ...]]
    accuracy: Float[np.ndarray, "*axes"]


@dataclass(frozen=True)
class Certificate:
    """Labels and certificates of samples; every method reads the counts, none draws.

    All that is said about a sample holds together, for all radii at once, with probability 1 - alpha over the draws.
    Truth enters only in `accuracy`, `grid`, `radii`, `area`, `rows` and `summary`, where samples labelled -1 do not
    count.

    Args:
        model: name of the base model.
        samples: what was certified.
        counts: int64 votes [samples, labels].
        selection: votes of separate draws that chose the labels, or None.
        alpha: probability of a wrong certificate, per sample, over all looks at growing counts; 0 of a published
            design.
        kinds: kind of edit by modality.
        bound: "majority", "gap" or "both".
        seconds: wall time of drawing and counting.
        ablation: what became of elements that were not kept, in words.
        fill: the same, as `certify` was asked.
    """

    model: str
    samples: MultiModalSamples
    counts: Counts
    selection: Counts | None
    alpha: float
    kinds: Mapping[str, str]
    bound: Bound
    seconds: float
    ablation: str = ""
    fill: Ablation | None = None

    @property
    def modalities(self) -> tuple[str, ...]:
        """The names of the modalities, in the order of radius vectors."""
        return tuple(self.counts.n)

    @property
    def scheme(self) -> Scheme:
        """How sub-samples were drawn: "independent", "joint" for the baseline, "fixed" or "product"."""
        return self.counts.scheme

    def save_design(self, folder: Path | str) -> None:
        """Keep the published design with the model in its folder, so that `cg.predict(folder, ...)` answers by it.

        Raises:
            ValueError: it is of random draws, or there is no such folder.
        """
        counts = self.counts
        if not self.deterministic:
            raise ValueError("Expected a certificate of a published design, but its sub-samples are drawn at random.")
        SavedDesign(self.scheme, counts.n, counts.k, counts.draws, counts.seed, self.fill).save(folder)

    @property
    def scope(self) -> str:
        """What alpha covers, in words."""
        return SCOPES["published" if self.deterministic else "bonferroni"]

    @property
    def deterministic(self) -> bool:
        """Whether it is of a published design, and so holds without any chance of error."""
        return self.scheme in ("fixed", "product")

    @property
    def level(self) -> float:
        """The part of alpha that this look at the counts has: all of it where they are looked at once."""
        return alpha_of_look(self.alpha, self.counts.looks, self.counts.draws) if self.counts.looks else self.alpha

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

    @cached_property
    def margins(self) -> RadiusMargins:
        """The margins that radii ask for."""
        return self.counts.margins(self.kinds)

    @cached_property
    def abstained(self) -> Bool[np.ndarray, " samples"]:
        """Samples of which nothing is certified, not even that the smoothed label is the likeliest."""
        return self.gaps < 0

    @property
    def abstention(self) -> float:
        """Share of the samples that abstain, in [0, 1]."""
        return float(self.abstained.mean())

    @cached_property
    def _judged(self) -> Bool[np.ndarray, " samples"]:
        return np.asarray(self.samples.labels >= 0)

    @cached_property
    def _right(self) -> Bool[np.ndarray, " samples"]:
        return np.asarray(self._judged & (self.labels == self.samples.labels))

    def judged_by(self, labels: Int64[np.ndarray, " samples"]) -> "Certificate":
        """Return the same certificates held against true labels that were not at hand when they were made.

        Args:
            labels: class index of each sample, -1 where unknown.

        Raises:
            ValueError: another number of labels than samples, or a label that is no class.
        """
        return replace(self, samples=replace(self.samples, labels=labels))

    def certified(self, radii: Mapping[str, int]) -> Bool[np.ndarray, " samples"]:
        """Return which samples' labels no attacker within `radii` can change; whether they are right plays no part.

        Args:
            radii: elements that may be edited, by modality; a modality that is not named is not attacked.

        Raises:
            ValueError: an unknown modality, or a radius that is not whole, negative or > n.
        """
        return self.gaps >= self.margins.at([self._vector(radii)])[0]

    def accuracy(self, radii: Mapping[str, int] | None = None) -> float:
        """Return certified accuracy in [0, 1]: the share of judged samples with a right label certified at `radii`.

        Args:
            radii: as `certified`; None stands for no attack, where a sample that abstains still counts as wrong.

        Raises:
            ValueError: as `certified`, or no sample has a label.
        """
        return float((self.certified(radii or {}) & self._right).sum() / self._total)

    @property
    def clean_accuracy(self) -> float:
        """Share of judged samples whose smoothed label is right, certified or not, in [0, 1]."""
        return float(self._right.sum() / self._total)

    def grid(self, radii: Mapping[str, Sequence[int]] | None = None) -> Grid:
        """Return certified accuracy at all combinations of radii.

        Args:
            radii: the radii of each modality by name; None takes 0, 1, ... to the first that no sample is certified at.

        Raises:
            ValueError: a modality is missing or unknown, or a radius is not whole, negative or > n.
        """
        if radii is None:
            sizes = self.counts.n.values()
            radii = {m: range(min(r + 1, n) + 1) for m, r, n in zip(self.modalities, self._reach, sizes, strict=True)}
        for modality in radii:
            lookup(self.counts.n, modality, what="modality in `radii`")
        axes = {m: tuple(int(r) for r in lookup(radii, m, what="modality")) for m in self.modalities}
        needed = self.margins.grid(list(axes.values()))
        return Grid(axes, share_at_least(self.gaps[self._right], needed, self._total))

    def frontier(self, sample: int) -> Int64[np.ndarray, "points modalities"]:
        """Return all maximal radius vectors at which one sample is certified; no row when it abstains."""
        return maximal_radii(self.margins, float(self.gaps[sample]))

    def radii(self) -> dict[str, float]:
        """Return the average certified radius of each modality, attacked alone; 0 where wrong or abstaining."""
        averages = {}
        for i, (modality, largest) in enumerate(zip(self.modalities, self._reach, strict=True)):
            reach = np.searchsorted(self.margins.along(i, largest), self.gaps[self._right], side="right") - 1
            averages[modality] = float(reach.clip(min=0).sum() / self._total)
        return averages

    def area(self) -> float:
        """Return the area under the frontier: the average number of radius vectors a right label is certified at."""
        return float(self.grid().accuracy.sum())

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per sample, of plain JSON values."""
        common = {
            "model": self.model,
            "data": self.samples.name,
            "split": self.samples.split,
            "n": dict(self.counts.n),
            "k": dict(self.counts.k),
            "kind": dict(self.kinds),
            "scheme": self.scheme,
            "alpha": self.alpha,
            "seed": self.counts.told_seed,
            "draws": self.counts.draws,
        }
        classes = self.samples.classes
        return [
            {
                **common,
                "sample": i,
                "group": int(self.samples.groups[i]),
                "label": classes[label] if label >= 0 else None,
                "predicted": classes[self.labels[i]],
                "right": bool(self._right[i]) if label >= 0 else None,
                "votes": int(self.votes[i]),
                "abstained": bool(self.abstained[i]),
                "frontier": self.frontier(i).tolist(),
            }
            for i, label in enumerate(self.samples.labels.tolist())
        ]

    def summary(self) -> dict[str, Any]:
        """Return the settings and the main figures, as plain JSON values."""
        return {
            "model": self.model,
            "data": self.samples.name,
            "split": self.samples.split,
            "samples": len(self.samples),
            "n": dict(self.counts.n),
            "k": dict(self.counts.k),
            "kind": dict(self.kinds),
            "scheme": self.scheme,
            "draws": self.counts.draws,
            "selection_draws": self.selection.draws if self.selection else 0,
            "alpha": self.alpha,
            "bound": self.bound,
            "scope": self.scope,
            "ablation": self.ablation,
            "seed": self.counts.told_seed,
            "looks": list(self.counts.looks),
            "level": self.level,
            "clean_accuracy": self.clean_accuracy,
            "certified_accuracy_unattacked": self.accuracy(),
            "abstention": self.abstention,
            "average_radius": self.radii(),
            "area": self.area(),
            "seconds": self.seconds,
        }

    @property
    def _total(self) -> int:
        total = int(self._judged.sum())
        if not total:
            raise ValueError("Expected samples with labels to speak of accuracy, but all are -1.")
        return total

    @cached_property
    def _reach(self) -> tuple[int, ...]:
        return tuple(max(0, r) for r in self.margins.reach(float(self.gaps.max())))

    def _vector(self, radii: Mapping[str, int]) -> tuple[int, ...]:
        for modality in radii:
            lookup(self.counts.n, modality, what="modality in `radii`")
        return tuple(radii.get(m, 0) for m in self.modalities)
