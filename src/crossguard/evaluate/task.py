"""`Task`: what a model is asked, sample by sample, and how it is attacked and counted; and the table of tasks."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

import torch

from crossguard.attacks.base import Attack
from crossguard.attacks.table import make_attack
from crossguard.checks import nearest
from crossguard.evaluate.examples import Example
from crossguard.evaluate.fingerprint import describe
from crossguard.evaluate.result import section_of
from crossguard.evaluate.statistics import Estimate, Ratio, attack_figures
from crossguard.evaluate.store import Arrays, Ids, Store
from crossguard.progress import Reporter
from crossguard.threat import ThreatModel
from crossguard.world import ALONE, World

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Task(ABC):
    """A model, data, and a question that the model is asked about every sample.

    A task of one's own is a frozen dataclass that derives from this; its further fields are its options, which
    `evaluate` takes as keywords and recipes under `options`. `register_task` makes it known by its name.

    Args:
        model: in evaluation mode while it is asked.
        data: all of it is asked.
        batch_size: images or samples that are looked at, and attacked, together.

    Attributes:
        name: its name in the table, in recipes and in runs.
        heading: what it is called in reports.
        explained: what its metrics say, in a sentence for reports.
        headline: the metrics that tables and pictures show first.
        judged_by: settings (or words for reports) that decide which answers are right: models are compared sample by
            sample where they have these in common.
        default_batch_size: where none is asked for.
        reads: what kind of data sets of the table it takes: "pairs", "images", "samples", "expressions" or
            "questions".
        models: what kinds of models of the table it asks: "vision-language", "captioner", "classifier", "segmenter".
        of_samples: whether it is attacked as classifiers and segmenters are, rather than as images with texts.
    """

    model: Any
    data: Any
    batch_size: int

    name: ClassVar[str]
    heading: ClassVar[str]
    explained: ClassVar[str] = ""
    headline: ClassVar[tuple[str, ...]]
    judged_by: ClassVar[tuple[str, ...]] = ("content",)
    default_batch_size: ClassVar[int] = 64
    reads: ClassVar[str] = "pairs"
    models: ClassVar[tuple[str, ...]] = ("vision-language",)
    of_samples: ClassVar[bool] = False

    @classmethod
    @abstractmethod
    def fits(cls, model: object, data: object) -> bool:
        """Return whether this is what one would ask such a model about such data."""

    @classmethod
    def prepare(cls, data: Any) -> Any:
        """Return data as the task takes them, from any other form that it can read."""
        return data

    @abstractmethod
    def check(self, attack: Any, threat: ThreatModel | None) -> None:
        """Refuse a model, data, options, an attack or a threat that do not go together, before any work.

        Raises:
            WrongKind, ValueError: what was expected and what came.
        """

    @classmethod
    def make_attack(cls, name: str, options: Mapping[str, Any]) -> Any:
        """Return an attack of the table by its name."""
        return make_attack(name, **options)

    @abstractmethod
    def facts(self, progress: Reporter) -> dict[str, Any]:
        """Return what decides the outcome beside the attack, as JSON values: `content` (the fingerprint
        of the data), `data_notes`, and the task's options."""

    def attack_facts(self, attack: Any) -> dict[str, Any]:
        """Return the options of an attack that decide the outcome, and what the task adds to them."""
        return {"attack_options": {} if attack is None else describe(vars(attack))}

    @property
    @abstractmethod
    def batches(self) -> Sequence[Ids]:
        """Indices of images or samples that are looked at together; together all of them, each once."""

    @property
    def size(self) -> int:
        """How many images or samples there are."""
        return sum(map(len, self.batches))

    @property
    @abstractmethod
    def rows(self) -> int:
        """How many rows a finished part has."""

    @property
    @abstractmethod
    def samples(self) -> str:
        """What there is of the data, in words ("112 images and 140 texts")."""

    def about(self) -> dict[str, Any]:
        """Return the words of reports, as JSON values."""
        return {
            "heading": self.heading,
            "explained": self.explained,
            "headline": list(self.headline),
            "samples": self.samples,
        }

    @abstractmethod
    def carry_out(self, asked: "Asked", parts: Sequence["Part"]) -> None:
        """Attack and ask whatever the parts lack, and keep each row at once.

        Of several processes each carries out its part of the batches, and the main one keeps the rows of all.
        """

    @classmethod
    def key(cls, row: Mapping[str, Any]) -> Any:
        """Return what tells a row from the others of its part; rows stand in its order."""
        return int(row["index"])

    @classmethod
    @abstractmethod
    def ratios(cls, rows: Rows, side: str) -> dict[str, Ratio]:
        """Return, by metric, what of the rows is right on a side ("clean", "robust", or one of `sides`), in groups."""

    @property
    def sides(self) -> tuple[str, ...]:
        """Sides beside "clean" and "robust" that rows under attack have."""
        return ()

    def estimates(self, rows: Rows, settings: Mapping[str, Any]) -> dict[str, dict[str, Estimate | None]]:
        """Return all figures of rows with their intervals, by what they are and metric."""
        clean = self.ratios(rows, "clean")
        if settings["attack"] is None:
            return attack_figures(clean)
        found = attack_figures(clean, self.ratios(rows, "robust"))
        more = {side: {m: ratio.figure() for m, ratio in self.ratios(rows, side).items()} for side in self.sides}
        return {"clean": found.pop("clean"), "robust": found.pop("robust"), **more, **found}

    def figures(
        self, rows: Rows, settings: Mapping[str, Any]
    ) -> tuple[Mapping[str, Mapping[str, Estimate | None]], dict[str, Any]]:
        """Return all figures of rows, and what else a report is to know of them, as JSON values."""
        return self.estimates(rows, settings), {}

    def current(self, entry: Mapping[str, Any]) -> bool:
        """Return whether the figures of a finished summary are all that can be had by now."""
        return True

    def examples(self, rows: Rows, part: "Part", *, count: int) -> tuple[Example, ...]:
        """Return up to `count` examples; chosen without looking at how the attack ends."""
        return ()

    def warnings(self, attack: Any, threat: ThreatModel | None) -> list[str]:
        """Return signs that the figures say less than they seem to."""
        return []

    def notes(self, rows: Rows, settings: Mapping[str, Any]) -> list[str]:
        """Return what a reader of the figures should know."""
        return []

    def save(self, folder: Path, part: "Part | None", *, threat: ThreatModel) -> None:
        """Write what the attack found to a new folder, to be taken to other models; once without a part, to see
        whether that can be done.

        Raises:
            ValueError: it cannot.
        """
        raise ValueError(
            f"Expected no `save_to` for the task {self.name!r}, whose adversarial samples stay in the run."
        )


@dataclass(frozen=True)
class Asked:
    """What an evaluation shares among its parts.

    Args:
        seed: of attacks.
        device: where to compute.
        progress: where it is shown.
        world: the processes that share the batches.
    """

    seed: int
    device: torch.device
    progress: Reporter
    world: World = ALONE


@dataclass
class Part:
    """One attack within one threat, or no attack, under way.

    Args:
        label: name of the measurement in tables and in the run.
        part: what is attacked: a modality's name, "joint", or "clean".
        attack: None without.
        threat: None without attack.
        settings: all that decides the outcome.
        store: what the attack found, batch by batch.
        rows: those that a run holds already, by index or (direction, index).
        append: keeps new rows; in all but the main one of several processes it does nothing.
        scratch: where the run keeps what is dear and not yet finished; None without a run.
    """

    label: str
    part: str
    attack: Any
    threat: ThreatModel | None
    settings: Mapping[str, Any]
    store: Store
    rows: dict[Any, Mapping[str, Any]]
    append: Callable[[Rows], None]
    scratch: Path | None = None

    @property
    def ordered(self) -> Rows:
        """The rows in order."""
        return [self.rows[key] for key in sorted(self.rows)]

    def keep(self, rows: Rows, key: Callable[[Mapping[str, Any]], Any]) -> None:
        """Keep the rows that are not there yet, each with what it is a row of."""
        facts = row_facts(self.settings)
        new = [{**facts, **row} for row in rows if key(row) not in self.rows]
        if new:
            self.append(new)
            self.rows |= {key(row): row for row in new}

    def take_rows(self, key: Callable[[Mapping[str, Any]], Any]) -> None:
        """Keep the rows that several processes left beside what was found, and clear them away."""
        left = self.store.rows()
        if left:
            self.keep(left, key)
            self.store.clear_rows()


def row_facts(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what every row says of its measurement, so that rows can be read without it."""
    return {"section": section_of(settings)} | {
        k: settings[k] for k in ("model", "data", "split", "attack", "threat", "seed")
    }


@dataclass(frozen=True)
class SampleTask(Task):
    """A task whose samples are answered one batch at a time."""

    @abstractmethod
    def samples_of(self, ids: Ids) -> Ids:
        """Return the indices of the rows that a batch gives."""

    @abstractmethod
    def load_batch(self, ids: Ids, device: torch.device) -> Any:
        """Return a batch, on the device."""

    @abstractmethod
    def answer(self, batch: Any, found: Arrays | None) -> Any:
        """Return the answers for the batch as it is, or for what an attack found; `attack` and `rows_of` get them."""

    @abstractmethod
    def attack(self, batch: Any, clean: Any, attack: Any, threat: ThreatModel, seed: int) -> Arrays:
        """Attack a batch whose clean answers are known."""

    def beyond_budget(self, batch: Any, found: Arrays, threat: ThreatModel) -> str:
        """Return how what was stored for a batch leaves the threat; "" if it does not. It is then attacked again."""
        return ""

    @abstractmethod
    def rows_of(self, batch: Any, clean: Any, robust: Any, found: Arrays | None) -> list[dict[str, Any]]:
        """Return one row per sample with its `index`; `robust` and `found` are None without attack."""

    def carry_out(self, asked: Asked, parts: Sequence[Part]) -> None:
        """Attack and ask batch by batch; a batch's clean answers are computed once for all parts."""
        told = f" with {parts[0].attack.name}" if parts[0].attack is not None else ""
        title = f"{self.heading} of {parts[0].label}{told}"
        world = asked.world
        with asked.progress.task(title, total=self.size * len(parts)) as progress:
            for number, ids in world.deal(
                list(enumerate(self.batches)), passed=lambda one: progress.advance(len(one[1]) * len(parts))
            ):
                wanted = self.samples_of(ids).tolist()
                left = [part for part in parts if not all(index in part.rows for index in wanted)]
                progress.advance(len(ids) * (len(parts) - len(left)))
                if not left:
                    continue
                batch = self.load_batch(ids, asked.device)
                clean = self.answer(batch, None)
                for part in left:
                    robust = found = None
                    if part.attack is not None and part.threat is not None:
                        found = part.store.read(number, ids)
                        if found is None or self.beyond_budget(batch, found, part.threat):
                            found = self.attack(batch, clean, part.attack, part.threat, asked.seed)
                            part.store.write(number, ids, found)
                        robust = self.answer(batch, found)
                    rows = self.rows_of(batch, clean, robust, found)
                    if world.size > 1:
                        part.store.write_rows(number, rows)
                    else:
                        part.keep(rows, self.key)
                    progress.advance(len(ids), note=part.part)
        if world.main:
            for part in parts:
                part.take_rows(self.key)


def task_options(task: type[Task]) -> tuple[str, ...]:
    """Return the names of a task's options."""
    return tuple(field.name for field in fields(task) if field.name not in ("model", "data", "batch_size"))


def make_task(
    task: type[Task], model: object, data: object, batch_size: int | None, options: Mapping[str, Any]
) -> Task:
    """Return a task with its options.

    Raises:
        ValueError: an option that it does not have (the nearest name is given).
    """
    known = task_options(task)
    for name in options:
        if name not in known:
            raise ValueError(f"Unknown option {name!r} of evaluate for the task {task.name!r}: {nearest(name, known)}.")
    return task(model, data, task.default_batch_size if batch_size is None else batch_size, **options)


def check_budgets(attack: Attack | None, threat: ThreatModel | None) -> None:
    """Check that there is a threat for an attack on images and texts, and only budgets that it uses.

    A robust figure under "image and text" from an attack that only touches images would say too much.

    Raises:
        ValueError: one without the other, or a budget for a modality that the attack cannot use.
    """
    if attack is None or threat is None:
        return
    useless = [modality for modality in threat if modality not in attack.uses]
    if useless:
        raise ValueError(
            f"Expected budgets that attack {attack.name!r} can use ({', '.join(sorted(attack.uses))}), but the "
            f"threat has one for {', '.join(useless)}: leave it out, or choose an attack that uses it."
        )
