"""What an attack may change, and how much it did."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import get_args

import torch
from jaxtyping import Float
from torch import Tensor

from crossguard.attacks.ball import Ball, ball_of, is_empty
from crossguard.checks import shown
from crossguard.models import Captioner, VisionLanguageModel
from crossguard.threat import L2, Budget, Elements, LInf, Target, WordEdit, WordEdits

ALL_KINDS: tuple[WordEdit, ...] = get_args(WordEdit)


@dataclass(frozen=True)
class Budgets:
    """What an attack may change: `image` in its ball, `words` of a text.

    `kinds` are the edits that `words` counts. `target` is whom retrieval will meet attacked: with "query" or "gallery",
    adversarial images rank against clean texts, and adversarial texts against clean images.
    """

    image: Budget
    words: int
    kinds: tuple[WordEdit, ...] = ("substitution",)
    target: Target = "both"

    @property
    def eps(self) -> float:
        """The radius of an L-inf or L2 budget of images; 0 for any other."""
        return self.image.eps if isinstance(self.image, LInf | L2) else 0.0

    @property
    def moves_images(self) -> bool:
        """Whether images may change at all."""
        return not is_empty(self.image)

    def ball(self, model: VisionLanguageModel | Captioner, pixels: Float[Tensor, "images 3 height width"]) -> Ball:
        """Return the ball about clean pixels.

        Raises:
            ValueError: `Elements` for a model that does not say its patches, or a patch larger than the images.
        """
        return ball_of(self.image, pixels, grid=patch_grid(model) if isinstance(self.image, Elements) else None)


def patch_grid(model: VisionLanguageModel | Captioner) -> tuple[int, int]:
    """Return (rows, columns) of the patches that an image's elements are.

    Raises:
        ValueError: the model does not say.
    """
    grid: tuple[int, int] | None = getattr(model, "patch_grid", None)
    if grid is None:
        raise ValueError(
            f"Expected a model with a `patch_grid` (rows, columns), whose patches a budget of elements counts, but "
            f"{model.name!r} has none."
        )
    return grid


def beyond_budget(
    source: Float[Tensor, "images 3 height width"],
    pixels: Float[Tensor, "images 3 height width"],
    source_texts: Sequence[str],
    texts: Sequence[str],
    threat: Mapping[str, Budget],
    *,
    grid: tuple[int, int] | None = None,
) -> str:
    """Return how adversarial pictures and texts, read from a file say, leave a threat model; "" if they do not.

    Args:
        source: clean pixels in [0, 1].
        pixels: what became of them.
        source_texts: clean texts.
        texts: what became of them.
        threat: budgets of "image" (`Elements` are patches) and "text" (`WordEdits`, or `Elements`); what has
            none may not change.
        grid: the patches (rows, columns) that `Elements` of an image count.
    """
    if pixels.shape != source.shape or len(texts) != len(source_texts):
        return f"{list(pixels.shape)} pixels and {len(texts)} texts for {list(source.shape)} and {len(source_texts)}"
    image, text = threat.get("image", LInf(0.0)), threat.get("text")
    if not (bool(torch.isfinite(pixels).all()) and pixels.min() >= 0 and pixels.max() <= 1):
        return "pixels outside of [0, 1]"
    ball = ball_of(image, source, grid=grid if isinstance(image, Elements) else None)
    if not ball.holds(pixels):
        most = float(ball.length(pixels - source).max())
        if isinstance(image, Elements):
            return f"{most:.0f} changed patches, where {image.r} are allowed"
        what = "a pixel that moved by" if isinstance(image, LInf) else "a change of"
        return f"{what} {most:.4g}, where {ball.radius:.4g} is allowed"
    allowed = WordEdits(text.r) if isinstance(text, Elements) else text if isinstance(text, WordEdits) else WordEdits(0)
    for clean, found in zip(source_texts, texts, strict=True):
        if clean != found and not (found.strip() and within_words(clean, found, allowed)):
            return f"the text {shown(found)} for {shown(clean)}, where {allowed} may be edited"
    return ""


def count_word_edits(source: str, edited: str, *, kinds: Collection[WordEdit] = ALL_KINDS) -> int | None:
    """Return the Levenshtein distance between two texts in words (split at white space).

    Args:
        source: the original.
        edited: what became of it.
        kinds: the edits that may be used; None is returned where they do not lead from one text to the other.

    Example:
        >>> count_word_edits("a cat on a mat", "a dog on mat")
        2
        >>> count_word_edits("a b", "b a"), count_word_edits("a b", "b a", kinds=["insertion", "deletion"])
        (2, 2)
        >>> count_word_edits("a cat", "a black cat", kinds=["substitution"]) is None
        True
    """
    a, b = _without_common_ends(source.split(), edited.split())
    insert, delete, substitute = (1 if k in kinds else inf for k in ("insertion", "deletion", "substitution"))
    row = [j * insert if j else 0 for j in range(len(b) + 1)]
    for i, word in enumerate(a, start=1):
        corner, row[0] = row[0], i * delete
        for j, other in enumerate(b, start=1):
            change = 0 if word == other else substitute
            corner, row[j] = row[j], min(row[j] + delete, row[j - 1] + insert, corner + change)
    return None if row[-1] == inf else int(row[-1])


def _without_common_ends(a: list[str], b: list[str]) -> tuple[list[str], list[str]]:
    """Return what is left of two lists without the words that both begin or end with, which no edit need touch."""
    if a == b:
        return [], []
    shorter = min(len(a), len(b))
    start = next((i for i in range(shorter) if a[i] != b[i]), shorter)
    end = next((i for i in range(shorter - start) if a[-1 - i] != b[-1 - i]), shorter - start)
    return a[start : len(a) - end], b[start : len(b) - end]


def within_words(source: str, edited: str, budget: WordEdits) -> bool:
    """Whether a text is within a word budget of its source.

    Example:
        >>> within_words("a cat", "a black cat", WordEdits(words=1)), within_words("a cat", "a dog", WordEdits(words=1))
        (False, True)
    """
    edits = count_word_edits(source, edited, kinds=budget.kinds)
    return edits is not None and edits <= budget.words
