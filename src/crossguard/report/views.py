"""What a report shows: small frozen values, made from run folders or by hand."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from crossguard.certify.units import plural
from crossguard.evaluate.examples import Example, Picture
from crossguard.evaluate.statistics import Estimate
from crossguard.threat import ThreatModel

ONE_SET = ", one set"
"""Ends the name of a column in which one set of images and texts is judged in both directions."""
COLUMNS = ("clean", "image", "text", "joint")
"""The usual columns, in order; modalities of other names come between "text" and "joint"."""


@dataclass(frozen=True)
class Difference:
    """How much more one row of a table has than another one, of the same samples.

    Args:
        reference: the other row's label.
        columns: by what was attacked, by metric, the difference in percent points (of scores times 100), with the
            interval of the paired difference.
    """

    reference: str
    columns: Mapping[str, Mapping[str, Estimate]]


@dataclass(frozen=True)
class RunView:
    """One run: its name and its settings as plain text by (dotted) name."""

    name: str
    facts: Mapping[str, str]


@dataclass(frozen=True)
class ResultView:
    """One model on one task: a row of the task's tables, with its examples.

    Args:
        task: the task's name.
        heading: what its section is called.
        label: the model or defence.
        data: the data set.
        split: its split.
        samples: how many, in words.
        attack: name of the attack; None when only clean figures were measured.
        threat: the threat model in words, "" without attack.
        seed: the attack's seed.
        headline: the metrics that are shown first.
        columns: by what was attacked ("clean", a modality's name, "joint"), by metric, the figure.
        success: by what was attacked, by measure ("conditional", "drop", or the task's own), by metric, the attack's
            success; None where it is not defined.
        explained: what the metrics say.
        notes: what a reader must know.
        warnings: signs that the figures say less than they seem to.
        examples: a few samples, under the widest attack.
        difference: from another row on the same data within the same budgets, the first there is; None for that row.
        facts: what may tell the row from others, by what it is: "model", "data", "attack", "image" (its budget), ...
        budgets: the threat's budgets; empty without attack.

    Raises:
        ValueError: no clean column, or a figure that its interval does not hold.
    """

    task: str
    heading: str
    label: str
    data: str
    split: str
    samples: str
    attack: str | None
    threat: str
    seed: int
    headline: Sequence[str]
    columns: Mapping[str, Mapping[str, Estimate]]
    success: Mapping[str, Mapping[str, Mapping[str, Estimate | None]]] = field(default_factory=dict)
    explained: str = ""
    notes: Sequence[str] = ()
    warnings: Sequence[str] = ()
    examples: Sequence[Example] = ()
    difference: Difference | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    budgets: ThreatModel = field(default_factory=ThreatModel)

    def __post_init__(self) -> None:
        if "clean" not in self.columns:
            raise ValueError(f"Expected a 'clean' column for {self.label!r}, but got {list(self.columns)}.")
        for figure in (figure for metrics in self.columns.values() for figure in metrics.values()):
            low, high = figure.interval or (figure.value, figure.value)
            if not low - 1e-9 <= figure.value <= high + 1e-9:
                raise ValueError(f"Expected low <= value <= high, but got {low}, {figure.value}, {high}.")

    @property
    def model(self) -> str:
        """The model alone, which several rows may be of."""
        return self.facts.get("model", self.label)

    @property
    def widest(self) -> str:
        """What was attacked in the column under the most modalities; "clean" without attack."""
        columns = [column for column in self.columns if not column.endswith(ONE_SET)]
        return "joint" if "joint" in columns else columns[-1]

    @property
    def every_figure(self) -> list[Estimate | None]:
        """All figures under attack and without, and of the attack's success."""
        success = [metrics for measures in self.success.values() for metrics in measures.values()]
        return [figure for metrics in (*self.columns.values(), *success) for figure in metrics.values()]


@dataclass(frozen=True)
class CurveView:
    """Certified metrics along a line of radius vectors, each a lower bound under every attack within the radii.

    Args:
        radii: the radius vectors, one entry per modality.
        certified: by metric ("accuracy", for segmentations also "recall", "precision", "f_score", "iou") one value per
            radius vector, in [0, 1]; None where it is not defined, as recall without a positive pixel.
        baseline: the same for joint sub-sampling of all modalities, or None.
        designs: the same by other designs of the same model ("published, balanced"), by their names.
        attacked: the same metrics of the smoothed model under sparse attacks within the radii, upper bounds; None at
            radii that were not attacked, and None altogether where none were.

    Radii of elements are whole numbers, those of modalities under noise L2 distances.

    Raises:
        ValueError: no radius vector or metric, other metrics in the baseline or under attack, lengths that differ, a
            value outside [0, 1].
    """

    radii: tuple[tuple[int | float, ...], ...]
    certified: Mapping[str, tuple[float | None, ...]]
    baseline: Mapping[str, tuple[float | None, ...]] | None = None
    attacked: Mapping[str, tuple[float | None, ...]] | None = None
    designs: Mapping[str, Mapping[str, tuple[float | None, ...]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.radii or not self.certified:
            raise ValueError("Expected a curve of at least one radius vector and one metric.")
        beside = {"a baseline": self.baseline, "attacked figures": self.attacked, **self.designs}
        for what, metrics in beside.items():
            if metrics is not None and set(metrics) != set(self.certified):
                raise ValueError(f"Expected {what} of {list(self.certified)}, but got {list(metrics)}.")
        for values in [*self.certified.values(), *(v for other in beside.values() for v in (other or {}).values())]:
            if len(values) != len(self.radii) or not all(value is None or 0 <= value <= 1 for value in values):
                raise ValueError(f"Expected {len(self.radii)} values in [0, 1] for a curve, but got {values}.")


@dataclass(frozen=True)
class MapsView:
    """Certified maps of some images of a segmentation.

    Args:
        radii: the radii they are certified at, in words.
        legend: (what, colour as #rrggbb).
        panels: what each picture of a row shows.
        rows: per image its name and its pictures, one per panel.
    """

    radii: str
    legend: tuple[tuple[str, str], ...]
    panels: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Picture, ...]], ...]


@dataclass(frozen=True)
class CertificateView:
    """Certified accuracy over the radii of one or two modalities.

    Args:
        label: the model.
        data: the data set.
        split: its split.
        samples: number of samples.
        modalities: names of the axes.
        elements: n, basic elements per modality; 0 of one under noise.
        keep: k, elements kept per modality, or the chance that one is kept; 0 of one under noise.
        kinds: kind of edit per modality ("substitution", ...); "l2" of one under noise.
        radii: per modality the radii of the grid, ascending.
        accuracy: float [radii of the first (, of the second)], certified accuracy in [0, 1]; of a segmentation
            certified pixel accuracy.
        draws: N, sub-samples per input.
        alpha: probability of a wrong certificate, per input.
        scope: what alpha covers, in words.
        clean_accuracy: accuracy of the smoothed model without any guarantee, in [0, 1].
        abstention: share of inputs (of a segmentation: of pixels) without any certificate, in [0, 1].
        baseline: the same grid for joint sub-sampling of all modalities, or None.
        note: something to say below the figure, or "".
        curve: metrics along a line of radius vectors, or None.
        positive: the class that recall, precision, F-score and IoU are of, where it is a segmentation; else "".
        maps: certified maps of some images of a segmentation, or None.
        noise: sigma of modalities under noise, by their names.
        units: what an element of each modality is called ("patch", "word"); none: a pixel of segmentations, else an
            element.
        metric: what `accuracy` is: "accuracy", or "recall@K" of retrieval.
        whole_accuracy: accuracy of the base model on whole inputs, without sub-sampling or guarantee, in [0, 1]; None
            where it was not measured.
        figures: the same with their intervals, in percent, by what they are and metric: "grid" and "grid baseline" (one
            figure per cell, the last modality running fastest), "certified", "baseline", "attacked" and "more" (than
            the baseline, paired) along the curve; "clean", "abstention" and "whole", one each. Those that are missing
            have no interval.

    Raises:
        ValueError: not one or two modalities, a grid that does not fit its radii or leaves [0, 1], or radius vectors of
            the curve of other lengths than modalities.
    """

    label: str
    data: str
    split: str
    samples: int
    modalities: tuple[str, ...]
    elements: tuple[int, ...]
    keep: tuple[int | float, ...]
    kinds: tuple[str, ...]
    radii: tuple[tuple[int | float, ...], ...]
    accuracy: Float[np.ndarray, "*axes"]
    draws: int
    alpha: float
    scope: str
    clean_accuracy: float
    abstention: float
    baseline: Float[np.ndarray, "*axes"] | None = None
    note: str = ""
    curve: CurveView | None = None
    positive: str = ""
    maps: MapsView | None = None
    whole_accuracy: float | None = None
    figures: Mapping[str, Mapping[str, Sequence[Estimate | None]]] = field(default_factory=dict)
    noise: Mapping[str, float] = field(default_factory=dict)
    units: tuple[str, ...] = ()
    metric: str = "accuracy"

    def __post_init__(self) -> None:
        axes = len(self.modalities)
        if not self.units:
            object.__setattr__(self, "units", ("pixel" if self.of_pixels else "element",) * axes)
        if axes not in (1, 2):
            raise ValueError(f"Expected one or two modalities to draw, but got {axes}: {self.modalities}.")
        if {len(of) for of in (self.elements, self.keep, self.kinds, self.units, self.radii)} != {axes}:
            raise ValueError(f"Expected `elements`, `keep`, `kinds`, `units` and `radii` of all {axes} modalities.")
        shape = tuple(len(values) for values in self.radii)
        for name, grid in (("accuracy", self.accuracy), ("baseline", self.baseline)):
            if grid is None:
                continue
            if grid.shape != shape or 0 in shape:
                raise ValueError(f"Expected `{name}` of shape {shape}, as `radii`, but got {grid.shape}.")
            if not ((grid >= 0) & (grid <= 1)).all():
                raise ValueError(f"Expected `{name}` in [0, 1], but got {grid.min()}..{grid.max()}.")
        if self.curve is not None and any(len(vector) != axes for vector in self.curve.radii):
            raise ValueError(f"Expected radius vectors of {axes} entries in `curve`, but got {self.curve.radii}.")

    def figure(self, what: str, metric: str = "accuracy", at: int = 0) -> Estimate | None:
        """Return one of `figures`; None where it is missing or not defined."""
        along = self.figures.get(what, {}).get(metric, ())
        return along[at] if at < len(along) else None

    @property
    def every_figure(self) -> list[Estimate | None]:
        """All of `figures`, one after the other."""
        return [figure for metrics in self.figures.values() for along in metrics.values() for figure in along]

    @property
    def drawn(self) -> tuple[str, ...]:
        """Per modality, how its part of a sub-sample is drawn and what an attacker may do, in words."""
        sizes = zip(self.modalities, self.keep, self.elements, map(plural, self.units), self.kinds, strict=True)
        return tuple(
            f"{m} sigma = {self.noise[m]:g} (moved in L2)"
            if m in self.noise
            else f"{m} k = {k} of {n} {units} ({kind})"
            if isinstance(k, int)
            else f"{m} {units} kept with probability {k:g} ({kind})"
            for m, k, n, units, kind in sizes
        )

    @property
    def frontier(self) -> tuple[tuple[int | float, ...], ...]:
        """The largest radius vectors of the grid at which half of the samples or more are right and certified."""
        enough = self.accuracy >= 0.5
        largest = enough.copy()
        for axis in range(enough.ndim):
            ahead = np.moveaxis(np.zeros_like(enough), axis, 0)
            ahead[:-1] = np.moveaxis(enough, axis, 0)[1:]
            largest &= ~np.moveaxis(ahead, 0, axis)
        return tuple(
            tuple(self.radii[axis][place] for axis, place in enumerate(places))
            for places in np.argwhere(largest).tolist()
        )

    @property
    def of_pixels(self) -> bool:
        """Whether it is a segmentation, whose figures are about pixels."""
        return self.positive != ""


@dataclass(frozen=True)
class Word:
    """A word and whether the attack put it there or took it away."""

    text: str
    changed: bool
