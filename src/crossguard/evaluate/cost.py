"""What an evaluation would cost: each of its parts measured on a few samples, times how often it is needed."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64

from crossguard.attacks.base import Attack, frozen
from crossguard.data import OneToManyPairs, PairBatch
from crossguard.data.pairs import evenly
from crossguard.evaluate.batches import load_pixels, pair_batch
from crossguard.evaluate.features import check_model, on_device
from crossguard.evaluate.ranking import candidates_of
from crossguard.evaluate.task import check_budgets
from crossguard.models import FusionModel, VisionLanguageModel
from crossguard.models.plain_torch import plain_torch
from crossguard.progress import Reporter, Silent
from crossguard.threat import ThreatModel

_MATCHED = 64  # pairs that are matched to measure it


@dataclass(frozen=True)
class Part:
    """One part of an evaluation.

    Args:
        what: in words.
        count: how many of `unit` the evaluation needs.
        unit: "images", "texts" or "pairs".
        per_second: measured.
    """

    what: str
    count: int
    unit: str
    per_second: float

    @property
    def seconds(self) -> float:
        """How long it takes."""
        return self.count / self.per_second


@dataclass(frozen=True)
class Cost:
    """What an evaluation would cost.

    Args:
        parts: in the order in which they run.
        sample: images or questions that were measured, with all of their texts.
        device: where.
        most: whether it is the most that it takes: less where a model falls early.
        memory: bytes of the model's weights, on a GPU all that was taken at once; 0: not told.
    """

    parts: tuple[Part, ...]
    sample: int
    device: str
    most: bool = False
    memory: int = 0

    @property
    def seconds(self) -> float:
        """How long the evaluation takes, all parts one after another."""
        return sum(part.seconds for part in self.parts)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        parts = [{**asdict(part), "seconds": part.seconds} for part in self.parts]
        more = {name: getattr(self, name) for name in ("sample", "device", "most", "memory")}
        return {"parts": parts, "seconds": self.seconds, **more}

    def __str__(self) -> str:
        width = max(len(part.what) for part in self.parts)
        lines = [
            f"{part.what:{width}}  {part.count:>13,} {part.unit:9} {part.per_second:>9,.2f}/s {spell(part.seconds):>8}"
            for part in self.parts
        ]
        about = "at most" if self.most else "about"
        measured = f"{about} {spell(self.seconds)} on {self.device}, as measured on {self.sample} samples"
        if self.memory:
            what = "all that was taken" if self.device.startswith("cuda") else "the weights"
            measured += f"; memory of {what}: {self.memory / 1e9:.1f} GB"
        return "\n".join([*lines, measured])


def spell(seconds: float) -> str:
    """Return a duration in the unit that a person would use.

    Example:
        >>> spell(0.25), spell(90), spell(5400), spell(200000)
        ('0.2 s', '1.5 min', '1.5 h', '2.3 d')
    """
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


@plain_torch()
def estimate_cost(
    model: VisionLanguageModel,
    pairs: OneToManyPairs,
    *,
    attacks: Mapping[str, Attack] | None = None,
    threats: Mapping[str, ThreatModel] | None = None,
    rerank: int | None = None,
    sample: int = 4,
    seed: int = 0,
    device: torch.device | str | None = None,
    progress: Reporter | None = None,
) -> Cost:
    """Measure the parts of an evaluation on a few images, evenly spaced, with all their texts, and count them.

    A batch of the evaluation is larger than the sample, which on a GPU is faster per image than what is measured here:
    there the estimate is an upper bound, and a larger sample brings it closer. Counts of matched pairs are upper bounds
    too, since pairs that both directions ask for are scored once.

    Args:
        model: the victim.
        pairs: the data.
        attacks: by name; None measures clean only.
        threats: by part ("image", "text", "joint"): every attack is measured under each that it can use.
        rerank: as in `evaluate`.
        sample: images that are measured; at least 1.
        seed: of the attacks.
        device: where to compute; None: where the model is.
        progress: counts the parts.

    Raises:
        WrongKind: the model lacks members of the protocol.
        ValueError: no pairs, `sample` below 1, an attack without a threat, `rerank` with a model that cannot match.
    """
    if not pairs.images or sample < 1:
        raise ValueError(f"Expected images and `sample` >= 1, but got {len(pairs.images)} images and {sample}.")
    candidates = candidates_of(model, rerank)
    jobs = [
        (name, part, attack, threat)
        for name, attack in (attacks or {}).items()
        for part, threat in (threats or {}).items()
        if set(threat) <= attack.uses
    ]
    for _, _, attack, threat in jobs:
        check_budgets(attack, threat)
    ids = evenly(sample, len(pairs.images))
    total_images, total_texts = len(pairs.images), len(pairs.texts)
    total_pairs = _pairs_at_most(total_images, total_texts, candidates)
    rounds = 1 + len(jobs)
    parts: list[Part] = []
    with (
        on_device(check_model(model), device) as where,
        frozen(model),
        (progress or Silent()).task("Measure the parts", total=3 + len(jobs) + bool(candidates)) as task,
    ):

        def measure(what: str, done: int, unit: str, total: int, work: Callable[[], object]) -> None:
            work()  # the first time pays for loading, caches and compiled kernels
            parts.append(Part(what, total, unit, done / timed(work, where)))
            task.advance(note=what)

        def encode(work: Callable[[], object]) -> Callable[[], object]:
            return torch.no_grad()(work)

        batch = pair_batch(model, pairs, ids).to(where)
        texts = list(batch.texts)
        measure("decode and resize", len(ids), "images", total_images, lambda: load_pixels(model, pairs, ids))
        measure(
            "embed images", len(ids), "images", rounds * total_images, encode(lambda: model.encode_image(batch.pixels))
        )
        measure("embed texts", len(texts), "texts", rounds * total_texts, encode(lambda: model.encode_text(texts)))
        one = _first(model, pairs, ids[:1], where)
        for name, part, attack, threat in jobs:
            attack(model, one, threat=threat, seed=seed)
            seconds = timed(lambda a=attack, t=threat: a(model, batch, threat=t, seed=seed), where)  # type: ignore[misc]
            parts.append(Part(f"attack with {name} ({part})", total_images, "images", len(ids) / seconds))
            task.advance(note=name)
        if candidates and isinstance(model, FusionModel):
            measure("match", _MATCHED, "pairs", rounds * total_pairs, encode(_matching(model, batch)))
    return Cost(tuple(parts), len(ids), str(where))


def _first(
    model: VisionLanguageModel, pairs: OneToManyPairs, ids: Int64[np.ndarray, " one"], where: torch.device
) -> PairBatch:
    return pair_batch(model, pairs, ids).to(where)


def _matching(model: FusionModel, batch: PairBatch) -> Callable[[], object]:
    """Match the sample's images with its texts, again and again, as re-ranking does: an image with many texts."""
    with torch.no_grad():
        images, texts = model.encode_image_states(batch.pixels), model.encode_text_states(list(batch.texts))
    places = torch.arange(_MATCHED, device=batch.pixels.device)
    rows = torch.stack([places * len(images) // _MATCHED, places % len(texts)], dim=1)
    return lambda: model.match(images, texts, rows)


def _pairs_at_most(images: int, texts: int, candidates: int) -> int:
    return min(images * texts, images * min(candidates, texts) + texts * min(candidates, images))


def timed(work: Callable[[], object], device: torch.device) -> float:
    """Return how many seconds a piece of work takes on a device."""
    begun = perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return max(perf_counter() - begun, 1e-9)
