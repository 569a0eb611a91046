"""What an attack is: `Attack.__call__` validates, freezes, runs, projects and re-measures; authors write `run`."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, ClassVar, final

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from crossguard.attacks.budget import Budgets, count_word_edits
from crossguard.attacks.encode import encode_images, encode_unit_texts
from crossguard.attacks.gallery import Gallery
from crossguard.attacks.towards import Chosen
from crossguard.data import PairBatch
from crossguard.models import Captioner, VisionLanguageModel, cosine
from crossguard.models.plain_torch import check_weights, plain_torch
from crossguard.threat import L2, Budget, Elements, LInf, Patch, ThreatModel, WordEdits

Takes = dict[str, tuple[type[Any], ...]]
ANY_BALL: Takes = {"image": (LInf, L2, Patch, Elements), "text": (WordEdits,)}
"""What attacks by gradients take: every budget that owns a ball."""


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
        patches: int64 [images], the model's patches with a changed pixel, under `Elements`; None under any other.
        l2: float [images], Euclidean norm of the change, under `L2`; None under any other.
    """

    pixels: Float[Tensor, "images 3 height width"]
    texts: tuple[str, ...]
    linf: Float[Tensor, " images"]
    words: Int64[Tensor, " texts"]
    image_drop: Float[Tensor, " images"]
    text_drop: Float[Tensor, " texts"]
    patches: Int64[Tensor, " images"] | None = None
    l2: Float[Tensor, " images"] | None = None


class Attack(ABC):
    """Base of all attacks.

    A subclass gives `name`, `uses` and `run`; options are keyword-only constructor arguments. One that also has
    `run_samples` (see `SampleAttack`) attacks sensors and scenes as well, in the budgets that it takes for images.

    Attributes:
        name: its name in the table.
        uses: the modalities it can attack; others in the threat model are left clean.
        takes: the types of budget it can work within, by modality.
        ranks_galleries: whether it looks at a whole gallery (see `GalleryAttack`).
        aims: whether it can also aim at one item of a gallery (`run_towards`).
    """

    name: str
    uses: frozenset[str]
    ranks_galleries: ClassVar[bool] = False
    aims: ClassVar[bool] = False
    takes: ClassVar[Takes] = {"image": (LInf,), "text": (WordEdits,)}

    @final
    @plain_torch()
    def __call__(
        self,
        model: VisionLanguageModel,
        batch: PairBatch,
        *,
        threat: ThreatModel,
        seed: int,
        gallery: Gallery | None = None,
        chosen: Chosen | None = None,
    ) -> Adversarial:
        """Attack a batch within `threat`; the batch and the model's weights are left as they were.

        Args:
            model: the victim.
            batch: clean pixels in [0, 1] (half precision becomes float32), texts, and the true links among them.
            threat: budgets for "image" (`LInf`, and others for attacks that take them) and "text" (`WordEdits`); a
                missing one means untouched. `Elements` of an image are the model's patches.
            seed: same seed, same result; randomness belongs to (seed, image id), so the batch size plays no part.
            gallery: the other images and texts, for attacks that look at a whole gallery; None: the batch is all of it.
            chosen: an item that the batch's images or texts are to find first, for attacks that aim; None: they only
                flee their own.

        Raises:
            ValueError: a gallery for an attack that does not look at one, `chosen` for one that does not aim, pixels
                outside [0, 1] or not finite, blank texts, an unknown modality or wrong budget type.
        """
        budget = self.budgets(threat)
        more: dict[str, Any] = {}
        if gallery is not None:
            if not self.ranks_galleries:
                raise ValueError(f"Expected no `gallery`, since attack {self.name!r} does not look at one.")
            more = {"gallery": gallery}
        if chosen is not None and not self.aims:
            raise ValueError(f"Expected no `chosen`, since attack {self.name!r} does not aim at one item.")
        _check(batch)
        batch = _as_float32(batch)
        ball = budget.ball(model, batch.pixels)
        with frozen(model):
            with fast_precision(batch.pixels.device):
                if chosen is None:
                    pixels, texts = self.run(model, batch, budget=budget, seed=seed, **more)
                else:
                    pixels, texts = _but_owners(
                        batch, chosen, *self.run_towards(model, batch, chosen, budget=budget, seed=seed)
                    )
            return _measure(model, batch, ball.to_pixels(pixels.detach()), tuple(texts), budget)

    @final
    def budgets(self, threat: ThreatModel) -> "Budgets":
        """Return the numbers of a threat model; zero for what it leaves clean or the attack cannot use.

        Raises:
            ValueError: an unknown modality, or a budget of a type or kind of edit that the attack cannot work within.
        """
        for modality, budget in threat.items():
            if modality not in self.takes:
                raise ValueError(f"Expected budgets for 'image' and 'text', but got one for {modality!r}.")
            self.check_budget(modality, budget, self.takes[modality])
        image = threat.get("image") if "image" in self.uses else None
        text = threat.get("text") if "text" in self.uses else None
        return Budgets(
            image=image or LInf(0.0),
            words=text.words if isinstance(text, WordEdits) else text.r if isinstance(text, Elements) else 0,
            kinds=text.kinds if isinstance(text, WordEdits) else ("substitution",),
            target=threat.target,
        )

    def check_budget(self, modality: str, budget: Budget, kinds: tuple[type[Any], ...]) -> None:
        """Refuse a budget that this attack cannot work within.

        Raises:
            ValueError: one of none of these kinds, or insertions and deletions of elements.
        """
        if not isinstance(budget, kinds):
            raise ValueError(
                f"Expected {' or '.join(kind.__name__ for kind in kinds)} as the budget of {modality!r} for attack "
                f"{self.name!r}, but got {budget!r}."
            )
        if isinstance(budget, Elements) and budget.kind != "substitution":
            raise ValueError(
                f"Expected substitution of elements of {modality!r}: attack {self.name!r} replaces elements and "
                f"cannot insert or delete any, but got kind={budget.kind!r}."
            )

    @abstractmethod
    def run(
        self, model: VisionLanguageModel, batch: PairBatch, *, budget: "Budgets", seed: int
    ) -> tuple[Float[Tensor, "images 3 height width"], tuple[str, ...]]:
        """Return adversarial pixels and texts; weights are frozen, projection comes after.

        Args:
            model: in evaluation mode, without gradients on its weights.
            batch: do not write into it.
            budget: what may change; a modality without any leave as it is.
            seed: the only source of randomness; draw with `attacks.noise`, by image id.
        """

    def run_towards(
        self, model: VisionLanguageModel, batch: PairBatch, chosen: Chosen, *, budget: "Budgets", seed: int
    ) -> tuple[Float[Tensor, "images 3 height width"], tuple[str, ...]]:
        """Return images, or texts, that ask for a chosen item; only of an attack that `aims`."""
        raise NotImplementedError


def _but_owners(
    batch: PairBatch, chosen: Chosen, pixels: Float[Tensor, "images 3 height width"], texts: Sequence[str]
) -> tuple[Float[Tensor, "images 3 height width"], tuple[str, ...]]:
    """Leave the queries that the chosen item belongs to as they were."""
    owns = torch.isin(batch.image_ids, chosen.owners).view(-1, 1, 1, 1)
    if texts == batch.texts:
        return torch.where(owns, batch.pixels, pixels), batch.texts
    known = torch.isin(batch.text_ids, chosen.owners).tolist()
    pairs = zip(batch.texts, texts, known, strict=True)
    return pixels, tuple(own if stays else found for own, found, stays in pairs)


def fast_precision(device: torch.device) -> AbstractContextManager[object]:
    """Autocast to bfloat16 where the device computes in it; nothing elsewhere.

    Image steps run in it; texts are compared, and results measured, in float32.
    """
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.autocast("cuda", dtype=torch.bfloat16)
    return nullcontext()


@contextmanager
def frozen(model: VisionLanguageModel | Captioner | torch.nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients on the weights, restored afterwards.

    Raises:
        ValueError: weights that were made inside `torch.inference_mode`.
    """
    module: torch.nn.Module = model  # type: ignore[assignment]
    check_weights(module)
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


def _as_float32(batch: PairBatch) -> PairBatch:
    """Return the batch with pixels that steps of 1/255 fit into and gradients may be taken for."""
    pixels = batch.pixels.float()
    return replace(batch, pixels=pixels.clone() if pixels.is_inference() else pixels)


def _check(batch: PairBatch) -> None:
    if not len(batch.pixels) or not batch.texts:
        raise ValueError(
            f"Expected at least one image and one text, but got {len(batch.pixels)} and {len(batch.texts)}."
        )
    if batch.pixels.ndim != 4 or batch.pixels.shape[1] != 3:
        raise ValueError(f"Expected `pixels` [images, 3, height, width], but got {list(batch.pixels.shape)}.")
    if not torch.isfinite(batch.pixels).all():
        raise ValueError("Expected finite `pixels`, but got NaN or infinity.")
    low, high = batch.pixels.aminmax()
    if low < 0 or high > 1:
        raise ValueError(f"Expected `pixels` in [0, 1] (before normalisation), but got {low:.3g}..{high:.3g}.")
    blank = [i for i, text in enumerate(batch.texts) if not text.strip()]
    if blank:
        raise ValueError(f"Expected texts that are not blank, but text {blank[0]} of the batch is.")


def changes(
    model: VisionLanguageModel,
    batch: PairBatch,
    pixels: Float[Tensor, "images 3 height width"],
    texts: tuple[str, ...],
    budget: Budgets,
) -> tuple[Float[Tensor, " images"], Int64[Tensor, " texts"]]:
    """Return how far an attack moved images (L-inf) and texts (words), and see that it kept within its budget.

    Raises:
        AssertionError: it did not.
    """
    linf = (pixels - batch.pixels).abs().amax(dim=(1, 2, 3))
    edits = [count_word_edits(a, b, kinds=budget.kinds) for a, b in zip(batch.texts, texts, strict=True)]
    words = torch.tensor([budget.words + 1 if n is None else n for n in edits], dtype=torch.int64)
    kept = budget.ball(model, batch.pixels).holds(pixels)
    if not kept or words.max() > budget.words or not all(text.strip() for text in texts):
        raise AssertionError(f"An attack left its budget {budget}: L-inf {linf.max():.4g}, {words.max()} words.")
    return linf, words


@torch.no_grad()
def _measure(
    model: VisionLanguageModel,
    batch: PairBatch,
    pixels: Float[Tensor, "images 3 height width"],
    texts: tuple[str, ...],
    budget: Budgets,
) -> Adversarial:
    linf, words = changes(model, batch, pixels, texts, budget)
    size = budget.ball(model, batch.pixels).length(pixels - batch.pixels)
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
        patches=size.long() if isinstance(budget.image, Elements) else None,
        l2=size if isinstance(budget.image, L2) else None,
    )
