"""Where word-swap's candidates come from: one protocol, and what its sources share."""

from collections.abc import Sequence
from typing import Protocol, TypeAlias, runtime_checkable

from crossguard.attacks.stopwords import is_stop_word
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


def attackable(core: str) -> bool:
    """Whether an attack may change a word at all: not punctuation, not a number, not a stop word or negation."""
    return any(letter.isalpha() for letter in core) and not is_stop_word(core)
