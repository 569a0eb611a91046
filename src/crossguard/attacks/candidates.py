"""Where word-swap's candidates come from: one protocol, and what its sources share."""

import warnings
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Protocol, TypeAlias, runtime_checkable
from weakref import WeakValueDictionary

from crossguard.attacks.stopwords import is_stop_word
from crossguard.attacks.words import split_words
from crossguard.models import VisionLanguageModel

Candidates: TypeAlias = tuple[tuple[str, ...], ...]
"""Per word of a text (as `split_words` counts them), the words to try in its place, best first."""


@runtime_checkable
class CandidateSource(Protocol):
    """Proposes words in the place of a text's words.

    Attributes:
        name: its name in the table of sources.
    """

    name: str

    def candidates(self, texts: Sequence[str], *, model: VisionLanguageModel) -> list[Candidates]:
        """Return, per text and word, candidates that are one white-space word each, lower case.

        Words that are not to be attacked (`attackable` is False) get none.

        Args:
            texts: a whole batch; a source may answer in a few large forwards and remember what it answered.
            model: the victim, for sources that look into it.
        """
        ...


@lru_cache(maxsize=2**16)
def attackable(core: str) -> bool:
    """Whether an attack may change a word at all: not punctuation, not a number, not a stop word or negation."""
    return any(letter.isalpha() for letter in core) and not is_stop_word(core)


_SETTLED: "WeakValueDictionary[int, CandidateSource]" = WeakValueDictionary()
"""Sources that had a candidate, or were warned of."""


def propose(source: CandidateSource, texts: Sequence[str], *, model: VisionLanguageModel) -> list[Candidates]:
    """Ask a source for candidates; warn, once, if it has had none for any word of any text so far."""
    found = source.candidates(texts, model=model)
    if id(source) not in _SETTLED:
        covered, words = coverage(texts, found)
        if words:
            with suppress(TypeError):  # an object without weak references is looked at anew each time
                _SETTLED[id(source)] = source
            if not covered:
                warnings.warn(uncovered(source, covered, words), stacklevel=2)
    return found


def coverage(texts: Sequence[str], found: Sequence[Candidates]) -> tuple[int, int]:
    """Return how many words of texts have candidates, and how many may be attacked at all."""
    asked = [attackable(word.core) for text in texts for word in split_words(text)]
    return sum(bool(options) for words in found for options in words), sum(asked)


def uncovered(source: CandidateSource, covered: int, words: int) -> str:
    """Say how few words a source has candidates for."""
    return (
        f"The source {source.name!r} has candidates for {covered} of {words} words that may be attacked "
        f"({100 * covered / words:.0f} %): an attack that substitutes words by it can change little or nothing, and "
        "what is left says little about robustness. Choose another source, or check the language of the texts."
    )
