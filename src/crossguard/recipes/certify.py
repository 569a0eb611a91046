"""Carry out a recipe of `certify`: train on ablated inputs, draw and count, leave rows, maps and summary in the run."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np

from crossguard.certify import (
    Certificate,
    SegmentationCertificate,
    Smoothed,
    certify,
    certify_segmentation,
    preflight,
)
from crossguard.certify.design import kept_counts
from crossguard.certify.pixel_metrics import pixel_bounds_over
from crossguard.certify.thresholds import Margins, Scheme
from crossguard.checks import lookup
from crossguard.data import MultiModalSamples
from crossguard.data.samples import element_count
from crossguard.evaluate.envelope import sparse_envelope
from crossguard.evaluate.examples import spread_evenly
from crossguard.evaluate.labels import label_ratio
from crossguard.evaluate.statistics import Estimate, read_figure
from crossguard.progress import Reporter
from crossguard.recipes.base_model import base_model
from crossguard.recipes.perform import choose_device, read_samples
from crossguard.recipes.schema import CertifyRecipe
from crossguard.report import CertificateView, MapsView, certificate_entry, certificate_view, segmentation_view
from crossguard.report.certificates import save_maps
from crossguard.report.maps import label_map, legend
from crossguard.runs import RunFolder

Radii = Mapping[str, int]
AnyCertificate = Certificate | SegmentationCertificate
BASELINE = "joint sub-sampling"


@dataclass(frozen=True)
class Certified:
    """What a certify recipe gave.

    Args:
        certificate: by independent sub-sampling of every modality.
        baseline: by joint sub-sampling (randomized ablation); None unless the recipe asks for it.
        samples: what they are about.
    """

    certificate: AnyCertificate
    baseline: AnyCertificate | None
    samples: MultiModalSamples


def perform_certify(recipe: CertifyRecipe, run: RunFolder, *, progress: Reporter) -> Certified:
    """Certify a classifier or a segmenter as the recipe says, training it first if the recipe says how.

    Counts are kept in the run folder; an interrupted run draws only what is missing. Rows, maps and summary go there
    too. Data, radii and the number of draws are checked before any training.

    Raises:
        ValueError: data that are not there, radii or numbers of elements that do not fit them, draws that can only
            abstain, a model that does not take such samples.
    """
    samples = read_samples(recipe.data, recipe.max_samples)
    # A model of the recipe's own making reads all modalities; one that is loaded may read some of them.
    if set(recipe.keep) - set(samples.modalities) or (recipe.train and set(samples.modalities) - set(recipe.keep)):
        raise ValueError(
            f"Expected `keep` for every modality of {samples.name!r} ({', '.join(samples.modalities)}), "
            f"but got {', '.join(recipe.keep)}."
        )
    axes, curve = _radii(recipe)
    positive = _positive(recipe, samples)
    _check(recipe, samples, [*curve, {m: max(radii) for m, radii in axes.items()}])
    device = choose_device(recipe.device)
    model = base_model(recipe, run, samples, device=device, progress=progress)

    def certified(model: Any, scheme: Scheme) -> AnyCertificate:
        ask: Any = certify if positive is None else certify_segmentation
        more: dict[str, Any] = {} if recipe.batch_size is None else {"batch_size": recipe.batch_size}
        if positive is None:
            more["bound"] = recipe.bound
        return cast(
            AnyCertificate,
            ask(
                model,
                samples,
                keep=recipe.keep,
                draws=recipe.draws,
                alpha=recipe.alpha,
                seed=recipe.seed,
                kind=recipe.kind,
                scheme=scheme,
                device=device,
                folder=run.path / "counts",
                progress=progress,
                **more,
            ),
        )

    own, baseline = certified(model, "independent"), None
    if recipe.baseline:
        apart = recipe.train is not None and recipe.train.for_baseline
        trained = base_model(recipe, run, samples, joint=True, device=device, progress=progress) if apart else model
        baseline = certified(trained, "joint")
    label = own.model
    if isinstance(own, Certificate):
        _keep_rows(run, f"certificate/{label}", own.rows())
        if isinstance(baseline, Certificate):
            _keep_rows(run, f"certificate/{label}/{BASELINE}", baseline.rows())
        view = certificate_view(own, label=label, radii=axes, curve=curve, baseline=cast(Certificate | None, baseline))
    else:
        other = cast(SegmentationCertificate | None, baseline)
        _keep_rows(run, f"certificate/{label}", _image_rows(own, recipe, curve, cast(int, positive)))
        if other is not None:
            rows = _image_rows(other, recipe, curve, cast(int, positive))
            _keep_rows(run, f"certificate/{label}/{BASELINE}", rows)
        view = segmentation_view(
            own,
            radii=axes,
            curve=curve,
            correction=recipe.correction,
            positive=cast(int, positive),
            label=label,
            baseline=other,
        )
        if recipe.maps is not None:
            maps = _maps(own, other, recipe)
            save_maps(run, label, maps)
            shown = tuple(spread_evenly(maps.rows, count=recipe.maps.shown))
            view = replace(view, maps=replace(maps, rows=shown))
    if recipe.attack is not None:
        view = _with_attack(view, recipe, run, model, samples, positive, device=device, progress=progress)
    whole = (
        _whole(run, label) or label_ratio(model, samples, batch_size=recipe.batch_size or 64, device=device).figure()
    )
    assert whole is not None
    view = replace(view, whole_accuracy=whole.value / 100, figures={**view.figures, "whole": {"accuracy": (whole,)}})
    run.summarise("certificates", label, certificate_entry(view))
    return Certified(own, baseline, samples)


def _whole(run: RunFolder, label: str) -> Estimate | None:
    """Return what the run holds of the base model on whole inputs."""
    known = run.summary.get("certificates", {}).get(label, {}).get("figures", {}).get("whole")
    return None if known is None else read_figure(known["accuracy"][0])


def _with_attack(
    view: CertificateView,
    recipe: CertifyRecipe,
    run: RunFolder,
    model: Any,
    samples: MultiModalSamples,
    positive: int | None,
    *,
    device: str,
    progress: Reporter,
) -> CertificateView:
    """Attack the smoothed model at radii of the curve, keep rows, and put the figures beside the certified ones."""
    wanted, curve = recipe.attack, recipe.curve
    assert wanted is not None
    assert curve is not None
    assert view.curve is not None
    vectors = wanted.vectors or curve.build()
    more: dict[str, Any] = {} if recipe.batch_size is None else {"batch_size": recipe.batch_size}
    found = sparse_envelope(
        Smoothed(
            model,
            keep=recipe.keep,
            draws=recipe.draws,
            attack_draws=wanted.draws,
            seed=recipe.seed,
            segments=positive is not None,
            **more,
        ),
        samples,
        vectors,
        attack_options=wanted.options,
        transfer=wanted.transfer,
        seed=recipe.seed,
        batch_size=wanted.batch_size,
        device=device,
        folder=run.path / "attacked",
        progress=progress,
    )
    _keep_rows(run, f"attacked/{view.label}", found.rows())
    metrics = found.metrics(positive=1 if positive is None else positive)
    figures = found.figures(positive=1 if positive is None else positive)
    places = [tuple(vector.get(m, 0) for m in view.modalities) for vector in vectors]

    def strongest(values: Sequence[float | None], radii: Sequence[int]) -> int | None:
        """Return the attack within the radii that has the lowest figure: no line between two of them is a bound."""
        within = [
            number
            for number, place in enumerate(places)
            if values[number] is not None and all(r <= limit for r, limit in zip(place, radii, strict=True))
        ]
        return min(within, key=lambda number: cast(float, values[number]), default=None)

    attacked, with_intervals = {}, {}
    for metric, values in metrics.items():
        chosen = [strongest(values, radii) for radii in view.curve.radii]
        attacked[metric] = tuple(None if number is None else values[number] for number in chosen)
        with_intervals[metric] = tuple(None if number is None else figures[metric][number] for number in chosen)
    return replace(
        view,
        curve=replace(view.curve, attacked=attacked),
        figures={**view.figures, "attacked": with_intervals},
    )


def _radii(recipe: CertifyRecipe) -> tuple[dict[str, list[int]], list[dict[str, int]]]:
    """Return the grid's radii by modality, in the order of `keep`, and the curve's radius vectors."""
    curve = recipe.curve.build() if recipe.curve is not None else []
    named = dict.fromkeys([*(recipe.radii or {}), *(m for vector in curve for m in vector)])
    for modality in named:
        lookup(recipe.keep, modality, what="modality in `radii` or `curve`")
    if recipe.radii is not None:
        return {m: list(range(recipe.radii.get(m, 0) + 1)) for m in recipe.keep}, curve
    return {m: sorted({vector.get(m, 0) for vector in curve}) for m in recipe.keep}, curve


def _positive(recipe: CertifyRecipe, samples: MultiModalSamples) -> int | None:
    """Return the positive class of a segmentation, None for a classification."""
    if samples.labels.ndim == 1:
        unused = [name for name, value in (("maps", recipe.maps), ("positive", recipe.positive)) if value is not None]
        if unused or recipe.correction != "bonferroni":
            raise ValueError(
                f"Expected no {', '.join([*unused, *(['correction'] if not unused else [])])} in the recipe: "
                f"{samples.name!r} holds one label per sample, and these are for masks."
            )
        return None
    if recipe.bound != "majority":
        raise ValueError(f"Expected `bound` 'majority' for masks, but got {recipe.bound!r}.")
    if recipe.positive is None:
        return 1
    return lookup({name: index for index, name in enumerate(samples.classes)}, recipe.positive, what="class")


def _check(recipe: CertifyRecipe, samples: MultiModalSamples, radii: Sequence[Radii]) -> None:
    """Refuse what cannot be certified, before any training."""
    sizes = {m: element_count(lookup(samples.modalities, m, what="modality in `keep`")) for m in recipe.keep}
    kept = kept_counts(recipe.keep, sizes)
    n, k = tuple(sizes.values()), tuple(kept.values())
    Margins(n, k, recipe.kind).at([[vector.get(m, 0) for m in sizes] for vector in radii])  # refuses r > n
    preflight(
        n=n,
        k=k,
        draws=recipe.draws,
        alpha=recipe.alpha,
        kind=recipe.kind,
        elements=int(np.prod(samples.labels.shape[1:])),
        labels=len(samples.classes),
        bound=recipe.bound,
    ).require()


def _keep_rows(run: RunFolder, section: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Put one row per sample into a run, of those that have none yet."""
    known = {row["sample"] for row in run.rows if row.get("section") == section}
    run.rows.append(*({"section": section, **row} for row in rows if row["sample"] not in known))


def _image_rows(
    certificate: SegmentationCertificate, recipe: CertifyRecipe, curve: Sequence[Radii], positive: int
) -> list[dict[str, Any]]:
    """Return one row per image: its settings and, along the curve, the pixel numbers that all metrics are made of."""
    samples = certificate.samples
    rows = []
    for index, (counts, truth) in enumerate(zip(certificate.counts, samples.labels, strict=True)):
        found = certificate.image(index, curve or [{}], correction=recipe.correction)
        bounds = pixel_bounds_over(found.label, found.counted, truth, found.needed, positive=positive)
        rows.append(
            {
                "model": certificate.model,
                "data": samples.name,
                "split": samples.split,
                "n": dict(counts.n),
                "k": dict(counts.k),
                "kind": dict(certificate.kinds),
                "alpha": certificate.alpha,
                "correction": found.correction,
                "scope": found.scope,
                "seed": counts.told_seed,
                "draws": counts.draws,
                "sample": index,
                "group": int(samples.groups[index]),
                "positive": samples.classes[positive],
                "smoothed_right": int((found.label == truth)[truth >= 0].sum()),
                "bounds": [
                    {"radii": dict(vector), **vars(bound)} for vector, bound in zip(curve or [{}], bounds, strict=True)
                ],
            }
        )
    return rows


def _maps(own: SegmentationCertificate, baseline: SegmentationCertificate | None, recipe: CertifyRecipe) -> MapsView:
    """Return the maps of every image."""
    radii = recipe.maps.radii if recipe.maps is not None else {}
    samples = own.samples
    pictured = next((m for m, values in samples.modalities.items() if m == "rgb" and values.shape[1] == 3), None)
    panels = (
        *(["input"] if pictured else []),
        "truth",
        "prediction",
        "certified",
        *(["certified by the baseline"] if baseline is not None else []),
    )

    def pictures(index: int) -> Iterator[np.ndarray]:
        if pictured is not None:
            pixels = samples.modalities[pictured][index].transpose(1, 2, 0)
            yield (np.clip(pixels, 0, 1) * 255).round().astype(np.uint8)
        found = own.image(index, [radii], correction=recipe.correction)
        yield label_map(samples.labels[index])
        yield label_map(found.label)
        yield label_map(found.label, certified=found.certified[0])
        if baseline is not None:
            other = baseline.image(index, [radii], correction=recipe.correction)
            yield label_map(other.label, certified=other.certified[0])

    return MapsView(
        radii=", ".join(f"{m} r = {r}" for m, r in radii.items()),
        legend=legend(samples.classes),
        panels=panels,
        rows=tuple((f"image-{index:05d}", tuple(pictures(index))) for index in range(len(samples))),
    )
