"""What an attack is: `Attack.__call__` validates, freezes, runs, projects and re-measures; authors write `run`."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from crossguard.attacks.budget import count_word_edits, project_pixels
from crossguard.attacks.encode import encode_images, encode_unit_texts
from crossguard.data import PairBatch
from crossguard.models import VisionLanguageModel, cosine
from crossguard.threat import LInf, ThreatModel, WordEdits


@dataclass(frozen=True)
class Adversarial:
    """What an attack found for one batch, measured on the final pixels (8-bit) and texts.

    Args:
        pixels: float [images, 3, height, width], whole multiples of 1/255 wherever the attack moved a pixel.
        texts: one text per source text.
        linf: float [images], largest change of a pixel, in [0, 1].
        words: int64 [texts], words edited.
        image_drop: float [images], fall of the mean cosine with the image's own texts, joint change included.
        text_drop: float [texts], the same for the texts.
    """

    pixels: Float[Tensor, "images 3 height width"]
    texts: tuple[str, ...]
    linf: Float[Tensor, " images"]
    words: Int64[Tensor, " texts"]
    image_drop: Float[Tensor, " images"]
    text_drop: Float[Tensor, " texts"]


class Attack(ABC):
    """Base of all attacks on image-text models.

    A subclass gives `name`, `uses` and `run`; options are keyword-only constructor arguments.

    Attributes:
        name: its name in the table.
        uses: the modalities it can attack; others in the threat model are left clean.
    """

    name: str
    uses: frozenset[str]

    @final
    def __call__(self, model: VisionLanguageModel, batch: PairBatch, *, threat: ThreatModel, seed: int) -> Adversarial:
        """Attack a batch within `threat`; the batch and the model's weights are left as they were.

        Args:
            model: the victim.
            batch: clean pixels in [0, 1], texts, and the true links among them.
            threat: budgets for "image" (`LInf`) and "text" (`WordEdits`); a missing one means untouched.
            seed: same seed, same result; randomness belongs to (seed, image id), so the batch size plays no part.

        Raises:
            ValueError: pixels outside [0, 1] or not finite, blank texts, an unknown modality or wrong budget type.
        """
        image, text = _budgets(threat)
        _check(batch)
        budget = Budgets(
            eps=image.eps if image is not None and "image" in self.uses else 0.0,
            words=text.words if text is not None and "text" in self.uses else 0,
        )
        with frozen(model):
            with fast_precision(batch.pixels.device):
                pixels, texts = self.run(model, batch, budget=budget, seed=seed)
            pixels = project_pixels(pixels.detach(), batch.pixels, eps=budget.eps)
            return _measure(model, batch, pixels, tuple(texts), budget)

    @abstractmethod
    def run(
        self, model: VisionLanguageModel, batch: PairBatch, *, budget: "Budgets", seed: int
    ) -> tuple[Float[Tensor, "images 3 height width"], tuple[str, ...]]:
        """Return adversarial pixels and texts; weights are frozen, projection comes after.

        Args:
            model: in evaluation mode, without gradients on its weights.
            batch: do not write into it.
            budget: `eps` and `words`; zero means leave that modality as it is.
            seed: the only source of randomness; draw with `attacks.noise`, by image id.
        """


@dataclass(frozen=True)
class Budgets:
    """Numbers an attack works with: `eps` in [0, 1] pixel units, `words` per text."""

    eps: float
    words: int


def fast_precision(device: torch.device) -> AbstractContextManager[object]:
    """Autocast to bfloat16 where the device computes in it; nothing elsewhere.

    Image steps run in it; texts are compared, and results measured, in float32.
    """
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.autocast("cuda", dtype=torch.bfloat16)
    return nullcontext()


@contextmanager
def frozen(model: VisionLanguageModel) -> Iterator[None]:
    """Evaluation mode and no gradients on the weights, restored afterwards."""
    module: torch.nn.Module = model  # type: ignore[assignment]
    modes = {child: child.training for child in module.modules()}
    grads = {parameter: parameter.requires_grad for parameter in module.parameters()}
    try:
        module.eval()
        module.requires_grad_(False)
        yield
    finally:
        for child, mode in modes.items():
            child.training = mode
        for parameter, wanted in grads.items():
            parameter.requires_grad_(wanted)


def _budgets(threat: ThreatModel) -> tuple[LInf | None, WordEdits | None]:
    for modality in threat:
        if modality not in ("image", "text"):
            raise ValueError(f"Expected budgets for 'image' and 'text', but got one for {modality!r}.")
    image, text = threat.get("image"), threat.get("text")
    if not isinstance(image, LInf | None):
        raise ValueError(f"Expected an LInf budget for 'image', but got {image!r}.")
    if not isinstance(text, WordEdits | None):
        raise ValueError(f"Expected a WordEdits budget for 'text', but got {text!r}.")
    return image, text


def _check(batch: PairBatch) -> None:
    if not len(batch.pixels) or not batch.texts:
        raise ValueError(
            f"Expected at least one image and one text, but got {len(batch.pixels)} and {len(batch.texts)}."
        )
    if not torch.isfinite(batch.pixels).all():
        raise ValueError("Expected finite `pixels`, but got NaN or infinity.")
    low, high = batch.pixels.aminmax()
    if low < 0 or high > 1:
        raise ValueError(f"Expected `pixels` in [0, 1] (before normalisation), but got {low:.3g}..{high:.3g}.")
    blank = [i for i, text in enumerate(batch.texts) if not text.strip()]
    if blank:
        raise ValueError(f"Expected texts that are not blank, but text {blank[0]} of the batch is.")


@torch.no_grad()
def _measure(
    model: VisionLanguageModel,
    batch: PairBatch,
    pixels: Float[Tensor, "images 3 height width"],
    texts: tuple[str, ...],
    budget: Budgets,
) -> Adversarial:
    linf = (pixels - batch.pixels).abs().amax(dim=(1, 2, 3))
    words = torch.tensor([count_word_edits(a, b) for a, b in zip(batch.texts, texts, strict=True)], dtype=torch.int64)
    if linf.max() > budget.eps + 1e-6 or words.max() > budget.words or not all(text.strip() for text in texts):
        raise AssertionError(f"An attack left its budget {budget}: L-inf {linf.max():.4g}, {words.max()} words.")
    positives = batch.positives.float()
    features = encode_unit_texts(model, (*batch.texts, *texts))
    clean = cosine(encode_images(model, batch.pixels), features[: len(texts)]) * positives
    attacked = cosine(encode_images(model, pixels), features[len(texts) :]) * positives
    fall = clean - attacked
    return Adversarial(
        pixels=pixels,
        texts=texts,
        linf=linf,
        words=words,
        image_drop=fall.sum(dim=1) / positives.sum(dim=1).clamp(min=1),
        text_drop=fall.sum(dim=0) / positives.sum(dim=0).clamp(min=1),
    )
