"""Carry out a recipe of `certify`: train on ablated inputs, draw and count, leave rows, maps and summary in the run."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np

from crossguard.attacks import Storage
from crossguard.certify import (
    Certificate,
    EarlyDecision,
    EarlySegmentation,
    SegmentationCertificate,
    Smoothed,
    certify,
    certify_early,
    certify_segmentation,
    certify_segmentation_early,
    preflight,
)
from crossguard.certify.design import Drawing, kept_counts, kinds_of
from crossguard.certify.ensemble import best_draws
from crossguard.certify.noise import margins_with_noise, noise_levels
from crossguard.certify.pixel_metrics import pixel_bounds_over
from crossguard.certify.thresholds import Scheme
from crossguard.checks import lookup
from crossguard.data import MultiModalSamples
from crossguard.data.samples import element_count
from crossguard.evaluate.envelope import sparse_envelope
from crossguard.evaluate.examples import spread_evenly
from crossguard.evaluate.gallery_task import GalleryTask, gallery_task
from crossguard.evaluate.labels import label_ratio
from crossguard.evaluate.statistics import Estimate, read_figure
from crossguard.models import load_model
from crossguard.models.gallery_choice import MODALITIES
from crossguard.progress import Reporter
from crossguard.recipes.base_model import base_model
from crossguard.recipes.perform import choose_device, read_pairs, read_samples
from crossguard.recipes.schema import CertifyRecipe
from crossguard.report import (
    CertificateView,
    MapsView,
    certificate_entry,
    certificate_view,
    early_view,
    segmentation_view,
)
from crossguard.report.certificates import save_maps
from crossguard.report.maps import label_map, legend
from crossguard.runs import RunFolder

Radii = Mapping[str, int | float]
AnyCertificate = Certificate | SegmentationCertificate
Early = EarlyDecision | EarlySegmentation
BASELINE = "joint sub-sampling"
DESIGNS = {"random": "random draws", "fixed": "published, balanced", "product": "published, product"}
STEPS = 10
"""Parts that the L2 radius of a modality under noise is cut into on the grid."""


@dataclass(frozen=True)
class Certified:
    """What a certify recipe gave.

    Args:
        certificate: by independent sub-sampling of every modality, or what was decided early.
        baseline: by joint sub-sampling (randomized ablation); None unless the recipe asks for it.
        samples: what they are about.
        others: by other designs, with the same model, by their names.
    """

    certificate: AnyCertificate | Early
    baseline: AnyCertificate | None
    samples: MultiModalSamples
    others: Mapping[str, AnyCertificate] = field(default_factory=dict)


def perform_certify(recipe: CertifyRecipe, run: RunFolder, *, progress: Reporter) -> Certified:
    """Certify a classifier or a segmenter as the recipe says, training it first if the recipe says how.

    Counts are kept in the run folder; an interrupted run draws only what is missing. Rows, maps and summary go there
    too. Data, radii and the number of draws are checked before any training.

    Raises:
        ValueError: data that are not there, radii or numbers of elements that do not fit them, draws that can only
            abstain, a model that does not take such samples.
    """
    device = choose_device(recipe.device)
    asked = _gallery(recipe, device) if recipe.gallery is not None else None
    samples = read_samples(recipe.data, recipe.max_samples) if asked is None else asked.samples
    # A model of the recipe's own making reads all modalities; one that is loaded may read some of them.
    named = {*recipe.keep, *recipe.noise}
    if named - set(samples.modalities) or (recipe.train and set(samples.modalities) - named):
        raise ValueError(
            f"Expected `keep` for every modality of {samples.name!r} ({', '.join(samples.modalities)}), "
            f"but got {', '.join([*recipe.keep, *recipe.noise])}."
        )
    axes, curve = _radii(recipe)
    positive = _positive(recipe, samples)
    largest: Radii = recipe.early if recipe.early is not None else {m: max(radii) for m, radii in axes.items()}
    _check(recipe, samples, [*curve, largest])
    model: Any = asked.model if asked else base_model(recipe, run, samples, device=device, progress=progress)
    if recipe.early is not None:
        decided = _early(recipe, run, model, samples, positive, device=device, progress=progress)
        return Certified(decided, None, samples)

    def certified(model: Any, scheme: Scheme = "independent", design: Drawing = "random") -> AnyCertificate:
        ask: Any = certify if positive is None else certify_segmentation
        more: dict[str, Any] = {} if recipe.batch_size is None else {"batch_size": recipe.batch_size}
        if positive is None:
            more["bound"] = recipe.bound
        if recipe.noise:
            more["noise"] = recipe.noise
        return cast(
            AnyCertificate,
            ask(
                model,
                samples,
                keep=recipe.keep,
                design=design,
                draws=_draws(recipe, samples, design),
                alpha=recipe.alpha,
                seed=recipe.draw_seed,
                kind=recipe.kind,
                scheme=scheme,
                device=device,
                folder=run.path / "counts",
                progress=progress,
                **more,
            ),
        )

    own, baseline = certified(model, design=recipe.design), None
    others = {DESIGNS[design]: certified(model, design=design) for design in recipe.beside}
    if recipe.train is not None:
        own.save_design(run.path / "model")
    if recipe.baseline:
        apart = recipe.train is not None and recipe.train.for_baseline
        trained = base_model(recipe, run, samples, joint=True, device=device, progress=progress) if apart else model
        baseline = certified(trained, "joint")
    label = own.model
    if isinstance(own, Certificate):
        _keep_rows(run, f"certificate/{label}", own.rows())
        if isinstance(baseline, Certificate):
            _keep_rows(run, f"certificate/{label}/{BASELINE}", baseline.rows())
        for name, beside in others.items():
            _keep_rows(run, f"certificate/{label}/{name}", cast(Certificate, beside).rows())
        view = certificate_view(
            own,
            label=label,
            radii=axes,
            curve=curve,
            baseline=cast(Certificate | None, baseline),
            designs=cast(dict[str, Certificate], _with_draws(others)),
        )
    else:
        other = cast(SegmentationCertificate | None, baseline)
        _keep_rows(run, f"certificate/{label}", _image_rows(own, recipe, curve, cast(int, positive)))
        if other is not None:
            rows = _image_rows(other, recipe, curve, cast(int, positive))
            _keep_rows(run, f"certificate/{label}/{BASELINE}", rows)
        for name, beside in others.items():
            rows = _image_rows(cast(SegmentationCertificate, beside), recipe, curve, cast(int, positive))
            _keep_rows(run, f"certificate/{label}/{name}", rows)
        view = segmentation_view(
            own,
            radii=axes,
            curve=curve,
            correction=recipe.correction,
            positive=cast(int, positive),
            label=label,
            baseline=other,
            designs=cast(dict[str, SegmentationCertificate], _with_draws(others)),
        )
        if recipe.maps is not None:
            maps = _maps(own, other, recipe)
            save_maps(run, label, maps)
            shown = tuple(spread_evenly(maps.rows, count=recipe.maps.shown))
            view = replace(view, maps=replace(maps, rows=shown))
    if recipe.attack is not None:
        storage = None if asked is None else asked.storage
        view = _with_attack(view, recipe, run, model, samples, positive, storage, device=device, progress=progress)
    whole = (
        _whole(run, label) or label_ratio(model, samples, batch_size=recipe.batch_size or 64, device=device).figure()
    )
    assert whole is not None
    view = replace(view, whole_accuracy=whole.value / 100, figures={**view.figures, "whole": {"accuracy": (whole,)}})
    run.summarise("certificates", label, certificate_entry(view))
    return Certified(own, baseline, samples, others)


def _early(
    recipe: CertifyRecipe,
    run: RunFolder,
    model: Any,
    samples: MultiModalSamples,
    positive: int | None,
    *,
    device: str,
    progress: Reporter,
) -> Early:
    """Decide at one radius vector with as few draws as it takes, and keep the rows and the summary."""
    ask: Any = certify_early if positive is None else certify_segmentation_early
    radii, counts = recipe.early or {}, run.path / "counts"
    found: Early = ask(
        model,
        samples,
        keep=recipe.keep,
        radii=radii,
        draws=recipe.draws,
        alpha=recipe.alpha,
        seed=recipe.draw_seed,
        kind=recipe.kind,
        device=device,
        folder=counts,
        progress=progress,
        **({} if recipe.batch_size is None else {"batch_size": recipe.batch_size}),
    )
    own = {"data": samples.name, "split": samples.split, "radii": dict(radii), "alpha": recipe.alpha}
    rows = [
        {**own, "sample": i, "draws": int(found.draws[i]), "certified": int(found.certified[i].sum())}
        for i in range(len(samples))
    ]
    _keep_rows(run, f"early/{model.name}", rows)
    sizes = {m: element_count(samples.modalities[m]) for m in recipe.keep}
    kinds = dict(zip(sizes, kinds_of(recipe.kind, tuple(sizes)), strict=True))
    shown: dict[str, Any] = {"label": model.name, "n": sizes, "k": recipe.keep, "kinds": kinds, "radii": radii}
    view = early_view(found, samples, positive=positive, **shown)
    run.summarise("certificates", model.name, certificate_entry(view))
    return found


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
    storage: Mapping[str, Storage] | None,
    *,
    device: str,
    progress: Reporter,
) -> CertificateView:
    """Attack the smoothed model at radii of the curve, keep rows, and put the figures beside the certified ones."""
    wanted, curve = recipe.attack, recipe.curve
    assert wanted is not None
    assert curve is not None
    assert view.curve is not None
    vectors = wanted.vectors or [{m: int(r) for m, r in vector.items()} for vector in curve.build()]
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
        storage=storage,
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

    def strongest(values: Sequence[float | None], radii: Sequence[float | int]) -> int | None:
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


def _with_draws(others: Mapping[str, AnyCertificate]) -> dict[str, AnyCertificate]:
    """Return certificates by the name of their design and N."""
    numbers = {
        name: (other.counts if isinstance(other, Certificate) else other.counts[0]).draws
        for name, other in others.items()
    }
    return {f"{name}, N = {numbers[name]}": other for name, other in others.items()}


def _gallery(recipe: CertifyRecipe, device: str) -> GalleryTask:
    """Return a two-tower model as a chooser among a gallery, and what it is asked."""
    assert recipe.gallery is not None
    model = load_model(recipe.model, device=device).eval()
    pairs = read_pairs(recipe.data, None)
    chosen = tuple(m for m in MODALITIES if m in recipe.gallery.modalities)
    asked = gallery_task(model, pairs, classes=recipe.gallery.classes, modalities=chosen)
    return asked if recipe.max_samples is None else replace(asked, samples=asked.samples.head(recipe.max_samples))


def _draws(recipe: CertifyRecipe, samples: MultiModalSamples, design: Drawing) -> int | None:
    """Return N of a design, at most the recipe's; a product has as many as there are tuples."""
    if design != "fixed":
        return None if design == "product" else recipe.draws
    sizes = {m: element_count(samples.modalities[m]) for m in recipe.keep}
    return best_draws(sizes, kept_counts(recipe.keep, sizes), recipe.draws)


def _radii(recipe: CertifyRecipe) -> tuple[dict[str, list[int | float]], list[dict[str, int | float]]]:
    """Return the grid's radii by modality, in the order of `keep` and `noise`, and the curve's radius vectors."""
    own = {**recipe.keep, **recipe.noise}
    curve = recipe.curve.build() if recipe.curve is not None else []
    named = dict.fromkeys([*(recipe.radii or recipe.early or {}), *(m for vector in curve for m in vector)])
    for modality in named:
        lookup(own, modality, what="modality in `radii` or `curve`")
    if recipe.early is not None:
        return {}, []
    if recipe.radii is None:
        return {m: sorted({vector.get(m, 0) for vector in curve}) for m in own}, curve
    axes: dict[str, list[int | float]] = {}
    for modality in own:
        largest = recipe.radii.get(modality, 0)
        if modality in recipe.noise:
            axes[modality] = [largest * step / STEPS for step in range(STEPS + 1)] if largest else [0]
        elif largest != int(largest):
            raise ValueError(f"Expected a whole number of elements in `radii` of {modality!r}, but got {largest}.")
        else:
            axes[modality] = list(range(int(largest) + 1))
    return axes, curve


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
    if recipe.bound == "gap":
        raise ValueError(f"Expected `bound` 'majority' for masks, but got {recipe.bound!r}.")
    if recipe.positive is None:
        return 1
    return lookup({name: index for index, name in enumerate(samples.classes)}, recipe.positive, what="class")


def _check(recipe: CertifyRecipe, samples: MultiModalSamples, radii: Sequence[Radii]) -> None:
    """Refuse what cannot be certified, before any training."""
    sizes = {m: element_count(lookup(samples.modalities, m, what="modality in `keep`")) for m in recipe.keep}
    noise = noise_levels(recipe.noise, recipe.keep, tuple(samples.modalities))
    kept = kept_counts(recipe.keep, sizes, noisy=bool(noise))
    n, k, sigmas = tuple(sizes.values()), tuple(kept.values()), tuple(noise[m] for m in recipe.noise)
    kinds = kinds_of(recipe.kind, tuple(sizes))
    vectors = [[vector.get(m, 0) for m in (*sizes, *recipe.noise)] for vector in radii]
    margins_with_noise("independent", n, k, kinds, noise=sigmas).at(vectors)  # refuses r > n
    preflight(
        n=n,
        k=k,
        draws=recipe.draws,
        alpha=recipe.alpha,
        kind=kinds,
        elements=int(np.prod(samples.labels.shape[1:])),
        labels=len(samples.classes),
        bound="majority" if noise else recipe.bound,
        noise=sigmas,
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
                "noise": dict(counts.noise),
                "scheme": counts.scheme,
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
