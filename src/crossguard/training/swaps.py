"""The inner text attack: a few substitutions per text, drawn, scored together in one forward pass.

A full BERT-Attack encodes a caption of ten words some twenty times and is for judging a model; training needs a cheap
opponent that sees other words at every step.
"""

from collections.abc import Callable, Sequence
from typing import cast

import numpy as np
import torch
from jaxtyping import Float

from crossguard.attacks.candidates import CandidateSource, propose
from crossguard.attacks.words import replace_word, split_words
from crossguard.models import Captioner, VisionLanguageModel

Score = Callable[[list[str], list[int]], Float[np.ndarray, " variants"]]
"""From variants and the index of each one's original to how well they still serve: lower is worse for the model."""

_MARGIN = 1e-6


class Swaps:
    """Single-word substitutions of texts; those of a text are looked up once, as training meets it again.

    Args:
        source: where candidates come from.
        model: for sources that look into a model: the one that training starts from. Under the weights of the moment,
            a training that was taken up would meet other substitutions than one that was not stopped.
    """

    def __init__(self, source: CandidateSource, model: VisionLanguageModel | Captioner) -> None:
        self._source, self._model = source, cast(VisionLanguageModel, model)  # captions are never attacked
        self._known: dict[str, tuple[tuple[int, str], ...]] = {}

    def of(self, texts: Sequence[str]) -> list[tuple[tuple[int, str], ...]]:
        """Return, per text, all (word index, new word) that the source proposes."""
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if new:
            for text, candidates in zip(new, propose(self._source, new, model=self._model), strict=True):
                self._known[text] = tuple((index, word) for index, words in enumerate(candidates) for word in words)
        return [self._known[text] for text in texts]


@torch.no_grad()
def swap_some(
    texts: Sequence[str],
    score: Score,
    *,
    words: int,
    tries: int,
    swaps: Swaps,
    rng: np.random.Generator,
) -> tuple[str, ...]:
    """Substitute up to `words` words per text, greedily: per word, the best of `tries` drawn substitutions.

    With `tries` above the number of a text's substitutions this is the exhaustive greedy search.

    Args:
        texts: the originals.
        score: of variants; all variants of all texts are scored in one call per word.
        words: most substitutions per text.
        tries: substitutions scored per text and word.
        swaps: where they come from.
        rng: draws them.

    Returns:
        One text per original; a text that no tried substitution makes worse stays as it is.
    """
    current = list(texts)
    options = swaps.of(texts)
    used: list[set[int]] = [set() for _ in texts]
    best: Float[np.ndarray, " texts"] | None = None
    for _ in range(words):
        variants, owners, places = _draw_variants(current, options, used, tries, rng)
        if not variants:
            break
        if best is None:
            best = score(current, list(range(len(current))))
        scores = score(variants, owners)
        # The best variant of each text: the first one met in the order of scores.
        met: set[int] = set()
        for at in np.argsort(scores, kind="stable").tolist():
            owner = owners[at]
            if owner in met:
                continue
            met.add(owner)
            if scores[at] < best[owner] - _MARGIN:
                current[owner], best[owner] = variants[at], scores[at]
                used[owner].add(places[at])
    return tuple(current)


def _draw_variants(
    current: Sequence[str],
    options: Sequence[tuple[tuple[int, str], ...]],
    used: Sequence[set[int]],
    tries: int,
    rng: np.random.Generator,
) -> tuple[list[str], list[int], list[int]]:
    """Return variants of all texts, with each one's text and changed word; words changed before are left alone."""
    variants, owners, places = [], [], []
    for owner, (text, swaps, done) in enumerate(zip(current, options, used, strict=True)):
        free = [swap for swap in swaps if swap[0] not in done] if done else swaps
        picks = range(len(free)) if len(free) <= tries else rng.choice(len(free), size=tries, replace=False).tolist()
        words = split_words(text)
        for pick in picks:
            place, word = free[pick]
            variants.append(replace_word(text, words[place], word))
            owners.append(owner)
            places.append(place)
    return variants, owners, places
