"""`attack_samples`: adversarial samples of sensors and scenes, measured on what can be stored."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor

from crossguard.attacks.ball import ball_of
from crossguard.attacks.base import Attack
from crossguard.attacks.goals import STRONGEST, Goal, objectives_of
from crossguard.attacks.parts import Part, Parts, as_elements, as_pictures, block_of, from_elements
from crossguard.attacks.storage import Storage, storages
from crossguard.attacks.table import make_attack
from crossguard.attacks.victims import Plain, Victim, frozen_network
from crossguard.checks import lookup
from crossguard.data.samples import MultiModalSamples
from crossguard.models.base import MultiModalClassifier, MultiModalSegmenter
from crossguard.models.inputs import input_arrays, input_tensor
from crossguard.models.plain_torch import plain_torch
from crossguard.progress import Reporter, Silent
from crossguard.threat import L2, Budget, Elements, LInf, ThreatModel


@runtime_checkable
class SampleAttack(Protocol):
    """An `Attack` that also attacks sensors and scenes.

    Attributes:
        masks: whether it attacks segmenters.
    """

    masks: bool

    def run_samples(self, goal: Goal) -> Parts:
        """Return adversarial parts of a batch."""
        ...


@dataclass(frozen=True)
class AttackedSamples:
    """What an attack found, and what the victim answers, before and after, to samples in their storage type.

    Args:
        clean: the samples as they were.
        samples: the adversarial ones, of the same types.
        answers: int64 [samples] or [samples, height, width], the labels answered to the clean samples.
        attacked: the labels answered to the adversarial ones.
        edited: int64 [samples] per modality, elements with a changed value.
        linf: float64 [samples] per modality, largest change as a share of the modality's range.
        settings: victim, attack, options, threat, seed, storage, objective.
        l2: float64 [samples] per modality with a budget in L2: norm of the change, as shares of the modality's range.
    """

    clean: MultiModalSamples
    samples: MultiModalSamples
    answers: Int64[np.ndarray, "samples ..."]
    attacked: Int64[np.ndarray, "samples ..."]
    edited: Mapping[str, Int64[np.ndarray, " samples"]]
    linf: Mapping[str, Float[np.ndarray, " samples"]]
    settings: Mapping[str, Any]
    l2: Mapping[str, Float[np.ndarray, " samples"]]

    @cached_property
    def judged(self) -> Bool[np.ndarray, "samples ..."]:
        """Where there is a true label."""
        return np.asarray(self.clean.labels >= 0)

    @property
    def clean_accuracy(self) -> float:
        """Share of judged labels that are right before the attack, in [0, 1]."""
        return self._share(self.answers)

    @property
    def robust_accuracy(self) -> float:
        """Share of judged labels that are right under attack, in [0, 1]."""
        return self._share(self.attacked)

    @cached_property
    def success(self) -> Float[np.ndarray, " samples"]:
        """Share of each sample's right labels that are wrong under attack, in [0, 1]; NaN where none was right."""
        right = self.judged & (self.answers == self.clean.labels)
        lost = right & (self.attacked != self.clean.labels)
        counts = right.reshape(len(right), -1).sum(axis=1)
        return np.divide(
            lost.reshape(len(lost), -1).sum(axis=1), counts, out=np.full(len(counts), np.nan), where=counts > 0
        )

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per sample, of plain JSON values; labels by name, of scenes shares of right pixels."""
        classes, truth = self.clean.classes, self.clean.labels
        rows = []
        for i in range(len(truth)):
            row: dict[str, Any] = {
                "data": self.clean.name,
                "split": self.clean.split,
                "sample": i,
                "group": int(self.clean.groups[i]),
                **{key: self.settings[key] for key in ("model", "attack", "threat", "seed")},
                "edited": {m: int(values[i]) for m, values in self.edited.items()},
                "linf": {m: float(values[i]) for m, values in self.linf.items()},
                **({"l2": {m: float(values[i]) for m, values in self.l2.items()}} if self.l2 else {}),
                "success": None if np.isnan(self.success[i]) else float(self.success[i]),
            }
            if truth.ndim == 1:
                row |= {
                    "label": classes[truth[i]] if truth[i] >= 0 else None,
                    "clean": classes[self.answers[i]],
                    "attacked": classes[self.attacked[i]],
                }
            else:
                judged = self.judged[i]
                row |= {
                    name: float((labels[i] == truth[i])[judged].mean()) if judged.any() else None
                    for name, labels in (("clean", self.answers), ("attacked", self.attacked))
                }
            rows.append(row)
        return rows

    def _share(self, labels: np.ndarray) -> float:
        if not self.judged.any():
            raise ValueError("Expected samples with labels to speak of accuracy, but all are -1.")
        return float((labels == self.clean.labels)[self.judged].mean())


@plain_torch()
def attack_samples(
    model: MultiModalClassifier | MultiModalSegmenter | Victim,
    samples: MultiModalSamples,
    *,
    threat: ThreatModel,
    attack: str = "adaptive",
    attack_options: Mapping[str, Any] | None = None,
    objective: str = STRONGEST,
    storage: Mapping[str, Storage] | None = None,
    seed: int = 0,
    batch_size: int = 64,
    rows_per_forward: int = 4096,
    known_answers: Int64[np.ndarray, "samples ..."] | None = None,
    places: Int64[np.ndarray, " samples"] | None = None,
    device: torch.device | str = "cpu",
    progress: Reporter | None = None,
) -> AttackedSamples:
    """Attack a classifier or segmenter of several modalities, all of them at once.

    Budgets are per modality: `LInf(eps)` and `L2(eps)`, where values are shares of the modality's range (of pixels, the
    usual [0, 1] units); `Elements(r)`, where an element is a pixel across its channels, a time step, or a feature, and
    takes any values in range; `Patch(height, width)`, a rectangle of pixels, or of `width` time steps. What is found is
    rounded to what can be stored, and judged as that, also between the runs of an attack: the most lost of each sample
    is kept, by the lead of the best wrong label, or by the share of wrong pixels. A sample whose answer was already
    wrong is attacked like any other, but by "auto-attack" and its parts. Results depend on (seed, the sample's place)
    alone, not on the batch.

    Args:
        model: a model, or a `Victim` such as `certify.Smoothed`.
        samples: what to attack; not changed. Samples without a label are left clean.
        threat: budgets by modality.
        attack: "adaptive", "pgd", "apgd", "auto-attack", "sparse", ... (those of the table with `samples`).
        attack_options: the attack's own options.
        objective: what is raised: "strongest", all in turn; or one of `goals.OBJECTIVES`. "auto-attack" and its parts
            have their own.
        storage: range and step of modalities that `Storage.of` would not guess from the data.
        seed: of random starts and contents.
        batch_size: samples that climb together.
        rows_per_forward: inputs of one forward pass where a sparse attack tries elements.
        known_answers: what the victim answers to the clean samples, where an earlier call has asked it already.
        places: the samples' places in the data set that they were taken from; default: 0, 1, 2, ... With these and the
            `storage` of that data set, a part of it is attacked as the whole is.
        device: where to compute; the model is moved there.
        progress: where progress is shown.

    Raises:
        WrongKind: the model is no classifier or segmenter of several modalities.
        ValueError: an unknown attack, option, objective or modality, a budget or a task that the attack cannot work
            with, samples of other classes than the model's, or no samples.
    """
    victim: Victim = model if isinstance(model, Victim) else Plain(model)
    values = input_arrays(victim, samples)
    if not len(samples) or batch_size < 1 or rows_per_forward < 1:
        raise ValueError(
            f"Expected samples, `batch_size` >= 1 and `rows_per_forward` >= 1, but got {len(samples)}, {batch_size} "
            f"and {rows_per_forward}."
        )
    how = storages(values, victim.modalities, storage)
    words = {m: stored.sizes for m, stored in how.items() if stored.symbols}
    masks = samples.labels.ndim > 1
    objectives = objectives_of(objective, masks=masks)
    search = make_sample_attack(attack, attack_options, threat, modalities=victim.modalities, words=words, masks=masks)
    if isinstance(victim.module, torch.nn.Module):
        victim.module.to(device)
    if places is None:
        places = np.arange(len(samples))
    elif len(places) != len(samples):
        raise ValueError(f"Expected {len(samples)} places (as samples), but got {len(places)}.")
    job = _Job(victim, samples, places, how, words, threat, search, objectives, seed, device, rows_per_forward)
    found: dict[str, list[np.ndarray]] = {m: [] for m in values}
    answers: list[np.ndarray] = []
    attacked: list[np.ndarray] = []
    title = f"Attack {victim.name} with {attack}"
    with frozen_network(victim.module), (progress or Silent()).task(title, total=len(samples)) as task:
        for start in range(0, len(samples), batch_size):
            ids = np.arange(start, min(start + batch_size, len(samples)))
            adversarial = job.attack(ids)
            for modality, part in adversarial.items():
                found[modality].append(part)
            if known_answers is None:
                answers.append(job.decide({m: values[m][ids] for m in values}, ids))
            else:
                answers.append(known_answers[ids])
            still = all((part == values[m][ids]).all() for m, part in adversarial.items())
            attacked.append(answers[-1] if still else job.decide(adversarial, ids))
            task.advance(len(ids))
    return job.result(
        {m: np.concatenate(parts) for m, parts in found.items()},
        np.concatenate(answers),
        np.concatenate(attacked),
        settings={
            "model": victim.name,
            "attack": attack,
            "attack_options": dict(attack_options or {}),
            "objective": objective,
            "threat": threat.to_dict(),
            "storage": {m: vars(stored) for m, stored in how.items()},
            "seed": seed,
        },
    )


def make_sample_attack(
    name: str,
    options: Mapping[str, Any] | None,
    threat: Mapping[str, Budget],
    *,
    modalities: tuple[str, ...],
    words: Mapping[str, int],
    masks: bool,
) -> SampleAttack:
    """Build an attack on samples by its name, and refuse what it cannot work with.

    Raises:
        ValueError: an unknown name or option, a value out of range, an attack on pairs alone or on labels alone, no
            budget, an unknown modality, a type of budget that the attack does not take, or small changes of words.
    """
    attack: Attack = make_attack(name, **(options or {}))
    if not isinstance(attack, SampleAttack):
        raise ValueError(f"Expected an attack on samples, such as 'adaptive', but {name!r} needs images and texts.")
    if masks and not attack.masks:
        raise ValueError(
            f"Expected an attack on masks for a segmenter, such as 'adaptive', but {name!r} attacks labels of whole "
            "samples."
        )
    if not threat:
        raise ValueError("Expected a budget for at least one modality, but the threat model has none.")
    for modality, budget in threat.items():
        lookup(dict.fromkeys(modalities), modality, what="modality in the threat model")
        attack.check_budget(modality, budget, attack.takes["image"])
        if modality in words and not (getattr(attack, "symbols", False) and isinstance(budget, Elements)):
            raise ValueError(
                f"Expected Elements as the budget of {modality!r}, whose values are words, and attack 'sparse', but "
                f"got {budget!r} and {name!r}."
            )
    return attack


@dataclass(frozen=True)
class _Job:
    victim: Victim
    samples: MultiModalSamples
    places: Int64[np.ndarray, " samples"]
    storage: Mapping[str, Storage]
    words: Mapping[str, int]
    threat: ThreatModel
    search: SampleAttack
    objectives: tuple[str, ...]
    seed: int
    device: torch.device | str
    rows_per_forward: int

    def attack(self, ids: Int64[np.ndarray, " chosen"]) -> dict[str, np.ndarray]:
        """Return adversarial values of the chosen samples, in their storage types."""
        source = {m: self.samples.modalities[m][ids] for m in self.storage}
        places = torch.from_numpy(self.places[ids]).to(self.device)
        truth = torch.from_numpy(self.samples.labels[ids]).to(self.device)
        clean = {m: self._parts(m, values) for m, values in source.items()}
        found = self.search.run_samples(self._goal(truth, places, source, clean))
        labelled = (truth >= 0).reshape(len(truth), -1).any(dim=1)
        return {m: self._stored(m, found[m], clean[m], source[m], labelled) for m in source}

    @torch.no_grad()
    def decide(
        self, values: Mapping[str, np.ndarray], ids: Int64[np.ndarray, " chosen"]
    ) -> Int64[np.ndarray, "chosen ..."]:
        """Ask the victim about stored values."""
        inputs = {m: input_tensor(v, self.device) for m, v in values.items()}
        return self.victim.decide(inputs, torch.from_numpy(self.places[ids]).to(self.device)).cpu().numpy()

    def result(
        self,
        found: Mapping[str, np.ndarray],
        answers: Int64[np.ndarray, "samples ..."],
        attacked: Int64[np.ndarray, "samples ..."],
        *,
        settings: Mapping[str, Any],
    ) -> AttackedSamples:
        """Measure what was found; leaving the budget is a defect of the attack and raises."""
        edited, linf, l2 = {}, {}, {}
        for m, values in found.items():
            source = self.samples.modalities[m]
            edited[m] = changed_elements(source, values)
            change = values.astype(np.float64) - source.astype(np.float64)
            change /= self.storage[m].high - self.storage[m].low
            flat = np.abs(change).reshape(len(change), -1)
            linf[m] = flat.max(axis=1)
            budget = self.threat.get(m, LInf(0.0))
            if isinstance(budget, L2):
                l2[m] = np.linalg.norm(flat, axis=1)
            picture = as_pictures(torch.from_numpy(change))
            if not (ball_of(budget, torch.zeros_like(picture)).holds(picture) or (change == 0).all()):
                raise AssertionError(f"An attack left its budget of {m!r}: {edited[m].max()}, {linf[m].max():.4g}.")
        modalities = {**self.samples.modalities, **found}
        return AttackedSamples(
            clean=self.samples,
            samples=replace(self.samples, modalities=modalities),
            answers=answers.astype(np.int64),
            attacked=attacked.astype(np.int64),
            edited=edited,
            linf=linf,
            settings=settings,
            l2=l2,
        )

    def _parts(self, modality: str, values: np.ndarray) -> Part:
        return as_elements(torch.from_numpy(self.storage[modality].scaled(values)).to(self.device))

    def _goal(
        self,
        truth: Int64[Tensor, "samples ..."],
        ids: Int64[Tensor, " samples"],
        source: Mapping[str, np.ndarray],
        clean: Mapping[str, Part],
    ) -> Goal:
        shapes = {m: tuple(values.shape[1:]) for m, values in source.items()}
        labelled = (truth >= 0).reshape(len(truth), -1).any(dim=1)

        def ask(parts: Mapping[str, Part], rows: Int64[Tensor, " rows"]) -> Float[Tensor, "rows labels ..."]:
            inputs = {}
            for modality, part in parts.items():
                stored = self.storage[modality]
                inputs[modality] = stored.low + from_elements(part, shapes[modality]) * (stored.high - stored.low)
            return self.victim.log_probabilities(inputs, ids[rows])

        def settle(parts: Mapping[str, Part], rows: Int64[Tensor, " rows"]) -> Parts:
            here = rows.cpu().numpy()
            return {
                m: self._parts(m, self._stored(m, part, clean[m][rows], source[m][here], labelled[rows]))
                for m, part in parts.items()
            }

        return Goal(
            ask=ask,
            truth=truth,
            settle=settle,
            objectives=self.objectives,
            clean=clean,
            budgets=dict(self.threat),
            blocks={m: block_of(shape) for m, shape in shapes.items()},
            ids=ids,
            seed=self.seed,
            words=self.words,
            rows_per_forward=max(1, self.rows_per_forward // self.victim.passes),
        )

    def _stored(
        self, modality: str, found: Part, clean: Part, source: np.ndarray, labelled: Bool[Tensor, " samples"]
    ) -> np.ndarray:
        shape = tuple(source.shape[1:])
        moved = from_elements((found != clean) & labelled[:, None, None], shape).cpu().numpy()
        budget = self.threat.get(modality)
        return self.storage[modality].stored(
            from_elements(found, shape).detach().cpu().numpy(),
            source,
            moved=moved,
            eps=budget.eps if isinstance(budget, LInf) else None,
            inwards=isinstance(budget, L2),
        )


def changed_elements(
    source: Shaped[np.ndarray, "samples ..."], values: Shaped[np.ndarray, "samples ..."]
) -> Int64[np.ndarray, " samples"]:
    """Return how many elements of each sample differ in any of their values."""
    differ = source != values
    differ = differ.any(axis=1) if differ.ndim == 4 else differ.reshape(*differ.shape[:2], -1).any(axis=2)
    return differ.reshape(len(differ), -1).sum(axis=1).astype(np.int64)
