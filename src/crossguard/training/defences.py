"""The table of defences: each is an outer loss, what is attacked for it, and what is trained.

A defence is written as the *terms* of its loss, for a model of two towers; `terms_for` says what they become for other
kinds of models. What the inner attack must find follows from the terms: every view named "adversarial" in them is made,
by raising those same terms.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from torch import nn

from crossguard.attacks.sources import SourceLike
from crossguard.models import Captioner, FusionModel, VisionLanguageModel

View = Literal["clean", "adversarial"]
Tower = Literal["image", "text"]


@dataclass(frozen=True)
class Contrast:
    """Contrastive loss (`models.losses.contrastive`) between one view of the images and one of the texts."""

    image: View
    text: View
    weight: float = 1.0


@dataclass(frozen=True)
class Anchor:
    """Mean squared L2 distance of a tower's adversarial embeddings from the clean ones of the model as it came."""

    tower: Tower
    weight: float = 1.0


@dataclass(frozen=True)
class Match:
    """Matching loss of a fusion model (ITM): true pairs against hard negatives, see `models.fusion_losses`."""

    image: View
    text: View
    weight: float = 1.0


@dataclass(frozen=True)
class Language:
    """Cross-entropy per token of a captioner's true captions, given one view of the image."""

    image: View
    weight: float = 1.0


Term = Contrast | Anchor | Match | Language


def attacked(terms: Iterable[Term]) -> frozenset[Tower]:
    """Return the modalities that the inner attack changes for these terms."""
    found: set[Tower] = set()
    for term in terms:
        found |= {tower for tower in ("image", "text") if concerns(term, tower)}
    return frozenset(found)


def concerns(term: Term, tower: Tower) -> bool:
    """Whether a term depends on the adversarial view of a modality."""
    if isinstance(term, Anchor):
        return term.tower == tower
    if isinstance(term, Language):
        return tower == "image" and term.image == "adversarial"
    return (term.image if tower == "image" else term.text) == "adversarial"


def terms_for(model: nn.Module, terms: Iterable[Term], *, defence: str) -> tuple[Term, ...]:
    """Return what a defence's terms become for a kind of model.

    A fusion model is trained to match as well as to compare: every contrastive term brings the matching term of the
    same views. A captioner has no contrastive loss: its caption loss on the term's view of the image stands for it.
    Captions are its labels there, which nobody attacks.

    Args:
        model: meets `FusionModel`, `Captioner`, or `VisionLanguageModel`.
        terms: of a row of the table.
        defence: its name, for the error.

    Raises:
        ValueError: a captioner, which has no embeddings, with a term that holds embeddings.
    """
    if isinstance(model, FusionModel):
        return tuple(
            each
            for term in terms
            for each in ((term, Match(term.image, term.text, term.weight)) if isinstance(term, Contrast) else (term,))
        )
    if not isinstance(model, Captioner) or isinstance(model, VisionLanguageModel):
        return tuple(terms)
    shares: dict[View, float] = {}
    for term in terms:
        if not isinstance(term, Contrast):
            raise ValueError(
                f"Expected a defence with a loss on pairs for the captioner {model.name!r}, but {defence!r} holds "
                "embeddings, which it has not: use 'tecoa' or 'mat'."
            )
        shares[term.image] = shares.get(term.image, 0.0) + term.weight
    return tuple(Language(view, weight) for view, weight in shares.items())


def scaled(terms: Iterable[Term], factor: float) -> tuple[Term, ...]:
    """Return the terms with their weights times `factor`."""
    return tuple(replace(term, weight=term.weight * factor) for term in terms)


@dataclass(frozen=True)
class DefenceRow:
    """One defence.

    Args:
        name: its name in recipes.
        summary: one line for listings.
        terms: the outer loss, a weighted sum.
        trains: the towers that are trained. With both, all other parameters are too (the temperature, fusion layers).
        one_to_many: whether every true link in a batch is a target (see `Composition`).
        source: candidate source of the inner text attack, unless the caller names one.
    """

    name: str
    summary: str
    terms: tuple[Term, ...]
    trains: tuple[Tower, ...]
    one_to_many: bool = False
    source: SourceLike = "thesaurus"

    @property
    def attacks(self) -> frozenset[Tower]:
        """The modalities that the inner attack changes, in a model of two towers."""
        return attacked(self.terms)


DEFENCES: dict[str, DefenceRow] = {
    row.name: row
    for row in (
        DefenceRow(
            "clean",
            "plain contrastive fine-tuning, no attack",
            terms=(Contrast("clean", "clean"),),
            trains=("image", "text"),
        ),
        DefenceRow(
            "tecoa",
            "adversarial images against clean captions (Mao et al., 2023)",
            terms=(Contrast("adversarial", "clean"),),
            trains=("image",),
        ),
        DefenceRow(
            "fare",
            "adversarial image embeddings back to the original clean ones, no captions (Schlarmann et al., 2024)",
            terms=(Anchor("image"),),
            trains=("image",),
        ),
        DefenceRow(
            "mmcoa",
            "adversarial images with clean captions, and clean images with adversarial captions (Zhou et al., 2024)",
            terms=(Contrast("adversarial", "clean", 0.5), Contrast("clean", "adversarial", 0.5)),
            trains=("image", "text"),
        ),
        DefenceRow(
            "leaf",
            "adversarial text embeddings back to the original clean ones, letters changed (Rocamora et al., 2025)",
            terms=(Anchor("text"),),
            trains=("text",),
            source="characters",
        ),
        DefenceRow(
            "mat",
            "adversarial images with adversarial captions, one-to-one (MAT)",
            terms=(Contrast("adversarial", "adversarial"),),
            trains=("image", "text"),
        ),
        DefenceRow(
            "mat+",
            "adversarial images with adversarial captions, every true pair of a batch a target (MAT+)",
            terms=(Contrast("adversarial", "adversarial"),),
            trains=("image", "text"),
            one_to_many=True,
        ),
    )
}
