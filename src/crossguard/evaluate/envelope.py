"""The upper bound beside a certificate's lower one: the smoothed model under sparse attacks of the same radii."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int64

from crossguard.attacks import Storage, attack_samples
from crossguard.attacks.storage import storages
from crossguard.certify import PixelBounds, Smoothed, pixel_bounds
from crossguard.checks import lookup
from crossguard.data.samples import MultiModalSamples
from crossguard.evaluate.certified import figures_along, pixel_ratios
from crossguard.evaluate.fingerprint import samples_fingerprint
from crossguard.evaluate.statistics import Estimate, Ratio
from crossguard.models.identity import model_identity
from crossguard.models.inputs import input_arrays
from crossguard.models.plain_torch import plain_torch
from crossguard.progress import Reporter
from crossguard.runs import DAMAGED, npz_bytes, read_npz, write_atomically
from crossguard.threat import Elements, ThreatModel
from crossguard.world import join

PIXEL_METRICS = ("accuracy", "recall", "precision", "f_score", "iou")
Radii = Mapping[str, int]


@dataclass(frozen=True)
class Envelope:
    """What the smoothed model answers under the sparse attack at each of several radius vectors.

    An attack within smaller radii is one within larger ones too, so each figure at a radius vector takes in the attacks
    at all vectors below it: it can only fall as radii grow.

    Args:
        samples: what was attacked, as it was.
        radii: the radius vectors.
        answers: int64 [vectors, samples] or [vectors, samples, height, width], the labels answered under attack.
        settings: of the attack and the smoothed model.
    """

    samples: MultiModalSamples
    radii: tuple[Radii, ...]
    answers: Int64[np.ndarray, "vectors samples ..."]
    settings: Mapping[str, Any]

    @cached_property
    def within(self) -> Bool[np.ndarray, "vectors vectors"]:
        """Entry [i, j]: the attack at vector j is also one within vector i."""
        names = list(dict.fromkeys(m for vector in self.radii for m in vector))
        table = np.array([[vector.get(m, 0) for m in names] for vector in self.radii]).reshape(len(self.radii), -1)
        return np.asarray((table[:, None, :] >= table[None, :, :]).all(axis=2))

    @cached_property
    def accuracy(self) -> tuple[float, ...]:
        """Per radius vector the share of judged labels that stay right, in [0, 1]."""
        return tuple(float(value) for value in self.metrics()["accuracy"] if value is not None)

    def metrics(self, *, positive: int = 1) -> dict[str, tuple[float | None, ...]]:
        """Return metrics per radius vector, each an upper bound on its value under the worst attack within the radii.

        Of classifications "accuracy"; of segmentations also recall, precision, F-score and IoU of the positive class.

        Args:
            positive: the class that those are of.
        """
        truth = self.samples.labels
        if truth.ndim == 1:
            right = (self.answers == truth) & (truth >= 0)
            kept = np.array([right[below].all(axis=0).sum() for below in self.within])
            return {"accuracy": tuple((kept / (truth >= 0).sum()).tolist())}
        found = [self._bounds(labels, positive) for labels in self.answers]
        metrics: dict[str, tuple[float | None, ...]] = {}
        for metric in PIXEL_METRICS:
            values = np.array([getattr(bounds, metric) for bounds in found])
            lowest = [
                np.nanmin(values[below]) if not np.isnan(values[below]).all() else np.nan for below in self.within
            ]
            metrics[metric] = tuple(None if np.isinf(value) else float(value) for value in lowest)
        return metrics

    def figures(self, *, positive: int = 1) -> dict[str, tuple[Estimate | None, ...]]:
        """Return `metrics` with their intervals, in percent; None where one is not defined."""
        truth, groups = self.samples.labels, self.samples.groups
        if truth.ndim == 1:
            judged = (truth >= 0).astype(np.float64)
            right = (self.answers == truth) & (truth >= 0)
            kept = (right[below].all(axis=0).astype(np.float64) for below in self.within)
            return {"accuracy": tuple(Ratio(part, judged, groups).figure() for part in kept)}
        each = figures_along([pixel_ratios(self._images(labels, positive), groups) for labels in self.answers])

        def lowest(figures: Sequence[Estimate | None], below: Bool[np.ndarray, " vectors"]) -> Estimate | None:
            found = [figure for figure, inside in zip(figures, below, strict=True) if inside and figure is not None]
            return min(found, key=lambda figure: figure.value, default=None)

        return {metric: tuple(lowest(found, below) for below in self.within) for metric, found in each.items()}

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per sample: whether (of scenes: for which share of pixels) it stays right at each vector."""
        truth = self.samples.labels
        judged = truth >= 0
        rows = []
        for i in range(len(truth)):
            right = (self.answers[:, i] == truth[i]) & judged[i]
            total = int(judged[i].sum())
            rows.append(
                {
                    **self.settings,
                    "sample": i,
                    "group": int(self.samples.groups[i]),
                    "attacked": [
                        {"radii": dict(vector), "right": int(right[v].sum()), "judged": total}
                        for v, vector in enumerate(self.radii)
                    ],
                }
            )
        return rows

    def _bounds(self, labels: Int64[np.ndarray, "samples height width"], positive: int) -> PixelBounds:
        return sum(self._images(labels, positive), PixelBounds())

    def _images(self, labels: Int64[np.ndarray, "samples height width"], positive: int) -> list[PixelBounds]:
        sure = np.ones(labels.shape[1:], dtype=bool)
        pairs = zip(labels, self.samples.labels, strict=True)
        return [pixel_bounds(label, sure, truth, positive=positive) for label, truth in pairs]


@plain_torch()
def sparse_envelope(
    victim: Smoothed,
    samples: MultiModalSamples,
    radii: Sequence[Radii],
    *,
    attack_options: Mapping[str, Any] | None = None,
    storage: Mapping[str, Storage] | None = None,
    seed: int = 0,
    transfer: bool = True,
    batch_size: int = 32,
    device: torch.device | str = "cpu",
    folder: Path | str | None = None,
    progress: Reporter | None = None,
) -> Envelope:
    """Attack the smoothed model with `sparse` at each radius vector.

    The certificate of the same base model, draws and samples can never lie above what comes out, but for the alpha
    that it is allowed to be wrong with and the draws of a vote: the truth lies between the two.

    Args:
        victim: the smoothed model.
        samples: what to attack.
        radii: elements that may be edited, by modality; a modality that is not named is not attacked.
        attack_options: of "sparse", see `crossguard.attacks.Sparse`.
        storage: as `attack_samples`.
        seed: as `attack_samples`.
        transfer: also attack the base model with all elements in sight, and keep what hurts the smoothed one more.
        batch_size: samples that climb together; each is as many forward passes as the victim's attack draws.
        device: where to compute.
        folder: where the answers at each vector are kept; what is there is not attacked again.
        progress: where progress is shown.

    Raises:
        ValueError: no radius vector, an unknown modality, a radius that is not whole or negative, or answers in
            `folder` of other settings.
    """
    if not radii:
        raise ValueError("Expected at least one radius vector, but got none.")
    for modality in dict.fromkeys(m for vector in radii for m in vector):
        lookup(dict.fromkeys(victim.modalities), modality, what="modality in `radii`")
    threats = [_threat(vector, victim.modalities) for vector in radii]
    how = storages(input_arrays(victim, samples), victim.modalities, storage)
    settings = {
        "model": victim.name,
        "data": samples.name,
        "split": samples.split,
        "content": samples_fingerprint(samples),
        "attack": "sparse",
        "attack_options": dict(attack_options or {}),
        "attack_draws": victim.passes,
        "transfer": transfer,
        "draws": victim.draws,
        "draws_seed": victim.seed,
        "k": dict(victim.keep),
        "fill": victim.fill,
        "segments": victim.segments,
        "asked": victim.asked,
        "storage": {m: vars(stored) for m, stored in how.items()},
        "seed": seed,
        "weights": model_identity(victim.module, strict=folder is not None),
    }
    world = join(device)
    ids = np.arange(len(samples))[world.share(len(samples))]
    mine = samples if world.size == 1 else samples.select(ids)
    options: Any = {
        "attack": "sparse",
        "storage": how,
        "seed": seed,
        "batch_size": batch_size,
        "device": world.place(device),
        "progress": progress if world.main else None,
        "places": ids,
    }
    answers = []
    clean: np.ndarray | None = None

    def attack(threat: ThreatModel, *, still: bool) -> np.ndarray:
        """Return what is answered under attack to this process's samples."""
        nonlocal clean
        own = attack_samples(victim, mine, threat=threat, attack_options=attack_options, known_answers=clean, **options)
        clean, found = own.answers, own.attacked
        if transfer and not still:
            other = attack_samples(victim.whole, mine, threat=threat, attack_options=attack_options, **options).samples
            asked = attack_samples(victim, other, threat=_threat({}, victim.modalities), **options).answers
            found = _worse(found, asked, mine.labels)
        return found

    for vector, threat in zip(radii, threats, strict=True):
        whole = {m: vector.get(m, 0) for m in victim.modalities}
        path = None if folder is None else Path(folder) / f"sparse-{'-'.join(map(str, whole.values()))}.npz"
        about = json.dumps({**settings, "radii": whole}, sort_keys=True)
        known = world.agree(_read(path, about) if world.main else None)
        if known is None:
            parts = world.every(attack(threat, still=not any(vector.values())) if len(ids) else None)
            known = np.concatenate([part for part in parts if part is not None])
            if path is not None and world.main:
                write_atomically(path, npz_bytes(attacked=known, about=np.array(about)))
        answers.append(known)
    return Envelope(samples, tuple(dict(vector) for vector in radii), np.stack(answers), settings)


def _worse(
    first: Int64[np.ndarray, "samples ..."],
    second: Int64[np.ndarray, "samples ..."],
    truth: Int64[np.ndarray, "samples ..."],
) -> Int64[np.ndarray, "samples ..."]:
    """Return, per sample, the answers with fewer right labels; the first where both have as many."""
    right = [((labels == truth) & (truth >= 0)).reshape(len(truth), -1).sum(axis=1) for labels in (first, second)]
    worse = (right[1] < right[0]).reshape(-1, *(1,) * (truth.ndim - 1))
    return np.where(worse, second, first)


def _threat(vector: Radii, modalities: Sequence[str]) -> ThreatModel:
    budgets: Any = {modalities[0]: Elements(0)} | {m: Elements(int(r)) for m, r in vector.items()}
    return ThreatModel(**budgets)


def _read(path: Path | None, about: str) -> np.ndarray | None:
    """Return the answers kept in a file; None where there are none, or damaged ones, which are made again."""
    if path is None or not path.exists():
        return None
    try:
        file = read_npz(path)
        made_with, attacked = str(file["about"]), file["attacked"]
    except DAMAGED:
        return None
    if made_with != about:
        raise ValueError(f"Expected answers of the same attack in {path}; choose another folder, or remove it.")
    return attacked
