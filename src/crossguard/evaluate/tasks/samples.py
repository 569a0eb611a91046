"""Classification and segmentation of samples of several modalities: sensors, clips, scenes."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Int64

from crossguard.attacks.goals import STRONGEST, objectives_of
from crossguard.attacks.samples import attack_samples, make_sample_attack
from crossguard.attacks.storage import Storage, check_stored, storages
from crossguard.attacks.table import make_attack
from crossguard.attacks.victims import Plain
from crossguard.certify.pixel_metrics import pixel_bounds
from crossguard.checks import lookup
from crossguard.data import MultiModalSamples
from crossguard.evaluate.fingerprint import samples_fingerprint
from crossguard.evaluate.statistics import Estimate, Ratio, attack_figures
from crossguard.evaluate.store import Arrays
from crossguard.evaluate.task import Rows, SampleTask
from crossguard.models.inputs import input_arrays, input_tensor
from crossguard.progress import Reporter
from crossguard.threat import ThreatModel

STORED = {"pixels": Storage.pixels, "millimetres": Storage.millimetres}
"""How modalities may be stored whose data do not show it, by the names that recipes have for it."""


@dataclass(frozen=True)
class NamedAttack:
    """An attack on classifiers and segmenters, by its name and its options."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SamplesTask(SampleTask):
    """What classification and segmentation of samples have in common.

    The clean answers of a batch are computed once for all parts. What an attack finds is judged in the samples' own
    storage types (see `attack_samples`).

    Rows, one per sample: `index`, `group`, `edited` and `linf` (by modality: elements changed, and the largest change
    as a share of the range; None without attack), `clean` and `robust`.

    Args:
        objective: what the attack raises, see `attack_samples`.
        storage: range and step (or "pixels", "millimetres") of modalities that `Storage.of` would not guess from the
            data.
    """

    objective: str = STRONGEST
    storage: Mapping[str, Storage | str] = field(default_factory=dict)

    default_batch_size: ClassVar[int] = 64
    masks: ClassVar[bool]
    reads: ClassVar[str] = "samples"
    models: ClassVar[tuple[str, ...]] = ("classifier", "segmenter")
    of_samples: ClassVar[bool] = True

    @classmethod
    def fits(cls, model: object, data: object) -> bool:
        """Return whether the data are samples with this kind of labels."""
        return isinstance(data, MultiModalSamples) and (data.labels.ndim > 1) == cls.masks

    @classmethod
    def make_attack(cls, name: str, options: Mapping[str, Any]) -> NamedAttack:
        """Return an attack by its name; the options are checked."""
        make_attack(name, **options)
        return NamedAttack(name, dict(options))

    @property
    def net(self) -> Any:
        """The classifier or segmenter that is asked."""
        return self.model

    @cached_property
    def _given_storage(self) -> dict[str, Storage]:
        return {
            modality: stored if isinstance(stored, Storage) else lookup(STORED, stored, what="storage")()
            for modality, stored in self.storage.items()
        }

    @cached_property
    def _storage(self) -> dict[str, Storage]:
        return storages(input_arrays(self.net, self.data), self.net.modalities, self._given_storage)

    def check(self, attack: NamedAttack | None, threat: ThreatModel | None) -> None:
        """Refuse another kind of model or labels, no labels, and what the attack cannot work with."""
        input_arrays(self.model, self.data)
        judged = int((self.data.labels >= 0).sum())
        if not judged or not self.fits(self.model, self.data):
            raise ValueError(
                f"Expected samples with {'masks' if self.masks else 'one label each'}, but got {judged} labels of "
                f"shape {list(self.data.labels.shape)} in {self.data.name} ({self.data.split})."
            )
        self.check_attack(attack, threat)

    def check_attack(self, attack: NamedAttack | None, threat: ThreatModel | None) -> None:
        """Refuse an unknown objective, and an attack that cannot work within the threat or on such labels."""
        objectives_of(self.objective, masks=self.masks)
        if attack is None:
            check_stored(self.net.modalities, self._given_storage)
            return
        if not isinstance(attack, NamedAttack):
            raise ValueError(f"Expected an attack on samples by its name, but got {attack!r}.")
        words = {m: stored.sizes for m, stored in self._storage.items() if stored.symbols}
        make_sample_attack(
            attack.name,
            attack.options,
            threat or ThreatModel(),
            modalities=self.net.modalities,
            words=words,
            masks=self.masks,
        )

    def facts(self, progress: Reporter) -> dict[str, Any]:
        """Return the fingerprint of the data."""
        return {
            "content": samples_fingerprint(self.data),
            "data_notes": list(getattr(self.data, "notes", ())),
        }

    def attack_facts(self, attack: NamedAttack | None) -> dict[str, Any]:
        """Return the attack's options, its objective, and how samples are stored."""
        if attack is None:
            return {"attack_options": {}, "objective": None, "storage": None}
        stored = {m: vars(how) for m, how in self._storage.items()}
        return {"attack_options": dict(attack.options), "objective": self.objective, "storage": stored}

    @cached_property
    def batches(self) -> list[Int64[np.ndarray, " samples"]]:
        """Samples in order, `batch_size` at a time."""
        return [
            np.arange(start, min(start + self.batch_size, len(self.data)))
            for start in range(0, len(self.data), self.batch_size)
        ]

    @property
    def rows(self) -> int:
        """One per sample."""
        return len(self.data)

    @property
    def samples(self) -> str:
        """How many there are."""
        return f"{len(self.data):,} {'images' if self.masks else 'samples'}"

    def samples_of(self, ids: Int64[np.ndarray, " samples"]) -> Int64[np.ndarray, " samples"]:
        """Return the samples themselves."""
        return ids

    def load_batch(self, ids: Int64[np.ndarray, " samples"], device: torch.device) -> "Loaded":
        """Return the samples of a batch."""
        return Loaded(self.data.select(ids), ids, device)

    @torch.no_grad()
    def answer(self, batch: "Loaded", found: Arrays | None) -> Int64[np.ndarray, "samples ..."]:
        """Return the labels that the model gives; those under attack were asked for as it ended."""
        if found is not None:
            return found["attacked"]
        inputs = {m: input_tensor(batch.samples.modalities[m], batch.device) for m in self.net.modalities}
        answers = Plain(self.net).decide(inputs, torch.from_numpy(batch.ids).to(batch.device)).cpu().numpy()
        if answers.shape != batch.samples.labels.shape:
            raise ValueError(
                f"Expected answers of shape {batch.samples.labels.shape} (as labels), but {self.model.name} gives "
                f"{answers.shape}."
            )
        return np.asarray(answers)

    def attack(self, batch: "Loaded", clean: Any, attack: NamedAttack, threat: ThreatModel, seed: int) -> Arrays:
        """Attack a batch in the samples' own storage types."""
        return self.attacked_on(self.net, batch, clean, attack, threat, seed)

    def attacked_on(
        self, net: Any, batch: "Loaded", clean: Any, attack: NamedAttack, threat: ThreatModel, seed: int
    ) -> dict[str, np.ndarray]:
        """Return what an attack on a model finds, which may be `net` within something else."""
        found = attack_samples(
            net,
            batch.samples,
            threat=threat,
            attack=attack.name,
            attack_options=attack.options,
            objective=self.objective,
            storage=self._storage,
            seed=seed,
            batch_size=len(batch.ids),
            known_answers=clean,
            places=batch.ids,
            device=batch.device,
        )
        return {
            "attacked": found.attacked,
            **{f"values/{m}": found.samples.modalities[m] for m in net.modalities},
            **{f"edited/{m}": values for m, values in found.edited.items()},
            **{f"linf/{m}": values for m, values in found.linf.items()},
        }

    def rows_of(self, batch: "Loaded", clean: Any, robust: Any, found: Arrays | None) -> list[dict[str, Any]]:
        """Return one row per sample, of JSON values: labels by name, of masks numbers of pixels."""
        rows = []
        for place, index in enumerate(batch.ids.tolist()):
            row: dict[str, Any] = {
                "index": index,
                "group": int(batch.samples.groups[place]),
                "edited": None if found is None else _by_modality(found, "edited", place, int),
                "linf": None if found is None else _by_modality(found, "linf", place, float),
            }
            after = None if robust is None else robust[place]
            rows.append(row | self._told(batch.samples.labels[place], clean[place], after))
        return rows

    @abstractmethod
    def _told(self, truth: Any, clean: Any, robust: Any) -> dict[str, Any]:
        """Return what a row says of one sample's answers."""


@dataclass(frozen=True)
class Loaded:
    """Samples of one batch, their places in the data set, and where the model is."""

    samples: MultiModalSamples
    ids: Int64[np.ndarray, " samples"]
    device: torch.device


@dataclass(frozen=True)
class Classification(SamplesTask):
    """One label for each sample; -1 is not judged. Rows hold the names of classes, and `label`, the true one."""

    name: ClassVar[str] = "classification"
    heading: ClassVar[str] = "Classification"
    explained: ClassVar[str] = "Accuracy: share of samples with the right label."
    headline: ClassVar[tuple[str, ...]] = ("accuracy",)
    masks: ClassVar[bool] = False

    def _told(self, truth: Any, clean: Any, robust: Any) -> dict[str, Any]:
        names = self.data.classes
        return {
            "label": names[truth] if truth >= 0 else None,
            "clean": names[clean],
            "robust": None if robust is None else names[robust],
        }

    @classmethod
    def ratios(cls, rows: Rows, side: str) -> dict[str, Ratio]:
        """Return which judged samples get the right label."""
        right = [row["label"] is not None and row[side] == row["label"] for row in rows]
        judged = [row["label"] is not None for row in rows]
        return {"accuracy": Ratio(np.array(right, np.float64), np.array(judged, np.float64), _groups(rows))}

    def notes(self, rows: Rows, settings: Mapping[str, Any]) -> list[str]:
        """Return how many samples are judged, and what the attack raised."""
        judged = sum(row["label"] is not None for row in rows)
        return [f"{judged:,} samples have a true label and are judged.", *_attack_notes(settings)]


@dataclass(frozen=True)
class Segmentation(SamplesTask):
    """One label for each pixel; -1 is not judged.

    Rows hold numbers of pixels for `clean` and `robust` (`judged`, `right`, `positives`, `hits`, `false_alarms`), and
    `lost`, the pixels that were right before and are wrong under attack.

    Args:
        positive: the class of IoU; default: the second.
    """

    positive: str | None = None

    name: ClassVar[str] = "segmentation"
    heading: ClassVar[str] = "Segmentation"
    explained: ClassVar[str] = "Pixel accuracy, and intersection over union of one class."
    headline: ClassVar[tuple[str, ...]] = ("pixel accuracy", "IoU")
    judged_by: ClassVar[tuple[str, ...]] = ("content", "positive")
    masks: ClassVar[bool] = True

    @property
    def _positive(self) -> int:
        named = {name: index for index, name in enumerate(self.data.classes)}
        return min(1, len(named) - 1) if self.positive is None else lookup(named, self.positive, what="class")

    def check(self, attack: NamedAttack | None, threat: ThreatModel | None) -> None:
        """Refuse also a class that is not there."""
        super().check(attack, threat)
        self._positive  # noqa: B018  raises where there is no such class

    def facts(self, progress: Reporter) -> dict[str, Any]:
        """Return also the class of IoU."""
        return super().facts(progress) | {"positive": self.data.classes[self._positive]}

    def _told(self, truth: Any, clean: Any, robust: Any) -> dict[str, Any]:
        right = (truth >= 0) & (clean == truth)
        return {
            "clean": _pixels(clean, truth, self._positive),
            "robust": None if robust is None else _pixels(robust, truth, self._positive),
            "lost": None if robust is None else int((right & (robust != truth)).sum()),
        }

    @classmethod
    def ratios(cls, rows: Rows, side: str) -> dict[str, Ratio]:
        """Return right pixels of judged ones, and hits of the union of the positive class, by image."""

        def of(number: str) -> np.ndarray:
            return np.array([row[side][number] for row in rows], dtype=np.float64)

        found = {"pixel accuracy": Ratio(of("right"), of("judged"), _groups(rows))}
        if of("positives").any():
            found["IoU"] = Ratio(of("hits"), of("positives") + of("false_alarms"), _groups(rows))
        return found

    def estimates(self, rows: Rows, settings: Mapping[str, Any]) -> dict[str, dict[str, Estimate | None]]:
        """Return all figures; "conditional" of pixels."""
        clean = self.ratios(rows, "clean")
        if settings["attack"] is None:
            return attack_figures(clean)
        right = np.array([row["clean"]["right"] for row in rows], dtype=np.float64)
        lost = Ratio(np.array([row["lost"] for row in rows], dtype=np.float64), right, _groups(rows))
        return attack_figures(clean, self.ratios(rows, "robust"), lost={"pixel accuracy": lost})

    def notes(self, rows: Rows, settings: Mapping[str, Any]) -> list[str]:
        """Return how many pixels are judged, what IoU is of, and what the attack raised."""
        judged = sum(row["clean"]["judged"] for row in rows)
        what = f"{judged:,} pixels have a true label and are judged."
        if any(row["clean"]["positives"] for row in rows):
            what += f" IoU is that of {settings['positive']!r}, over all images together."
        else:
            what += f" There is no pixel of {settings['positive']!r}, so that its IoU is not defined."
        return [what, *_attack_notes(settings)]


def _attack_notes(settings: Mapping[str, Any]) -> list[str]:
    if settings["attack"] is None:
        return []
    raised = settings["objective"]
    aim = "each of its objectives in turn" if raised == STRONGEST else f"the objective {raised}"
    return [
        f"The attack raises {aim}. Budgets of L-inf are shares of a modality's range; what is judged are the values as "
        "they are stored."
    ]


def _groups(rows: Rows) -> np.ndarray:
    return np.array([row["group"] for row in rows])


def _by_modality(found: Arrays, what: str, place: int, kind: type) -> dict[str, Any]:
    start = f"{what}/"
    return {name.removeprefix(start): kind(values[place]) for name, values in found.items() if name.startswith(start)}


def _pixels(
    label: Int64[np.ndarray, "height width"], truth: Int64[np.ndarray, "height width"], positive: int
) -> dict[str, int]:
    """Return the pixel numbers of one answered mask: every pixel counts as certain."""
    return dict(vars(pixel_bounds(label, np.ones(truth.shape, bool), truth, positive=positive)))
