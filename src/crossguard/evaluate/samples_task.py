"""`evaluate_samples`: classifiers and segmenters of sensors and scenes, clean and under attack, batch by batch."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from torch import nn

from crossguard import __version__
from crossguard.attacks.base import frozen
from crossguard.attacks.goals import STRONGEST, objectives_of
from crossguard.attacks.samples import AttackedSamples, attack_samples, make_sample_attack
from crossguard.attacks.storage import Storage, check_stored, storages
from crossguard.attacks.victims import Plain
from crossguard.certify.pixel_metrics import pixel_bounds
from crossguard.checks import WrongKind, lookup
from crossguard.data import MultiModalSamples
from crossguard.evaluate.asked import part_name, parts_of, row_facts
from crossguard.evaluate.features import on_device
from crossguard.evaluate.fingerprint import samples_fingerprint, weights_fingerprint
from crossguard.evaluate.kept import refuse_differences
from crossguard.evaluate.samples_result import SamplesResult
from crossguard.models.base import MultiModalClassifier, MultiModalSegmenter
from crossguard.models.inputs import input_arrays, input_tensor
from crossguard.progress import Reporter, Silent
from crossguard.runs import RunFolder, as_read_back, write_json
from crossguard.threat import ThreatModel

_SILENT = Silent()


def evaluate_samples(
    model: MultiModalClassifier | MultiModalSegmenter,
    samples: MultiModalSamples,
    *,
    attack: str | None = None,
    attack_options: Mapping[str, Any] | None = None,
    threat: ThreatModel | None = None,
    modalities: bool = True,
    objective: str = STRONGEST,
    positive: str | None = None,
    storage: Mapping[str, Storage] | None = None,
    seed: int = 0,
    batch_size: int = 64,
    label: str | None = None,
    run: RunFolder | None = None,
    progress: Reporter = _SILENT,
    device: torch.device | str | None = None,
) -> dict[str, SamplesResult]:
    """Measure a classifier or segmenter, clean and with each modality alone and all of them under attack.

    The clean answers of a batch are computed once for all parts. What an attack finds is judged in the samples' own
    storage types (see `attack_samples`). With a `run`, the rows of each batch are kept at once; calling again with the
    same arguments goes on where it stopped, and returns a finished evaluation from its rows.

    Args:
        model: a model of several modalities.
        samples: with one label each, or a mask; -1 is not judged.
        attack: "adaptive", "pgd", "sparse", ... or None to measure clean only.
        attack_options: the attack's own options.
        threat: budgets by modality; needed with `attack`.
        modalities: also attack each modality alone.
        objective: what the attack raises, see `attack_samples`.
        positive: of masks, the class of IoU; default: the second.
        storage: range and step of modalities that `Storage.of` would not guess from the data.
        seed: of the attack.
        batch_size: samples that are attacked together.
        label: name of this measurement in tables and in the run; default: the model's name.
        run: where rows and summary go.
        progress: where progress is shown.
        device: where to compute; None: where the model is.

    Returns:
        By what is attacked (a modality's name, "joint"; "clean" without attack), its figures and rows.

    Raises:
        WrongKind: the model is no classifier or segmenter of several modalities, or no module.
        ValueError: an unknown attack, option, objective, modality or class; a threat without an attack or the reverse;
            a budget that the attack cannot work within; samples of other classes than the model's; nothing judged; or a
            run begun with other settings.
    """
    values = input_arrays(model, samples)
    if not isinstance(model, nn.Module):
        raise WrongKind(f"Expected the model to be a torch.nn.Module, but got {type(model).__name__}.")
    masks = samples.labels.ndim > 1
    if not (samples.labels >= 0).any() or batch_size < 1:
        raise ValueError(
            f"Expected samples with labels and `batch_size` >= 1, but got {int((samples.labels >= 0).sum())} labels in "
            f"{samples.name} ({samples.split}) and {batch_size}."
        )
    if positive is not None and not masks:
        raise ValueError(f"Expected no `positive` class for samples of one label each, but got {positive!r}.")
    how: dict[str, Storage] = {}
    if attack is None:
        check_stored(model.modalities, storage)
    else:
        how = storages(values, model.modalities, storage)
    _check_attack(attack, attack_options, threat, objective, model.modalities, how, masks=masks)
    named = {name: index for index, name in enumerate(samples.classes)}
    chosen = min(1, len(named) - 1) if positive is None else lookup(named, positive, what="class")
    parts = {"clean": None} if not threat else parts_of(threat) if modalities else {part_name(threat): threat}
    facts = {
        "kind": "segmentation" if masks else "classification",
        "label": label or model.name,
        "model": model.name,
        "weights": weights_fingerprint(model),
        "data": samples.name,
        "split": samples.split,
        "content": samples_fingerprint(samples),
        "positive": samples.classes[chosen] if masks else None,
        "attack": attack,
        "attack_options": dict(attack_options or {}),
        "objective": objective if attack else None,
        "storage": {m: vars(stored) for m, stored in how.items()} if attack else None,
        "seed": seed,
        "crossguard": __version__,
    }
    asked = [_Part(name, limits, facts, run) for name, limits in parts.items()]
    told = f" with {attack}" if attack else ""
    total = len(samples) * len(asked)
    with (
        on_device(model, device) as where,
        frozen(model),
        progress.task(f"{str(facts['kind']).capitalize()} of {facts['label']}{told}", total=total) as task,
    ):
        for start in range(0, len(samples), batch_size):
            ids = np.arange(start, min(start + batch_size, len(samples)))
            left = [part for part in asked if part.lacks(ids)]
            task.advance(len(ids) * (len(asked) - len(left)))
            if not left:
                continue
            batch = samples.select(ids)
            answers = _answers(model, batch, ids, where)
            for part in left:
                found = None
                if attack is not None and part.threat is not None:
                    found = attack_samples(
                        model,
                        batch,
                        threat=part.threat,
                        attack=attack,
                        attack_options=attack_options,
                        objective=objective,
                        storage=how,
                        seed=seed,
                        batch_size=batch_size,
                        known_answers=answers,
                        places=ids,
                        device=where,
                    )
                part.keep(_rows(batch, ids, answers, found, positive=chosen))
                task.advance(len(ids), note=part.name)
    return {part.name: part.result() for part in asked}


class _Part:
    """What one threat gives: its settings, and its rows so far, those of the run among them."""

    def __init__(self, name: str, threat: ThreatModel | None, facts: Mapping[str, Any], run: RunFolder | None) -> None:
        self.name, self.threat, self.run = name, threat, run
        values = {**facts, "part": name, "threat": None if threat is None else threat.to_dict()}
        self.settings = as_read_back(values)
        self.section = f"{facts['kind']}/{facts['label']}/{name}"
        self.rows: dict[int, Mapping[str, Any]] = {}
        if run is None:
            return
        path = run.file("samples", str(facts["label"]), f"{name}.json")
        if path.exists():
            refuse_differences(json.loads(path.read_text(encoding="utf-8")), self.settings, where=path)
        write_json(path, self.settings)
        self.rows = {row["sample"]: row for row in run.rows if row.get("section") == self.section}

    def lacks(self, ids: Int64[np.ndarray, " samples"]) -> bool:
        return any(int(index) not in self.rows for index in ids)

    def keep(self, rows: Sequence[Mapping[str, Any]]) -> None:
        common = row_facts(self.settings)
        new = [{"section": self.section, **row, **common} for row in rows if row["sample"] not in self.rows]
        if self.run is not None:
            self.run.rows.append(*new)
        self.rows |= {int(row["sample"]): row for row in new}

    def result(self) -> SamplesResult:
        rows = [self.rows[index] for index in sorted(self.rows)]
        found = SamplesResult(rows, self.settings)
        if self.run is not None:
            self.run.summarise(found.kind, f"{self.settings['label']}/{self.name}", found.summary())
        return found


def _check_attack(
    attack: str | None,
    options: Mapping[str, Any] | None,
    threat: ThreatModel | None,
    objective: str,
    modalities: tuple[str, ...],
    how: Mapping[str, Storage],
    *,
    masks: bool,
) -> None:
    objectives_of(objective, masks=masks)
    if attack is None:
        if threat or options:
            raise ValueError(f"Expected an attack for the threat and the options, but got {threat} and {options}.")
        return
    words = {m: stored.sizes for m, stored in how.items() if stored.symbols}
    make_sample_attack(attack, options, threat or ThreatModel(), modalities=modalities, words=words, masks=masks)


@torch.no_grad()
def _answers(
    model: Any, batch: MultiModalSamples, ids: Int64[np.ndarray, " samples"], device: torch.device
) -> Int64[np.ndarray, "samples ..."]:
    inputs = {m: input_tensor(batch.modalities[m], device) for m in model.modalities}
    answers = Plain(model).decide(inputs, torch.from_numpy(ids).to(device)).cpu().numpy()
    if answers.shape != batch.labels.shape:
        raise ValueError(
            f"Expected answers of shape {batch.labels.shape} (as labels), but {model.name} gives {answers.shape}."
        )
    return np.asarray(answers)


def _rows(
    batch: MultiModalSamples,
    ids: Int64[np.ndarray, " samples"],
    answers: Int64[np.ndarray, "samples ..."],
    found: AttackedSamples | None,
    *,
    positive: int,
) -> list[dict[str, Any]]:
    """Return one row per sample, of JSON values: labels by name, of masks numbers of pixels."""
    rows = []
    for i, place in enumerate(ids):
        truth = batch.labels[i]
        row: dict[str, Any] = {
            "sample": int(place),
            "group": int(batch.groups[i]),
            "edited": None if found is None else {m: int(values[i]) for m, values in found.edited.items()},
            "linf": None if found is None else {m: float(values[i]) for m, values in found.linf.items()},
        }
        attacked = None if found is None else found.attacked[i]
        if truth.ndim == 0:
            row |= {
                "label": batch.classes[truth] if truth >= 0 else None,
                "clean": batch.classes[answers[i]],
                "robust": None if attacked is None else batch.classes[attacked],
            }
        else:
            right = (truth >= 0) & (answers[i] == truth)
            row |= {
                "clean": _pixels(answers[i], truth, positive),
                "robust": None if attacked is None else _pixels(attacked, truth, positive),
                "lost": None if attacked is None else int((right & (attacked != truth)).sum()),
            }
        rows.append(row)
    return rows


def _pixels(
    label: Int64[np.ndarray, "height width"], truth: Int64[np.ndarray, "height width"], positive: int
) -> dict[str, int]:
    """Return the pixel numbers of one answered mask: every pixel counts as certain."""
    return dict(vars(pixel_bounds(label, np.ones(truth.shape, bool), truth, positive=positive)))
