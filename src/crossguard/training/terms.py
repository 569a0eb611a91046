"""The terms that a defence's loss is a weighted sum of: each owns its loss, and what an inner attack on it asks.

A term is written in *views*: "clean" images or texts, or the "adversarial" ones that the inner attack makes by raising
the very same terms.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate, kl_div, normalize

from crossguard.attacks.ascent import Pixels
from crossguard.attacks.encode import encode_texts, encode_unit_texts
from crossguard.attacks.objectives import mean_partner
from crossguard.models import Captioner, FusionModel, PatchEmbeddingModel, VisionLanguageModel, cosine
from crossguard.models.fusion_losses import draw_negatives, soft_cross_entropy
from crossguard.models.losses import contrastive, contrastive_drawn, embedding_l2
from crossguard.training.codes import Codes, Tower, View, chunks, encode_tokens
from crossguard.training.step import Step
from crossguard.training.step_encoder import length, shifted

Coder = Callable[[View], Codes]
"""Gives the encoded images, or texts, of a view."""
TextScore = Callable[[list[str], Int64[Tensor, " variants"]], Float[Tensor, " variants"]]
"""Says how well variants of texts, each with its text's place, serve the model; lower is worse for it."""


class Term(ABC):
    """A part of a loss. Subclasses are frozen dataclasses with a `weight`.

    Attributes:
        weight: in the sum.
        encodes: whether it is computed from encoded images and texts; a term that is not reads pixels by itself.
        deep: whether it reads token states, beside embeddings.
        needs_original: whether it compares with the model as it came.
        raised: whether the inner attack raises it; one that is not reads what the attack finds for the others.
    """

    weight: float
    encodes: ClassVar[bool] = True
    deep: ClassVar[bool] = False
    needs_original: ClassVar[bool] = False
    raised: ClassVar[bool] = True

    @abstractmethod
    def view(self, tower: Tower) -> View | None:
        """Return which view of the images or texts it depends on; None for neither."""

    def views(self, tower: Tower) -> tuple[View, ...]:
        """Return all views of the images or texts that it reads."""
        view = self.view(tower)
        return () if view is None else (view,)

    @abstractmethod
    def parts(
        self, step: Step, images: Coder, texts: Coder, pixels: Mapping[View, Pixels]
    ) -> Iterator[Float[Tensor, ""]]:
        """Yield this process's addends of its value, without the weight, chunk by chunk where they are many.

        Args:
            step: the step.
            images: encoded views of everyone's images.
            texts: encoded views of all texts.
            pixels: views of this process's images.
        """

    def score_texts(self, step: Step, pixels: Pixels) -> TextScore:
        """Return how an inner attack judges variants of its adversarial texts; `pixels` stand for adversarial images.

        Raises:
            ValueError: no text of it is attacked.
        """
        raise ValueError(f"Expected a term whose texts are attacked, but got {self}.")

    def check(self, model: nn.Module) -> None:  # noqa: B027  most terms take any model
        """Refuse a model that it cannot be computed for.

        Raises:
            ValueError: the model lacks what is named.
        """

    def for_fusion(self) -> "tuple[Term, ...]":
        """Return what a model that also matches is trained by in its place."""
        return (self,)

    def for_captioner(self) -> "Language | None":
        """Return what a model that writes is trained by in its place; None where there is no such thing."""
        return None


@dataclass(frozen=True)
class Contrast(Term):
    """Contrastive loss (`models.losses.contrastive`) between one view of the images and one of the texts."""

    image: View
    text: View
    weight: float = 1.0

    def view(self, tower: Tower) -> View:
        """Return the view of either side."""
        return self.image if tower == "image" else self.text

    def parts(
        self, step: Step, images: Coder, texts: Coder, pixels: Mapping[View, Pixels]
    ) -> Iterator[Float[Tensor, ""]]:
        """Yield its value: it couples all samples, so every process computes it and takes an equal share."""
        image, text = images(self.image).embedding, texts(self.text).embedding
        if step.momentum is not None:
            value = step.momentum.contrast(normalize(image, dim=-1), normalize(text, dim=-1), step.keys)
        else:
            logits = step.model.logit_scale * cosine(image, text)
            if step.draws_targets:
                value = contrastive_drawn(logits, step.batch.targets, generator=step.generator())
            else:
                value = contrastive(logits, step.batch.targets, ignored=step.batch.ignored)
        yield value / step.world.size

    def score_texts(self, step: Step, pixels: Pixels) -> TextScore:
        """By the mean cosine with the targets; of a fusion model by the text's own row of the loss."""
        images = step.images(pixels, self.image).embedding
        if step.deep:
            row_loss = _row_loss(step, normalize(images, dim=-1))
            return lambda texts, owners: -self.weight * row_loss(encode_unit_texts(step.model, texts), owners)
        partners = mean_partner(images, step.batch.targets.T)
        return lambda texts, owners: self.weight * (encode_unit_texts(step.model, texts) * partners[owners]).sum(dim=1)

    def for_fusion(self) -> tuple[Term, ...]:
        """A fusion model is trained to match the same views as well as to compare them."""
        return self, Match(self.image, self.text, self.weight)

    def for_captioner(self) -> "Language":
        """A captioner is trained on the captions, given the same view of the image."""
        return Language(self.image, self.weight)


@dataclass(frozen=True)
class Anchor(Term):
    """Mean squared L2 distance of a tower's adversarial embeddings from the clean ones of the model as it came."""

    tower: Tower
    weight: float = 1.0
    needs_original: ClassVar[bool] = True

    def view(self, tower: Tower) -> View | None:
        """Return "adversarial" for its own tower."""
        return "adversarial" if tower == self.tower else None

    def parts(
        self, step: Step, images: Coder, texts: Coder, pixels: Mapping[View, Pixels]
    ) -> Iterator[Float[Tensor, ""]]:
        """Yield its value, an equal share of it in every process."""
        coder = images if self.tower == "image" else texts
        moved = embedding_l2(coder("adversarial").embedding, step.reference(self.tower))
        yield moved.mean() / step.world.size

    def score_texts(self, step: Step, pixels: Pixels) -> TextScore:
        """By the distance from the clean embedding; images play no part."""
        reference = step.reference("text")
        return lambda texts, owners: -self.weight * embedding_l2(encode_texts(step.model, texts), reference[owners])


@dataclass(frozen=True)
class Match(Term):
    """Matching loss of a fusion model (ITM): true pairs against hard negatives, see `models.fusion_losses`."""

    image: View
    text: View
    weight: float = 1.0
    deep: ClassVar[bool] = True

    def view(self, tower: Tower) -> View:
        """Return the view of either side."""
        return self.image if tower == "image" else self.text

    def parts(
        self, step: Step, images: Coder, texts: Coder, pixels: Mapping[View, Pixels]
    ) -> Iterator[Float[Tensor, ""]]:
        """Yield this process's pairs in chunks: the true ones, and two hard negatives a row."""
        image, text = images(self.image), texts(self.text)
        logits = (step.model.logit_scale * cosine(image.embedding, text.embedding)).detach()
        generator, known = step.generator(), step.batch.true
        true = torch.nonzero(step.batch.targets)
        hard_texts = draw_negatives(logits, known, generator=generator)
        hard_images = draw_negatives(logits.T, known.T, generator=generator).flip(1)
        pairs = torch.cat([true, hard_images, hard_texts])
        labels = (torch.arange(len(pairs), device=pairs.device) < len(true)).long()
        own = step.world.share(len(pairs))
        for rows in chunks(length(own), step.chunk_size):
            at = shifted(rows, own)
            found = step.model.match(image.states, text.states, pairs[at])  # type: ignore[attr-defined]
            yield cross_entropy(found.float(), labels[at], reduction="sum") / len(pairs)

    def score_texts(self, step: Step, pixels: Pixels) -> TextScore:
        """By the loss of matching one of the text's images."""
        images, targets = step.images(pixels, self.image), step.batch.targets
        partner, paired = targets.T.float().argmax(dim=1), targets.any(dim=0)

        def score(texts: list[str], owners: Int64[Tensor, " variants"]) -> Float[Tensor, " variants"]:
            parts = []
            for rows in chunks(len(texts), step.chunk_size):
                states = encode_tokens(step.model, step.model.tokenize(texts[rows]), deep=True).states
                pairs = torch.stack([partner[owners[rows]], torch.arange(len(states), device=owners.device)], dim=1)
                logits = step.model.match(images.states, states, pairs).float()  # type: ignore[attr-defined]
                parts.append(cross_entropy(logits, torch.ones_like(pairs[:, 0]), reduction="none"))
            return -self.weight * torch.cat(parts) * paired[owners]

        return score


@dataclass(frozen=True)
class Language(Term):
    """Cross-entropy per token of a captioner's true captions, given one view of the image."""

    image: View
    weight: float = 1.0
    encodes: ClassVar[bool] = False

    def view(self, tower: Tower) -> View | None:
        """Return the view of the image; captions are the labels, which nobody attacks."""
        return self.image if tower == "image" else None

    def parts(
        self, step: Step, images: Coder, texts: Coder, pixels: Mapping[View, Pixels]
    ) -> Iterator[Float[Tensor, ""]]:
        """Yield this process's true pairs in chunks."""
        captioner: Captioner = step.trained  # type: ignore[assignment]
        total = int(step.batch.targets.sum())
        pairs = torch.nonzero(step.batch.targets[step.world.share(step.everyone)]).cpu()
        for number, rows in enumerate(chunks(len(pairs), step.chunk_size)):
            step.encoder.seed_chunk("image", self.image, slice(number, number))
            captions = [step.batch.batch.texts[j] for j in pairs[rows, 1].tolist()]
            yield captioner.caption_loss(pixels[self.image][pairs[rows, 0]], captions).sum() / total


@dataclass(frozen=True)
class Consistency(Term):
    """Divergence of the answers to adversarial images from other answers to them (PMG-AFT; Wang et al., CVPR 2024).

    An image's answer is the softmax of its logits over the step's texts. The term is KL(adversarial || other), the mean
    over images: the other are the model's own answers to the clean images ("clean"), through which the gradient flows
    too, or those of the model as it came to the same adversarial images ("original").
    """

    other: Literal["clean", "original"]
    weight: float = 1.0
    needs_original: ClassVar[bool] = True
    raised: ClassVar[bool] = False

    def view(self, tower: Tower) -> View:
        """Return adversarial images, clean texts."""
        return "adversarial" if tower == "image" else "clean"

    def views(self, tower: Tower) -> tuple[View, ...]:
        """Return also the clean images, where it compares with answers to them."""
        return ("adversarial", "clean") if tower == "image" and self.other == "clean" else (self.view(tower),)

    def parts(
        self, step: Step, images: Coder, texts: Coder, pixels: Mapping[View, Pixels]
    ) -> Iterator[Float[Tensor, ""]]:
        """Yield its value, an equal share of it in every process."""
        scale, text = step.model.logit_scale, texts("clean").embedding
        answers = (scale * cosine(images("adversarial").embedding, text)).log_softmax(dim=1)
        if self.other == "clean":
            others = scale * cosine(images("clean").embedding, text)
        else:
            others = step.original_scale * cosine(step.original_images(pixels["adversarial"]), step.reference("text"))
        distance = kl_div(others.log_softmax(dim=1), answers, reduction="batchmean", log_target=True)
        yield distance / step.world.size


@dataclass(frozen=True)
class Attention(Term):
    """Mean L2 distance of where the model looks from where it looked as it came (TGA-ZSR; Yu et al., NeurIPS 2024).

    Where it looks in an image is the cosine of every patch's own embedding with the image's texts, scaled to [0, 1] and
    enlarged to the pictures' size; where it looked is that of the model as it came in the clean image.
    """

    image: View
    weight: float = 1.0
    encodes: ClassVar[bool] = False
    needs_original: ClassVar[bool] = True
    raised: ClassVar[bool] = False

    def view(self, tower: Tower) -> View | None:
        """Return the view of the images that are looked at."""
        return self.image if tower == "image" else None

    def check(self, model: nn.Module) -> None:
        """Refuse a model without embeddings of patches."""
        if not isinstance(model, PatchEmbeddingModel):
            raise ValueError(
                f"Expected a model with `embed_patches` and `patch_grid` (CLIP's ViTs, ALBEF, BLIP) for a defence that "
                f"holds attention, but {getattr(model, 'name', type(model).__name__)!r} has none."
            )

    def parts(
        self, step: Step, images: Coder, texts: Coder, pixels: Mapping[View, Pixels]
    ) -> Iterator[Float[Tensor, ""]]:
        """Yield this process's images in chunks."""
        own = step.world.share(step.everyone)
        partners = mean_partner(step.reference("text"), step.batch.targets)[own]
        for rows in chunks(length(own), step.chunk_size):
            step.encoder.seed_chunk("image", self.image, rows)
            now = look(step.model, pixels[self.image][rows], partners[rows])
            with torch.no_grad():
                before = look(step.original, pixels["clean"][rows], partners[rows])
            yield (now - before).flatten(1).norm(dim=1).sum() / step.everyone


def look(
    model: VisionLanguageModel,
    pixels: Float[Tensor, "images 3 height width"],
    texts: Float[Tensor, "images dim"],
) -> Float[Tensor, "images height width"]:
    """Return how much each pixel's patch speaks for a text of its image, in [0, 1].

    Args:
        model: gives embeddings of patches.
        pixels: in [0, 1].
        texts: a vector for each image.
    """
    patches: PatchEmbeddingModel = model  # type: ignore[assignment]
    cosines = (normalize(patches.embed_patches(pixels).float(), dim=-1) * texts.unsqueeze(1)).sum(dim=-1)
    low, high = cosines.aminmax(dim=1, keepdim=True)
    maps = ((cosines - low) / (high - low).clamp(min=1e-12)).unflatten(1, patches.patch_grid)
    return interpolate(maps.unsqueeze(1), size=tuple(pixels.shape[2:]), mode="bilinear").squeeze(1)


def attacks(term: Term, tower: Tower) -> bool:
    """Whether the inner attack raises a term through a modality."""
    return term.raised and term.view(tower) == "adversarial"


def attacked(terms: Iterable[Term]) -> frozenset[Tower]:
    """Return the modalities that the inner attack changes for these terms."""
    towers: tuple[Tower, ...] = ("image", "text")
    return frozenset(tower for term in terms for tower in towers if attacks(term, tower))


def scaled(terms: Iterable[Term], factor: float) -> tuple[Term, ...]:
    """Return the terms with their weights times `factor`."""
    return tuple(replace(term, weight=term.weight * factor) for term in terms)  # type: ignore[type-var]


def terms_for(model: nn.Module, terms: Iterable[Term], *, defence: str) -> tuple[Term, ...]:
    """Return what a defence's terms become for a kind of model.

    A fusion model is trained to match as well as to compare. A captioner has no contrastive loss: its caption loss on
    the term's view of the image stands for it, once for each view.

    Args:
        model: meets `FusionModel`, `Captioner`, or `VisionLanguageModel`.
        terms: of a row of the table.
        defence: its name, for the error.

    Raises:
        ValueError: a captioner, which has no embeddings, with a term that holds embeddings; or a model that lacks what
            a term is computed from.
    """
    terms = tuple(terms)
    if isinstance(model, VisionLanguageModel):
        for term in terms:
            term.check(model)
    if isinstance(model, FusionModel):
        return tuple(each for term in terms for each in term.for_fusion())
    if not isinstance(model, Captioner) or isinstance(model, VisionLanguageModel):
        return terms
    shares: dict[View, float] = {}
    for term in terms:
        written = term.for_captioner()
        if written is None:
            raise ValueError(
                f"Expected a defence with a loss on pairs for the captioner {model.name!r}, but {defence!r} holds "
                "embeddings, which it has not: use 'tecoa' or 'mat'."
            )
        shares[written.image] = shares.get(written.image, 0.0) + written.weight
    return tuple(Language(view, weight) for view, weight in shares.items())


def _row_loss(
    step: Step, images: Float[Tensor, "images dim"]
) -> Callable[[Float[Tensor, "variants dim"], Int64[Tensor, " variants"]], Float[Tensor, " variants"]]:
    """Return the contrastive loss of a text over all images, as a function of its unit embedding."""
    scale = step.model.logit_scale
    if step.momentum is not None:
        keys = step.keys
        return lambda units, owners: soft_cross_entropy(scale * units @ keys.images.T, keys.for_images[owners])
    targets, ignored = step.batch.targets.T, step.batch.ignored.T
    shares = targets.float() / targets.sum(dim=1, keepdim=True).clamp(min=1)

    def batch_rows(
        units: Float[Tensor, "variants dim"], owners: Int64[Tensor, " variants"]
    ) -> Float[Tensor, " variants"]:
        logits = (scale * units @ images.T).masked_fill(ignored[owners], torch.finfo(torch.float32).min)
        return soft_cross_entropy(logits, shares[owners])

    return batch_rows
