"""Carry out a recipe of `certify`: train on ablated inputs, draw and count, leave rows, maps and summary in the run."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch

from crossguard.certify import (
    Certificate,
    EarlyDecision,
    RetrievalCertificate,
    SegmentationCertificate,
    Smoothed,
    SmoothedRetrieval,
    VariedCertificate,
    certify,
    certify_collective,
    certify_early,
    certify_lengths,
    certify_retrieval,
    certify_segmentation,
    certify_segmentation_early,
    preflight,
)
from crossguard.certify.design import kept_counts, kinds_of
from crossguard.certify.ensemble import best_draws
from crossguard.certify.noise import margins_with_noise, noise_levels
from crossguard.certify.options import Drawing
from crossguard.certify.pixel_metrics import pixel_bounds_over
from crossguard.certify.smoothed_retrieval import FOUND
from crossguard.certify.thresholds import Scheme
from crossguard.certify.units import units_of
from crossguard.checks import lookup
from crossguard.data import MultiModalSamples
from crossguard.data.samples import element_count
from crossguard.evaluate.envelope import sparse_envelope
from crossguard.evaluate.examples import spread_evenly
from crossguard.evaluate.gallery_task import UNITS, GalleryTask, gallery_task, retrieval_task, zero_shot_task
from crossguard.evaluate.labels import label_ratio
from crossguard.evaluate.statistics import Estimate, Ratio, read_figure
from crossguard.models import load_model
from crossguard.models.gallery_choice import MODALITIES
from crossguard.models.inputs import input_arrays, input_tensor
from crossguard.progress import Reporter
from crossguard.recipes.base_model import base_model, split_lengths
from crossguard.recipes.perform import choose_device, read_data, read_pairs, read_samples
from crossguard.recipes.schema import CertifyRecipe, Gallery
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
from crossguard.world import World, join

Radii = Mapping[str, int | float]
AnyCertificate = Certificate | RetrievalCertificate | VariedCertificate | SegmentationCertificate
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

    certificate: AnyCertificate | EarlyDecision
    baseline: AnyCertificate | None
    samples: MultiModalSamples
    others: Mapping[str, AnyCertificate] = field(default_factory=dict)


def perform_certify(recipe: CertifyRecipe, run: RunFolder | None, *, progress: Reporter) -> Certified:
    """Certify a classifier, a segmenter or retrieval as the recipe says; where it says how, the model is trained first.

    Counts are kept in the run folder; an interrupted run draws only what is missing. Rows, maps and summary go there
    too. Data, radii and the number of draws are checked before any training. Several processes share the draws and the
    attacks; a training is the main one's.

    Args:
        recipe: what to do.
        run: its run folder; None in all but the main one of several processes, which write nothing.
        progress: shows how it goes.

    Raises:
        ValueError: data that are not there, radii or numbers of elements that do not fit them, draws that can only
            abstain, a model that does not take such samples.
    """
    world = join(choose_device(recipe.device))
    device = str(world.place(choose_device(recipe.device)))
    home = world.agree(Path(recipe.run) if run is None else run.path)
    asked = _gallery(recipe, device) if recipe.gallery is not None else None
    samples = read_samples(recipe.data, recipe.max_samples) if asked is None else asked.samples
    samples, lengths = split_lengths(samples, recipe.lengths)
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
    model: Any = asked.model if asked else base_model(recipe, home, samples, device=device, progress=progress)
    job = _Job(recipe, home, run, samples, lengths, asked, positive, {"device": device, "progress": progress})
    if recipe.early is not None:
        return Certified(_early(job, model), None, samples)
    own, baseline = job.certify(model, design=recipe.design), None
    others = {DESIGNS[design]: job.certify(model, design=design) for design in recipe.beside}
    if recipe.train is not None:
        if world.main:
            own.save_design(home / "model")
        world.wait()
    if recipe.baseline:
        apart = recipe.train is not None and recipe.train.for_baseline
        trained = base_model(recipe, home, samples, joint=True, device=device, progress=progress) if apart else model
        baseline = job.certify(trained, "joint")
    for name, each in {"": own, BASELINE: baseline, **others}.items():
        if each is not None and run is not None:
            _keep_rows(run, f"certificate/{own.model}{'/' * bool(name)}{name}", _rows(each, recipe, curve, positive))
    shown: dict[str, Any] = {"label": own.model, "radii": axes, "curve": curve, "baseline": baseline}
    shown["designs"] = {f"{name}, N = {other.first.draws}": other for name, other in others.items()}
    if isinstance(own, SegmentationCertificate):
        view = segmentation_view(own, correction=recipe.correction, positive=cast(int, positive), **shown)
        if recipe.maps is not None and run is not None:
            maps = _maps(own, cast(SegmentationCertificate | None, baseline), recipe)
            save_maps(run, own.model, maps)
            drawn = tuple(spread_evenly(maps.rows, count=recipe.maps.shown))
            view = replace(view, maps=replace(maps, rows=drawn))
        if recipe.collective:
            view = _with_collective(view, run, model, own, curve, world)
    else:
        view = certificate_view(own, **shown)
    if recipe.attack is not None:
        view = _with_attack(view, job, model)
    if run is not None:
        whole = _whole(run, own.model) or job.whole(model)
        if whole is not None:
            figures = {**view.figures, "whole": {"accuracy": (whole,)}}
            view = replace(view, whole_accuracy=whole.value / 100, figures=figures)
        run.summarise("certificates", own.model, certificate_entry(view))
    return Certified(own, baseline, samples, others)


@dataclass(frozen=True)
class _Job:
    """A recipe with what it is about: samples, their lengths, the gallery, the positive class of masks."""

    recipe: CertifyRecipe
    home: Path
    run: RunFolder | None
    samples: MultiModalSamples
    lengths: Mapping[str, np.ndarray]
    asked: GalleryTask | None
    positive: int | None
    where: Mapping[str, Any]

    @property
    def options(self) -> dict[str, Any]:
        """What all certificates of the recipe take."""
        recipe = self.recipe
        return {
            "keep": recipe.keep,
            "alpha": recipe.alpha,
            "seed": recipe.draw_seed,
            "kind": recipe.kind,
            "units": {**({} if self.asked is None else {m: UNITS[m] for m in self.samples.modalities}), **recipe.units},
            "folder": self.home / "counts",
            "batch_size": recipe.batch_size,
            "noise": recipe.noise or None,
            "precision": recipe.precision,
            **self.where,
        }

    def certify(self, model: Any, scheme: Scheme = "independent", design: Drawing = "random") -> AnyCertificate:
        """Certify by one design."""
        recipe, samples = self.recipe, self.samples
        own = {**self.options, "design": design, "scheme": scheme, "draws": _draws(recipe, samples, design)}
        if self.positive is not None:
            return certify_segmentation(model, samples, **own)
        if self.asked is not None and cast(Gallery, recipe.gallery).retrieves:
            most = cast(Gallery, recipe.gallery).most
            return certify_retrieval(model, samples, most=most, truth=self.asked.truth, **own)
        if self.lengths:
            return certify_lengths(model, samples, lengths=self.lengths, bound=recipe.bound, **own)
        return certify(model, samples, bound=recipe.bound, **own)

    def whole(self, model: Any) -> Estimate | None:
        """Return how often the base model is right on whole inputs; None of padded ones, of which none is whole."""
        if self.lengths:
            return None
        size = self.recipe.batch_size or 64
        if self.asked is None or not cast(Gallery, self.recipe.gallery).retrieves:
            return label_ratio(model, self.samples, batch_size=size, device=self.where["device"]).figure()
        most, hits = cast(Gallery, self.recipe.gallery).most, []
        arrays = input_arrays(model, self.samples)
        for start in range(0, len(self.samples), size):
            inputs = {m: input_tensor(a[start : start + size], self.where["device"]) for m, a in arrays.items()}
            with torch.no_grad():
                first = model(inputs).argsort(dim=1, descending=True, stable=True)[:, :most].cpu().numpy()
            hits.append(np.take_along_axis(self.asked.truth[start : start + size], first, axis=1).any(axis=1))
        found = np.concatenate(hits).astype(np.float64)
        return Ratio(found, np.ones_like(found), self.samples.groups).figure()


def _early(job: _Job, model: Any) -> EarlyDecision:
    """Decide at one radius vector with as few draws as it takes, and keep the rows and the summary."""
    recipe, run, samples = job.recipe, job.run, job.samples
    ask = certify_early if job.positive is None else certify_segmentation_early
    radii = recipe.early or {}
    found = ask(model, samples, radii=radii, draws=recipe.draws, **job.options)
    if run is None:
        return found
    own = {"data": samples.name, "split": samples.split, "radii": dict(radii), "alpha": recipe.alpha}
    rows = [
        {**own, "sample": i, "draws": int(found.draws[i]), "certified": int(found.certified[i].sum())}
        for i in range(len(samples))
    ]
    _keep_rows(run, f"early/{model.name}", rows)
    sizes, still = {m: element_count(samples.modalities[m]) for m in recipe.keep}, dict.fromkeys(recipe.noise, 0)
    kinds = dict(zip(sizes, kinds_of(recipe.kind, tuple(sizes)), strict=True)) | dict.fromkeys(recipe.noise, "l2")
    shown: dict[str, Any] = {"label": model.name, "n": {**sizes, **still}, "k": {**recipe.keep, **still}}
    shown |= {"units": units_of(job.options["units"], samples.modalities), "noise": recipe.noise}
    view = early_view(found, samples, positive=job.positive, kinds=kinds, radii=radii, **shown)
    run.summarise("certificates", model.name, certificate_entry(view))
    return found


def _whole(run: RunFolder, label: str) -> Estimate | None:
    """Return what the run holds of the base model on whole inputs."""
    known = run.summary.get("certificates", {}).get(label, {}).get("figures", {}).get("whole")
    return None if known is None else read_figure(known["accuracy"][0])


def _with_collective(
    view: CertificateView,
    run: RunFolder | None,
    model: Any,
    certificate: SegmentationCertificate,
    curve: Sequence[Radii],
    world: World,
) -> CertificateView:
    """Put beside the curve which share of pixels stays right at once, whichever one attack there is; keep the rows."""
    section = f"collective/{certificate.model}"
    kept = [] if run is None else [dict(row) for row in run.rows if row.get("section") == section]
    kept = world.agree(kept)
    vectors = [{m: int(r) for m, r in vector.items()} for vector in curve]

    def row_of(index: int) -> dict[str, Any]:
        found = certify_collective(model, certificate, index, vectors)
        bounds = [{"radii": vector, **vars(bound)} for vector, bound in zip(vectors, found, strict=True)]
        return {"section": section, "sample": index, "bounds": bounds}

    left = sorted({*range(len(certificate.samples))} - {row["sample"] for row in kept})
    for row in world.each(left, row_of):
        kept.append(row)
        if run is not None:
            run.rows.append(row)
    images = [row["bounds"] for row in kept]
    judged = max(1, sum(image[0]["pixels"] for image in images))
    shares = tuple(sum(image[place]["together"] for image in images) / judged for place in range(len(curve)))
    assert view.curve is not None
    return replace(view, curve=replace(view.curve, certified={**view.curve.certified, "collective": shares}))


def _with_attack(view: CertificateView, job: _Job, model: Any) -> CertificateView:
    """Attack the smoothed model at radii of the curve, keep rows, and put the figures beside the certified ones."""
    recipe, run, samples, positive = job.recipe, job.run, job.samples, job.positive
    wanted, curve = recipe.attack, recipe.curve
    assert wanted is not None
    assert curve is not None
    assert view.curve is not None
    vectors = wanted.vectors or [{m: int(r) for m, r in vector.items()} for vector in curve.build()]
    own: dict[str, Any] = {} if recipe.batch_size is None else {"batch_size": recipe.batch_size}
    own |= {"keep": recipe.keep, "draws": recipe.draws, "attack_draws": wanted.draws}
    own |= {"seed": recipe.seed, "precision": recipe.precision}
    if job.asked is not None and cast(Gallery, recipe.gallery).retrieves:
        most, queries = cast(Gallery, recipe.gallery).most, len(samples)
        victim: Smoothed = SmoothedRetrieval(model, truth=job.asked.truth, most=most, **own)
        samples = replace(samples, labels=np.full(queries, FOUND), classes=victim.classes)
    else:
        victim = Smoothed(model, segments=positive is not None, **own)
    found = sparse_envelope(
        victim,
        samples,
        vectors,
        attack_options=wanted.options,
        storage=None if job.asked is None else job.asked.storage,
        transfer=wanted.transfer,
        seed=recipe.seed,
        batch_size=wanted.batch_size,
        folder=job.home / "attacked",
        **job.where,
    )
    if run is not None:
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
        shown = view.metric if metric == "accuracy" else metric
        chosen = [strongest(values, radii) for radii in view.curve.radii]
        attacked[shown] = tuple(None if number is None else values[number] for number in chosen)
        with_intervals[shown] = tuple(None if number is None else figures[metric][number] for number in chosen)
    return replace(
        view,
        curve=replace(view.curve, attacked=attacked),
        figures={**view.figures, "attacked": with_intervals},
    )


def _gallery(recipe: CertifyRecipe, device: str) -> GalleryTask:
    """Return a two-tower model as a chooser among a gallery, and what it is asked."""
    gallery = recipe.gallery
    assert gallery is not None
    model = load_model(recipe.model, device=device).eval()
    if gallery.of == "classes":
        asked = zero_shot_task(model, read_data(recipe.data, recipe.max_samples, reads="images"))
    elif gallery.of == "concepts":
        chosen = tuple(m for m in MODALITIES if m in gallery.modalities)
        asked = gallery_task(model, read_pairs(recipe.data, None), classes=gallery.classes, modalities=chosen)
    else:
        ask: Literal["image", "text"] = "text" if gallery.of == "images" else "image"
        asked = retrieval_task(model, read_pairs(recipe.data, None), ask=ask, queries=recipe.max_samples)
    return asked if recipe.max_samples is None else asked.head(recipe.max_samples)


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
        unused = [name for name in ("maps", "positive", "collective") if getattr(recipe, name)]
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


def _rows(
    certificate: AnyCertificate, recipe: CertifyRecipe, curve: Sequence[Radii], positive: int | None
) -> list[dict[str, Any]]:
    """Return one row per sample; of images settings and, along the curve, the pixel numbers that all metrics are of."""
    if not isinstance(certificate, SegmentationCertificate):
        return certificate.rows()
    samples, wanted = certificate.samples, cast(int, positive)
    rows = []
    for index, (counts, truth) in enumerate(zip(certificate.counts, samples.labels, strict=True)):
        found = certificate.image(index, curve or [{}], correction=recipe.correction)
        bounds = pixel_bounds_over(found.label, found.counted, truth, found.needed, positive=wanted)
        rows.append(
            {
                **certificate.settings,
                "draws": counts.draws,
                "correction": found.correction,
                "scope": found.scope,
                "sample": index,
                "group": int(samples.groups[index]),
                "positive": samples.classes[wanted],
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
