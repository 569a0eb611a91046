"""From certificates to what a report shows of them, and to and from a run's `summary.json`."""

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from crossguard.certify import (
    EarlyDecision,
    PixelBounds,
    RetrievalCertificate,
    SegmentationCertificate,
    VariedCertificate,
    pixel_bounds,
)
from crossguard.certify.certificate import SampleCertificate
from crossguard.certify.decide import SCOPES, Correction
from crossguard.data import MultiModalSamples
from crossguard.evaluate.certified import certified_ratios, differences_along, figures_along, smoothed_figures
from crossguard.evaluate.statistics import Estimate, read_figure, told_along
from crossguard.report.views import CertificateView, CurveView, MapsView
from crossguard.runs import RunFolder, safe_name

Radii = Mapping[str, int | float]
Values = tuple[float | None, ...]
PIXEL_METRICS = ("accuracy", "recall", "precision", "f_score", "iou")


def certificate_view(
    certificate: SampleCertificate,
    *,
    label: str | None = None,
    radii: Mapping[str, Sequence[int | float]] | None = None,
    curve: Sequence[Radii] = (),
    baseline: SampleCertificate | None = None,
    designs: Mapping[str, SampleCertificate] | None = None,
) -> CertificateView:
    """Return what a report shows of a certificate of labels, or of retrieval.

    Of more than two modalities the first two are drawn, with the others not attacked, and the view says so.

    Args:
        certificate: the certificate.
        label: name in tables; default: the model's.
        radii: the grid's radii by modality; default: 0, 1, ... to the first that no sample is certified at.
        curve: radius vectors of the curve; none draws no curve.
        baseline: the certificate by joint sub-sampling of the same samples.
        designs: certificates of the same samples by other designs, by their names; drawn into the curve.
    """
    grid = certificate.grid(radii)
    names = certificate.modalities
    shown, others = names[:2], names[2:]
    unattacked = [name for name in others if grid.radii[name][0] != 0]
    if unattacked:
        raise ValueError(f"Expected radius 0 first for {', '.join(unattacked)}, which the figure leaves unattacked.")
    settings, metric = certificate.settings, certificate.metric
    vectors = [dict(zip(shown, vector, strict=True)) for vector in product(*(grid.radii[name] for name in shown))]
    return CertificateView(
        label=label or certificate.model,
        data=settings["data"],
        split=settings["split"],
        samples=len(certificate.samples),
        modalities=shown,
        elements=tuple(settings["n"].get(name, 0) for name in shown),
        keep=tuple(settings["k"].get(name, 0) for name in shown),
        kinds=tuple(settings["kind"][name] for name in shown),
        units=tuple(settings["unit"].get(name, "element") for name in shown),
        radii=tuple(grid.radii[name] for name in shown),
        accuracy=_first_two(grid.accuracy),
        metric=metric,
        draws=settings["draws"],
        alpha=settings["alpha"],
        scope=certificate.scope,
        clean_accuracy=certificate.clean_accuracy,
        abstention=certificate.abstention,
        baseline=None if baseline is None else _first_two(baseline.grid(grid.radii).accuracy),
        note=_note(others, certificate),
        noise={m: sigma for m, sigma in settings["noise"].items() if m in shown},
        curve=None
        if not curve
        else CurveView(
            radii=tuple(tuple(vector.get(m, 0) for m in shown) for vector in curve),
            certified={metric: tuple(certificate.accuracy(vector) for vector in curve)},
            baseline=None if baseline is None else {metric: tuple(baseline.accuracy(vector) for vector in curve)},
            designs={
                name: {metric: tuple(other.accuracy(vector) for vector in curve)}
                for name, other in (designs or {}).items()
            },
        ),
        figures=_figures(certificate, baseline, vectors, curve),
    )


def segmentation_view(
    certificate: SegmentationCertificate,
    *,
    radii: Mapping[str, Sequence[int | float]],
    curve: Sequence[Radii] = (),
    correction: Correction = "bonferroni",
    positive: int = 1,
    label: str | None = None,
    baseline: SegmentationCertificate | None = None,
    designs: Mapping[str, SegmentationCertificate] | None = None,
) -> CertificateView:
    """Return what a report shows of a segmenter's certificate, of one or two modalities.

    Args:
        certificate: the certificate.
        radii: the grid's radii by modality.
        curve: radius vectors of the curve; none draws no curve.
        correction: "bonferroni" for alpha over all radii at once, "holm" for each taken alone.
        positive: the class that recall, precision, F-score and IoU are of.
        label: name in tables; default: the model's.
        baseline: the certificate by joint sub-sampling of the same images.
        designs: certificates of the same images by other designs, by their names; drawn into the curve.

    Raises:
        ValueError: more than two modalities, or radii that are not in [0, n].
    """
    names = certificate.counts[0].modalities
    grid = [dict(zip(names, vector, strict=True)) for vector in product(*(radii[m] for m in names))]
    counts, samples = certificate.counts[0], certificate.samples

    def bounds(source: SegmentationCertificate) -> tuple[np.ndarray, dict[str, Values]]:
        found = source.bounds([*grid, *curve], positive=positive, correction=correction)
        accuracy = np.array([bound.accuracy for bound in found[: len(grid)]])
        along = found[len(grid) :]
        metrics = {metric: tuple(_defined(getattr(bound, metric)) for bound in along) for metric in PIXEL_METRICS}
        if curve and len(samples.classes) > 2:
            metrics["mean_iou"] = tuple(map(_defined, source.mean_iou(curve, correction=correction).tolist()))
        return accuracy.reshape([len(radii[m]) for m in names]), metrics

    accuracy, metrics = bounds(certificate)
    other = None if baseline is None else bounds(baseline)
    right, certified, judged = _smoothed(certificate, correction)
    return CertificateView(
        label=label or certificate.model,
        data=samples.name,
        split=samples.split,
        samples=len(samples),
        modalities=names,
        elements=tuple(counts.n.get(m, 0) for m in names),
        keep=tuple(counts.k.get(m, 0) for m in names),
        kinds=tuple(certificate.kinds[m] for m in names),
        units=tuple(certificate.units.get(m, "pixel") for m in names),
        radii=tuple(tuple(radii[m]) for m in names),
        accuracy=accuracy,
        draws=counts.draws,
        alpha=certificate.alpha,
        scope=SCOPES["published" if certificate.deterministic else correction],
        noise=dict(counts.noise),
        clean_accuracy=right / judged,
        abstention=1 - certified / judged,
        baseline=None if other is None else other[0],
        curve=None
        if not curve
        else CurveView(
            radii=tuple(tuple(vector.get(m, 0) for m in names) for vector in curve),
            certified=metrics,
            baseline=None if other is None else other[1],
            designs={name: bounds(design)[1] for name, design in (designs or {}).items()},
        ),
        positive=str(samples.classes[positive]),
        figures=_figures(certificate, baseline, grid, curve, correction=correction, positive=positive),
    )


def _figures(
    own: SampleCertificate | SegmentationCertificate,
    baseline: SampleCertificate | SegmentationCertificate | None,
    grid: Sequence[Radii],
    curve: Sequence[Radii],
    *,
    correction: Correction = "bonferroni",
    positive: int = 1,
) -> dict[str, dict[str, tuple[Estimate | None, ...]]]:
    """Return a certificate's figures with their intervals, see `CertificateView.figures`."""
    along = [
        certified_ratios(source, [*grid, *curve], positive=positive, correction=correction)
        for source in (own, baseline)
        if source is not None
    ]
    found = {}
    for ratios, cells, line in zip(along, ("grid", "grid baseline"), ("certified", "baseline"), strict=False):
        found[cells] = figures_along([{"accuracy": next(iter(ratio.values()))} for ratio in ratios[: len(grid)]])
        found[line] = figures_along(ratios[len(grid) :])
    if len(along) > 1 and curve:
        found["more"] = differences_along(*(ratios[len(grid) :] for ratios in along))
    return found | {
        name: {"accuracy": (figure,)} for name, figure in smoothed_figures(own, correction=correction).items()
    }


def early_view(
    found: EarlyDecision,
    samples: MultiModalSamples,
    *,
    label: str,
    n: Mapping[str, int],
    k: Mapping[str, int],
    kinds: Mapping[str, str],
    radii: Radii,
    units: Mapping[str, str] | None = None,
    noise: Mapping[str, float] | None = None,
    positive: int | None = None,
) -> CertificateView:
    """Return what a report shows of labels that were decided at one radius vector, of one or two modalities.

    Args:
        found: the decisions.
        samples: what they are about.
        label: name in tables.
        n: elements, by modality.
        k: elements kept.
        kinds: kind of edit.
        radii: that they were decided at.
        units: what an element is called.
        noise: sigma of modalities under noise.
        positive: the class that recall, precision, F-score and IoU of a segmentation are of.
    """
    names = tuple(n)[:2]
    vector, judged = tuple(radii.get(m, 0) for m in names), samples.labels >= 0
    right = (found.labels == samples.labels) & judged
    metrics: dict[str, Values] = {"accuracy": (float((right & found.certified).sum() / judged.sum()),)}
    if positive is not None:
        total = PixelBounds()
        for own, sure, truth in zip(found.labels, found.certified, samples.labels, strict=True):
            total = total + pixel_bounds(own, sure, truth, positive=positive)
        metrics = {metric: (_defined(getattr(total, metric)),) for metric in PIXEL_METRICS}
    return CertificateView(
        label=label,
        data=samples.name,
        split=samples.split,
        samples=len(samples),
        modalities=names,
        elements=tuple(n[m] for m in names),
        keep=tuple(k[m] for m in names),
        kinds=tuple(kinds[m] for m in names),
        units=tuple(units[m] for m in names) if units else (),
        noise=dict(noise or {}),
        radii=tuple((r,) for r in vector),
        accuracy=np.array(metrics["accuracy"], dtype=np.float64).reshape([1] * len(names)),
        draws=found.rounds[-1],
        alpha=found.alpha,
        scope=SCOPES["holm"],
        clean_accuracy=float(right.sum() / judged.sum()),
        abstention=float(1 - found.certified[judged].mean()),
        note=f"Stopped early at these radii: {found.draws.mean():.0f} draws a sample on average, "
        f"{100 * found.saved:.0f} % saved.",
        curve=CurveView(radii=(vector,), certified=metrics),
        positive="" if positive is None else str(samples.classes[positive]),
    )


def certificate_entry(view: CertificateView) -> dict[str, Any]:
    """Return a certificate for `RunFolder.summarise("certificates", name, ...)`; `certificate_views` reads it back.

    Pictures of maps are files of the run, which `save_maps` writes.
    """
    return {
        **vars(view),
        "radii": [list(values) for values in view.radii],
        "accuracy": view.accuracy.tolist(),
        "baseline": None if view.baseline is None else view.baseline.tolist(),
        "curve": None if view.curve is None else vars(view.curve),
        "maps": None if view.maps is None else {**vars(view.maps), "rows": [name for name, _ in view.maps.rows]},
        "figures": told_along(view.figures),
    }


def certificate_views(runs: Sequence[RunFolder]) -> list[CertificateView]:
    """Return the certificates that runs have summarised (see `certificate_entry`).

    Raises:
        ValueError: a picture of a map is missing or damaged.
    """
    return [_read_entry(entry, run.path) for run in runs for entry in run.summary.get("certificates", {}).values()]


def save_maps(run: RunFolder, label: str, maps: MapsView) -> None:
    """Write the pictures of maps as `maps/LABEL/NAME-PANEL.png` of a run."""
    for name, pictures in maps.rows:
        for panel, picture in zip(maps.panels, pictures, strict=True):
            path = _map_file(run.path, label, name, panel)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(path)


def _read_entry(entry: Mapping[str, Any], folder: Path) -> CertificateView:
    curve, maps = entry.get("curve"), entry.get("maps")
    return CertificateView(
        **{
            **entry,
            **{name: tuple(entry.get(name, ())) for name in ("modalities", "elements", "keep", "kinds", "units")},
            "radii": tuple(tuple(values) for values in entry["radii"]),
            "accuracy": np.array(entry["accuracy"], dtype=np.float64),
            "baseline": None if entry["baseline"] is None else np.array(entry["baseline"], dtype=np.float64),
            "curve": None if curve is None else _read_curve(curve),
            "maps": None if maps is None else _read_maps(maps, entry["label"], folder),
            "figures": {
                what: {metric: tuple(map(read_figure, along)) for metric, along in metrics.items()}
                for what, metrics in entry.get("figures", {}).items()
            },
        }
    )


def _read_curve(curve: Mapping[str, Any]) -> CurveView:
    def values(metrics: Mapping[str, Sequence[float | None]]) -> dict[str, Values]:
        return {metric: tuple(along) for metric, along in metrics.items()}

    return CurveView(
        radii=tuple(tuple(vector) for vector in curve["radii"]),
        certified=values(curve["certified"]),
        baseline=None if curve["baseline"] is None else values(curve["baseline"]),
        designs={name: values(metrics) for name, metrics in curve.get("designs", {}).items()},
        attacked=None if curve.get("attacked") is None else values(curve["attacked"]),
    )


def _read_maps(maps: Mapping[str, Any], label: str, folder: Path) -> MapsView:
    def picture(name: str, panel: str) -> np.ndarray:
        path = _map_file(folder, label, name, panel)
        try:
            with Image.open(path) as image:
                return np.array(image.convert("RGB"))
        except (OSError, SyntaxError) as error:
            raise ValueError(f"Expected a map at {path}, but it could not be read: {error}") from error

    return MapsView(
        radii=maps["radii"],
        legend=tuple((what, colour) for what, colour in maps["legend"]),
        panels=tuple(maps["panels"]),
        rows=tuple((name, tuple(picture(name, panel) for panel in maps["panels"])) for name in maps["rows"]),
    )


def _map_file(folder: Path, label: str, name: str, panel: str) -> Path:
    return folder / "maps" / safe_name(label) / f"{safe_name(name)}-{safe_name(panel)}.png"


def _note(unattacked: Sequence[str], certificate: SampleCertificate) -> str:
    parts = [f"Not attacked in this figure: {', '.join(unattacked)}."] if unattacked else []
    if isinstance(certificate, VariedCertificate):
        parts.append("Samples differ in length; each is certified for its own, and these are the longest.")
    if isinstance(certificate, RetrievalCertificate):
        items = certificate.truth.shape[1]
        parts.append(
            f"An answer has {certificate.answers:.2f} of {items} items on average, of {certificate.most} asked."
        )
    return " ".join([*parts, *(f"Warning: {warning}." for warning in certificate.warnings)])


def _first_two(grid: np.ndarray) -> np.ndarray:
    """Return the plane of a grid in which the third modality and those after it are not attacked."""
    return grid.reshape(*grid.shape[:2], -1)[..., 0]


def _smoothed(certificate: SegmentationCertificate, correction: Correction) -> tuple[int, int, int]:
    """Return judged pixels whose smoothed label is right, those that are certified unattacked, and all of them."""
    right = certified = judged = 0
    for index, truth in enumerate(certificate.samples.labels):
        found = certificate.image(index, [{}], correction=correction)
        right += int((found.label == truth)[truth >= 0].sum())
        certified += int(found.certified[0][truth >= 0].sum())
        judged += int((truth >= 0).sum())
    return right, certified, judged


def _defined(value: float) -> float | None:
    return None if np.isnan(value) else value
