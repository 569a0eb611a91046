"""What a report shows: small frozen values, made from run folders or by hand."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from jaxtyping import Float, UInt8

from crossguard.evaluate.statistics import Figure

Picture: TypeAlias = UInt8[np.ndarray, "height width 3"]

COLUMNS = ("clean", "image", "text", "joint")
"""The usual columns of a retrieval table, in order; modalities of other names come between "text" and "joint"."""


@dataclass(frozen=True)
class Share(Figure):
    """A share with its 95 % interval, if there is one, all in percent.

    Raises:
        ValueError: not 0 <= low <= value <= high <= 100.
    """

    def __post_init__(self) -> None:
        slack = 1e-9
        low, high = self.interval or (self.value, self.value)
        if not -slack <= low <= self.value + slack <= high + 2 * slack <= 100 + 3 * slack:
            raise ValueError(
                f"Expected 0 <= low <= value <= high <= 100, but got {self.low}, {self.value}, {self.high}."
            )


@dataclass(frozen=True)
class Difference:
    """How much more one row of a table has than another one, of the same samples.

    Args:
        reference: the other row's label.
        columns: by what was attacked, by metric, the difference in percent points (of scores times 100), with the
            interval of the paired difference.
    """

    reference: str
    columns: Mapping[str, Mapping[str, Figure]]


@dataclass(frozen=True)
class RunView:
    """One run: its name and its settings as plain text by (dotted) name."""

    name: str
    facts: Mapping[str, str]


@dataclass(frozen=True)
class RetrievalView:
    """One model's row of the retrieval table.

    Args:
        label: the model or defence.
        data: the data set.
        split: its split.
        images: number of images.
        texts: number of texts.
        attack: name of the attack; None when only clean figures were measured.
        threat: the threat model in words, "" without attack.
        seed: the attack's seed.
        columns: by what was attacked ("clean", "image", "text", "joint"), by metric ("tr@1", ...), the recall.
        success: by what was attacked, by definition ("conditional", "drop"), by metric, the attack's success in
            percent; None where it is not defined.
        warnings: signs that the figures say less than they seem to.
        difference: from the first row on the same data; None for that row itself.

    Raises:
        ValueError: no clean column.
    """

    label: str
    data: str
    split: str
    images: int
    texts: int
    attack: str | None
    threat: str
    seed: int
    columns: Mapping[str, Mapping[str, Share]]
    success: Mapping[str, Mapping[str, Mapping[str, Figure | None]]]
    warnings: tuple[str, ...] = ()
    difference: Difference | None = None

    def __post_init__(self) -> None:
        if "clean" not in self.columns:
            raise ValueError(f"Expected a 'clean' column for {self.label!r}, but got {list(self.columns)}.")


@dataclass(frozen=True)
class CurveView:
    """Certified metrics along a line of radius vectors, each a lower bound under every attack within the radii.

    Args:
        radii: the radius vectors, one entry per modality.
        certified: by metric ("accuracy", for segmentations also "recall", "precision", "f_score", "iou") one value per
            radius vector, in [0, 1]; None where it is not defined, as recall without a positive pixel.
        baseline: the same for joint sub-sampling of all modalities, or None.
        attacked: the same metrics of the smoothed model under sparse attacks within the radii, upper bounds; None at
            radii that were not attacked, and None altogether where none were.

    Raises:
        ValueError: no radius vector or metric, other metrics in the baseline or under attack, lengths that differ, a
            value outside [0, 1].
    """

    radii: tuple[tuple[int, ...], ...]
    certified: Mapping[str, tuple[float | None, ...]]
    baseline: Mapping[str, tuple[float | None, ...]] | None = None
    attacked: Mapping[str, tuple[float | None, ...]] | None = None

    def __post_init__(self) -> None:
        if not self.radii or not self.certified:
            raise ValueError("Expected a curve of at least one radius vector and one metric.")
        for what, metrics in (("a baseline", self.baseline), ("attacked figures", self.attacked)):
            if metrics is not None and set(metrics) != set(self.certified):
                raise ValueError(f"Expected {what} of {list(self.certified)}, but got {list(metrics)}.")
        for values in (
            *self.certified.values(),
            *(self.baseline or {}).values(),
            *(self.attacked or {}).values(),
        ):
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
        elements: n, basic elements per modality.
        keep: k, elements kept per modality.
        kinds: kind of edit per modality ("substitution", ...).
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
    keep: tuple[int, ...]
    kinds: tuple[str, ...]
    radii: tuple[tuple[int, ...], ...]
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
    figures: Mapping[str, Mapping[str, Sequence[Figure | None]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        axes = len(self.modalities)
        if axes not in (1, 2):
            raise ValueError(f"Expected one or two modalities to draw, but got {axes}: {self.modalities}.")
        if {len(self.elements), len(self.keep), len(self.kinds), len(self.radii)} != {axes}:
            raise ValueError(f"Expected `elements`, `keep`, `kinds` and `radii` of all {axes} modalities.")
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

    def figure(self, what: str, metric: str = "accuracy", at: int = 0) -> Figure | None:
        """Return one of `figures`; None where it is missing or not defined."""
        along = self.figures.get(what, {}).get(metric, ())
        return along[at] if at < len(along) else None

    @property
    def every_figure(self) -> list[Figure | None]:
        """All of `figures`, one after the other."""
        return [figure for metrics in self.figures.values() for along in metrics.values() for figure in along]

    @property
    def of_pixels(self) -> bool:
        """Whether it is a segmentation, whose figures are about pixels."""
        return self.positive != ""


@dataclass(frozen=True)
class Word:
    """A word and whether the attack put it there or took it away."""

    text: str
    changed: bool


@dataclass(frozen=True)
class Hit:
    """One retrieved item: a picture or the words of a text, and whether it is a true partner of the query."""

    right: bool
    picture: Picture | None = None
    words: tuple[Word, ...] = ()


@dataclass(frozen=True)
class Asked:
    """A query as it was asked: a picture or the words of a text."""

    picture: Picture | None = None
    words: tuple[Word, ...] = ()


@dataclass(frozen=True)
class ExampleView:
    """One query before and after the attack.

    Args:
        before: the clean query.
        after: the query as it was asked under attack.
        found_before: the best of the clean gallery, best first.
        found_after: the best of the gallery under attack, best first.
        picture: of the picture that this example is about (the query, or a true partner of the text), the clean
            and the adversarial form; None where no picture was attacked.
    """

    before: Asked
    after: Asked
    found_before: Sequence[Hit]
    found_after: Sequence[Hit]
    picture: tuple[Picture, Picture] | None = None


@dataclass(frozen=True)
class GalleryView:
    """Examples of one model under one attack.

    Args:
        title: the model.
        attack: the attack and its budgets in words.
        examples: the queries.
    """

    title: str
    attack: str
    examples: Sequence[ExampleView]
