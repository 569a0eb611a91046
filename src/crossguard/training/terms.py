"""The terms that a defence's loss is a weighted sum of: each owns its loss, and what an inner attack on it asks.

A term is written in *views*: "clean" images or texts, or the "adversarial" ones that the inner attack makes by raising
the very same terms.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from crossguard.attacks.ascent import Pixels
from crossguard.attacks.encode import encode_texts, encode_unit_texts
from crossguard.attacks.objectives import mean_partner
from crossguard.models import Captioner, FusionModel, VisionLanguageModel, cosine
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
    """

    weight: float
    encodes: ClassVar[bool] = True
    deep: ClassVar[bool] = False
    needs_original: ClassVar[bool] = False

    @abstractmethod
    def view(self, tower: Tower) -> View | None:
        """Return which view of the images or texts it depends on; None for neither."""

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


def attacks(term: Term, tower: Tower) -> bool:
    """Whether a term depends on the adversarial view of a modality."""
    return term.view(tower) == "adversarial"


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
        ValueError: a captioner, which has no embeddings, with a term that holds embeddings.
    """
    if isinstance(model, FusionModel):
        return tuple(each for term in terms for each in term.for_fusion())
    if not isinstance(model, Captioner) or isinstance(model, VisionLanguageModel):
        return tuple(terms)
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
