"""What attacks on classes and on models that write would cost: their passes counted, one pass measured."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import one_hot

from crossguard.attacks.ascent import with_gradient
from crossguard.attacks.base import Attack, frozen
from crossguard.attacks.pgd import GradientAttack
from crossguard.attacks.samples import attack_samples
from crossguard.attacks.storage import Storage
from crossguard.attacks.victims import Plain
from crossguard.data import LabelledImages, MultiModalSamples
from crossguard.data.pairs import evenly
from crossguard.evaluate.batches import preprocessed
from crossguard.evaluate.cost import Cost, Part, timed
from crossguard.evaluate.features import on_device
from crossguard.evaluate.tasks.captioning import Captioning
from crossguard.evaluate.tasks.samples import NamedAttack
from crossguard.evaluate.tasks.zero_shot import ClassChoice, InHalf
from crossguard.evaluate.writing import WritingTask
from crossguard.models.plain_torch import plain_torch
from crossguard.progress import Reporter, Silent
from crossguard.threat import ThreatModel

_EDGE = 8  # of the pictures that passes are counted on


@dataclass(frozen=True)
class Passes:
    """How often one sample goes through a network.

    Args:
        gradients: forwards with a backward to the values.
        forwards: forwards alone.
    """

    gradients: int
    forwards: int


class _NeverWrong(nn.Module):
    """A classifier that is right whatever is done to a picture, and counts how often it is asked."""

    name, modalities = "never wrong", ("image",)

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = tuple(f"class {number}" for number in range(classes))
        self.gradients = self.forwards = 0

    def forward(self, inputs: Mapping[str, Tensor], kept: Any = None) -> Tensor:
        """Return logits that let gradients through, and the first class far ahead."""
        pixels = inputs["image"]
        if torch.is_grad_enabled() and pixels.requires_grad:
            self.gradients += len(pixels)
        else:
            self.forwards += len(pixels)
        ways = torch.linspace(0, 1, len(self.classes), device=pixels.device)
        first = one_hot(torch.tensor(0, device=pixels.device), len(self.classes))
        return pixels.flatten(1).mean(dim=1, keepdim=True) * ways + 1e3 * first


def passes_on_classes(attack: NamedAttack, threat: ThreatModel, *, classes: int, objective: str) -> Passes:
    """Return how often a picture that stands to the end goes through a classifier.

    Args:
        attack: by its name and options.
        threat: budgets of the picture.
        classes: how many there are.
        objective: as of `attack_samples`.
    """
    network = _NeverWrong(max(2, classes))
    samples = MultiModalSamples(
        name="count",
        split="count",
        modalities={"image": np.full((1, 3, _EDGE, _EDGE), 0.5, np.float32)},
        labels=np.zeros(1, np.int64),
        classes=network.classes,
        groups=np.zeros(1, np.int64),
    )
    victim: Any = network
    attack_samples(
        victim,
        samples,
        threat=threat,
        attack=attack.name,
        attack_options=attack.options,
        objective=objective,
        storage={"image": Storage.pixels()},
    )
    return Passes(network.gradients, network.forwards)


def passes_of_ascent(attack: GradientAttack, model: Any, threat: ThreatModel) -> Passes:
    """Return how often a picture goes through a model whose loss an attack raises."""
    pixels, counted = torch.full((1, 3, _EDGE, _EDGE), 0.5), {"gradients": 0, "forwards": 0}

    def loss(values: Float[Tensor, "images 3 height width"]) -> Float[Tensor, " images"]:
        counted["gradients" if torch.is_grad_enabled() and values.requires_grad else "forwards"] += 1
        return values.mean(dim=(1, 2, 3))

    ball = attack.budgets(threat).ball(model, pixels)
    attack.raised(loss, ball, torch.zeros(1, dtype=torch.int64), seed=0)
    return Passes(**counted)


@plain_torch()
def estimate_zero_shot(
    model: Any,
    sets: Mapping[str, LabelledImages],
    *,
    attacks: Mapping[str, NamedAttack],
    threats: Sequence[ThreatModel],
    half_first: bool = False,
    objective: str = "strongest",
    sample: int = 4,
    device: torch.device | str | None = None,
    progress: Reporter | None = None,
) -> Cost:
    """Count and measure zero-shot classification of some sets, every attack within every threat; what it takes at most.

    Every picture is taken to stand to the end of every attack, in half precision and then again in single, where that
    is asked for. Models that fall early take less.

    Args:
        model: two towers.
        sets: by name; one pass is measured on pictures of the first.
        attacks: by name; none measures clean only.
        threats: budgets.
        half_first: as of `ZeroShot`.
        objective: as of `attack_samples`.
        sample: pictures that a pass is measured on.
        device: where to compute; None: where the model is.
        progress: counts the parts.
    """
    first, total = next(iter(sets.values())), sum(map(len, sets.values()))
    rounds = max(1, len(attacks) * len(threats))
    prompts = sum(len(data.classes) * len(data.templates) for data in sets.values())
    choice: Any = ClassChoice(model, first)
    measured = _Measured(model, device, progress, parts=4 + half_first)
    with measured.clock() as (where, measure):
        images = [first.image(int(i)) for i in evenly(sample, len(first))]
        pixels = preprocessed(model, images).to(where)
        labels = torch.zeros(len(pixels), dtype=torch.int64, device=where)
        texts = [prompt for name in first.classes[:8] for prompt in first.prompts(name)[:2]]

        def climb(victim: Any) -> Callable[[], object]:
            ids = torch.arange(len(pixels), device=where)
            value = with_gradient(
                lambda x: -victim.log_probabilities({"image": x}, ids).gather(1, labels[:, None])[:, 0]
            )
            return lambda: value(pixels)

        speeds = {
            "decode and resize": measure("decode and resize", len(images), lambda: preprocessed(model, images)),
            "embed prompts": measure("embed prompts", len(texts), lambda: model.encode_text(texts)),
            "forwards": measure("forwards", len(pixels), lambda: choice({"image": pixels})),
            "gradients": measure("gradients", len(pixels), climb(Plain(choice)), gradients=True),
        }
        if half_first:
            speeds["half"] = measure("half precision", len(pixels), climb(InHalf(Plain(choice))), gradients=True)
    parts = [
        Part("decode and resize", rounds * total, "images", speeds["decode and resize"]),
        Part("embed prompts", rounds * prompts, "texts", speeds["embed prompts"]),
        Part("clean answers", rounds * total, "images", speeds["forwards"]),
    ]
    for name, attack in attacks.items():
        for threat in threats:
            image = threat.only("image")
            again = 2 if "text" in threat else 1  # the picture alone, and under its worst names
            pictures = Counter[int]()
            for data in sets.values():
                pictures[len(data.classes)] += len(data)
            taken = {
                classes: passes_on_classes(attack, image, classes=classes, objective=objective) for classes in pictures
            }
            counts = {
                what: again * sum(count * getattr(taken[classes], what) for classes, count in pictures.items())
                for what in ("gradients", "forwards")
            }
            told = f"{name} ({image['image']})"
            if half_first:
                parts.append(
                    Part(f"{told}, gradients in half precision", counts["gradients"], "images", speeds["half"])
                )
            parts.append(Part(f"{told}, gradients", counts["gradients"], "images", speeds["gradients"]))
            parts.append(Part(f"{told}, forwards", (1 + half_first) * counts["forwards"], "images", speeds["forwards"]))
    return Cost(tuple(parts), len(images), measured.where, most=True, memory=measured.memory)


@plain_torch()
def estimate_writing(
    task: WritingTask,
    *,
    attacks: Mapping[str, Attack],
    threats: Sequence[ThreatModel],
    sample: int = 2,
    device: torch.device | str | None = None,
    progress: Reporter | None = None,
) -> Cost:
    """Count and measure captioning or question answering, every attack within every threat; what it takes at most.

    Args:
        task: with its model, data and options; its first rows are measured.
        attacks: by gradients, by name; none measures clean only.
        threats: budgets of the picture.
        sample: rows that are measured.
        device: where to compute; None: where the model is.
        progress: counts the parts.
    """
    ids = np.arange(min(sample, task.rows))
    asked = "images" if isinstance(task, Captioning) else "questions"
    rounds = len(attacks) * len(threats)
    measured = _Measured(task.model, device, progress, parts=4 + task.half_first)
    with measured.clock() as (where, measure):
        batch = task.load_batch(ids, where)
        clean = task.answer(batch, None)
        loss = task.loss(batch, clean)

        def half(pixels: Float[Tensor, "rows 3 height width"]) -> Float[Tensor, " rows"]:
            with torch.autocast(where.type, dtype=torch.bfloat16):
                return loss(pixels).float()

        speeds = {
            "load": measure("decode and resize", len(ids), lambda: task.load_batch(ids, where)),
            "write": measure("write", len(ids), lambda: task.answer(batch, None)),
            "forwards": measure("forwards", len(ids), lambda: loss(batch.pixels)),
            "gradients": measure("gradients", len(ids), lambda: with_gradient(loss)(batch.pixels), gradients=True),
        }
        if task.half_first:
            speeds["half"] = measure(
                "half precision", len(ids), lambda: with_gradient(half)(batch.pixels), gradients=True
            )
    written = task.rows * (1 + rounds * (1 + task.half_first))
    parts = [
        Part("decode and resize", task.rows, asked, speeds["load"]),
        Part("write", written, asked, speeds["write"]),
    ]
    for name, attack in attacks.items():
        for threat in threats:
            assert isinstance(attack, GradientAttack)
            passes, told = passes_of_ascent(attack, task.model, threat), f"{name} ({threat['image']})"
            if task.half_first:
                count = task.rows * passes.gradients
                parts.append(Part(f"{told}, gradients in half precision", count, asked, speeds["half"]))
            parts.append(Part(f"{told}, gradients", task.rows * passes.gradients, asked, speeds["gradients"]))
            forwards = (1 + task.half_first) * task.rows * passes.forwards
            parts.append(Part(f"{told}, forwards", forwards, asked, speeds["forwards"]))
    return Cost(
        tuple(part for part in parts if part.count), len(ids), measured.where, most=True, memory=measured.memory
    )


class _Measured:
    """What one model's pieces of work take on its device.

    Attributes:
        where: the device, in words.
        memory: bytes of the weights; on a GPU the most that was taken at once.
    """

    def __init__(self, model: Any, device: torch.device | str | None, progress: Reporter | None, *, parts: int) -> None:
        self._model, self._device, self._progress, self._parts = model, device, progress or Silent(), parts
        self.where, self.memory = "", sum(p.numel() * p.element_size() for p in model.parameters())

    @contextmanager
    def clock(self) -> Iterator[tuple[torch.device, Callable[..., float]]]:
        """Freeze the model on its device, and give the device and what measures pieces of work: done per second."""
        title = "Measure the parts"
        with (
            on_device(self._model, self._device) as where,
            frozen(self._model),
            self._progress.task(title, total=self._parts) as bar,
        ):
            self.where = str(where)
            if where.type == "cuda":
                torch.cuda.reset_peak_memory_stats(where)

            def measure(what: str, done: int, work: Callable[[], object], *, gradients: bool = False) -> float:
                with torch.set_grad_enabled(gradients):
                    work()  # the first time pays for loading, caches and compiled kernels
                    speed = done / timed(work, where)
                bar.advance(note=what)
                return speed

            yield where, measure
            if where.type == "cuda":
                self.memory = torch.cuda.max_memory_allocated(where)
