"""Carry a task out batch by batch: answers clean and under every part of a threat, rows kept at once."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from crossguard import __version__
from crossguard.attacks.base import Attack
from crossguard.data import PairBatch
from crossguard.evaluate.asked import row_facts
from crossguard.evaluate.fingerprint import describe
from crossguard.evaluate.kept import check_kept
from crossguard.evaluate.sample_examples import SampleExamples
from crossguard.evaluate.store import AdversarialStore, StoredBatch, open_store
from crossguard.progress import Reporter
from crossguard.runs import RunFolder, as_read_back
from crossguard.threat import ThreatModel

Answer = Mapping[str, Any]
Row = Mapping[str, Any]


@runtime_checkable
class Task(Protocol):
    """What a model is asked sample by sample, such as grounding or captioning."""

    @property
    def kind(self) -> str:
        """Its name: the kind of its summaries, and the beginning of its rows' sections."""
        ...

    @property
    def batches(self) -> Sequence[Int64[np.ndarray, " images"]]:
        """Image indices that are looked at together; together all images once."""
        ...

    def samples_of(self, images: Int64[np.ndarray, " images"]) -> Int64[np.ndarray, " samples"]:
        """Return the indices of a batch's samples."""
        ...

    def load(self, images: Int64[np.ndarray, " images"]) -> PairBatch:
        """Decode a batch, on the CPU."""
        ...

    def answer(
        self, batch: PairBatch, pixels: Float[Tensor, "images 3 height width"], texts: Sequence[str]
    ) -> list[Answer]:
        """Return one answer per sample of the batch, for its own or for adversarial pixels and texts."""
        ...

    def attack(
        self, batch: PairBatch, clean: Sequence[Answer], attack: Attack, threat: ThreatModel, seed: int
    ) -> StoredBatch:
        """Attack a batch whose clean answers are known."""
        ...

    def rows(
        self, batch: PairBatch, clean: Sequence[Answer], robust: Sequence[Answer] | None, found: StoredBatch | None
    ) -> list[dict[str, Any]]:
        """Return one row per sample, with its `index`; `robust` and `found` are None without attack."""
        ...


@dataclass(frozen=True)
class Measurement:
    """What is measured, and where it is kept.

    Args:
        task: the task.
        parts: by what is attacked ("image", "text", "joint", "clean"), its threat; None without attack.
        attack: the attack; None for a clean measurement.
        seed: of the attack.
        label: name of this measurement in tables and in the run.
        facts: model, weights, data, split, content, batch size and the task's own settings.
        run: where rows and adversarial samples are kept; None: nowhere.
        progress: where progress is shown.
    """

    task: Task
    parts: Mapping[str, ThreatModel | None]
    attack: Attack | None
    seed: int
    label: str
    facts: Mapping[str, Any]
    run: RunFolder | None
    progress: Reporter

    def settings(self, part: str) -> dict[str, Any]:
        """Return everything that decides the outcome of a part, as JSON values."""
        threat = self.parts[part]
        values = {
            "label": self.label,
            "part": part,
            **self.facts,
            "attack": None if self.attack is None else self.attack.name,
            "attack_options": {} if self.attack is None else describe(vars(self.attack)),
            "threat": None if threat is None else threat.to_dict(),
            "seed": self.seed,
            "crossguard": __version__,
        }
        return as_read_back(values)

    def section(self, part: str) -> str:
        """Return the place of a part's rows in the run."""
        return f"{self.task.kind}/{self.label}/{part}"


@dataclass
class _Part:
    """One part under way: its settings, where its adversarial samples lie, and its rows so far."""

    name: str
    settings: Mapping[str, Any]
    store: AdversarialStore
    rows: dict[int, Row] = field(default_factory=dict)

    def lacks(self, samples: Int64[np.ndarray, " samples"]) -> bool:
        return any(int(index) not in self.rows for index in samples)


def carry_out(asked: Measurement, *, device: torch.device, stack: ExitStack) -> dict[str, "Carried"]:
    """Measure every part of a task; what a run already holds is not computed again.

    The clean answers of a batch are computed once for all parts. Each part's adversarial samples are stored as soon as
    they are found, rounded to 8 bits as they are judged, and its rows as soon as the batch is judged.

    Args:
        asked: the task and its settings; the model is in evaluation mode.
        device: where to compute.
        stack: closes the temporary stores of a measurement without run; read adversarial samples before.

    Returns:
        By part, its rows in the order of the samples and the store of its adversarial samples.

    Raises:
        ValueError: the run holds this measurement with other settings.
    """
    parts = [_open(asked, name, stack) for name in asked.parts]
    task, total = asked.task, sum(len(images) for images in asked.task.batches)
    told = f" with {asked.attack.name}" if asked.attack is not None else ""
    with asked.progress.task(f"{task.kind.capitalize()} of {asked.label}{told}", total=total * len(parts)) as progress:
        for number, images in enumerate(task.batches):
            samples = task.samples_of(images)
            left = [part for part in parts if part.lacks(samples)]
            progress.advance(len(images) * (len(parts) - len(left)))
            if not left:
                continue
            batch = task.load(images).to(device)
            clean = task.answer(batch, batch.pixels, batch.texts)
            for part in left:
                found = _found(asked, part, batch, clean, number)
                robust = None
                if found is not None:
                    robust = task.answer(batch, found.pixels.to(device), found.texts)
                _keep(asked, part, task.rows(batch, clean, robust, found))
                progress.advance(len(images), note=part.name)
    return {
        part.name: Carried([part.rows[index] for index in sorted(part.rows)], part.settings, part.store)
        for part in parts
    }


@dataclass(frozen=True)
class Carried:
    """What came out of one part.

    Args:
        rows: one per sample, in order.
        settings: what was measured.
        store: the adversarial samples, by number of the batch.
    """

    rows: Sequence[Row]
    settings: Mapping[str, Any]
    store: AdversarialStore


def _open(asked: Measurement, name: str, stack: ExitStack) -> _Part:
    settings = asked.settings(name)
    section = asked.section(name)
    check_kept(asked.run, kind=asked.task.kind, name=f"{asked.label}/{name}", section=section, settings=settings)
    store = stack.enter_context(open_store(asked.run, asked.task.kind, asked.label, name, settings=settings))
    part = _Part(name, settings, store)
    if asked.run is not None:
        part.rows = {row["index"]: row for row in asked.run.rows if row.get("section") == section}
    return part


def _found(
    asked: Measurement, part: _Part, batch: PairBatch, clean: Sequence[Answer], number: int
) -> StoredBatch | None:
    threat = asked.parts[part.name]
    if asked.attack is None or threat is None:
        return None
    stored = part.store.read(number)
    if stored is None:
        stored = asked.task.attack(batch, clean, asked.attack, threat, asked.seed)
        part.store.write(number, stored)
    return stored


def _keep(asked: Measurement, part: _Part, rows: Sequence[Mapping[str, Any]]) -> None:
    common = row_facts(part.settings)
    whole = [{"section": asked.section(part.name), **row, **common} for row in rows]
    if asked.run is not None:
        asked.run.rows.append(*(row for row in whole if row["index"] not in part.rows))
    part.rows |= {row["index"]: row for row in whole if row["index"] not in part.rows}


def keep_examples(asked: Measurement, part: str, make: Callable[[], SampleExamples]) -> SampleExamples | None:
    """Return the examples that a run already holds, or make them and keep them there; None where there are none."""
    if asked.run is None:
        shown = make()
        return shown if shown.examples else None
    path = asked.run.file("examples", asked.task.kind, asked.label, f"{part}.npz")
    known = kept_summary(asked, part).get("examples")
    if known:
        try:
            return SampleExamples.load(known, path)
        except ValueError:
            pass  # made again below
    shown = make()
    if not shown.examples:
        return None
    shown.save_pictures(path)
    return shown


def kept_summary(asked: Measurement, part: str) -> Mapping[str, Any]:
    """Return what the run has summarised of a part; empty where there is nothing."""
    if asked.run is None:
        return {}
    found: Mapping[str, Any] = asked.run.summary.get(asked.task.kind, {}).get(f"{asked.label}/{part}", {})
    return found


def keep_summary(asked: Measurement, part: str, summary: Mapping[str, Any]) -> None:
    """Put a part's summary into the run, if there is one."""
    if asked.run is not None:
        asked.run.summarise(asked.task.kind, f"{asked.label}/{part}", summary)
