"""Character edits: one letter inserted, deleted or replaced inside a word (LEAF, 2025: Levenshtein distance one)."""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from string import ascii_lowercase

import torch

from crossguard.attacks.candidates import Candidates, attackable
from crossguard.attacks.lexicon import is_known
from crossguard.attacks.noise import uniform
from crossguard.attacks.stopwords import is_stop_word
from crossguard.attacks.words import split_letters, split_words
from crossguard.models import VisionLanguageModel


class Characters:
    """Every word at Levenshtein distance one, or an even choice of them.

    Args:
        limit: the most candidates per word, chosen once per word by a hash of it; None proposes all (about 53 per
            letter).
        keep_first: leave the first letter as it is, which readers notice most.
        real_words: allow an edit that makes another English word ("cat" -> "car", "boys" -> "toys"); LEAF forbids it,
            since it may change the meaning.

    Raises:
        ValueError: `limit` below one.

    Example:
        >>> "sofs" in Characters(limit=None).of("sofa")
        True
    """

    name = "characters"

    def __init__(self, *, limit: int | None = 20, keep_first: bool = False, real_words: bool = False) -> None:
        if limit is not None and limit < 1:
            raise ValueError(f"Expected `limit` >= 1 or None, but got {limit}.")
        self.limit, self.keep_first, self.real_words = limit, keep_first, real_words
        self._known: dict[str, tuple[str, ...]] = {}

    def candidates(self, texts: Sequence[str], *, model: VisionLanguageModel | None = None) -> list[Candidates]:
        """Return misspellings for every word; the model plays no part."""
        return [tuple(self.of(word.core) for word in split_words(text)) for text in texts]

    def of(self, word: str) -> tuple[str, ...]:
        """Return the candidates for one word."""
        word = word.lower()
        if word not in self._known:
            self._known[word] = self._edit(word) if attackable(word) else ()
        return self._known[word]

    def _edit(self, word: str) -> tuple[str, ...]:
        edits = one_edit(word, first=1 if self.keep_first else 0)
        if not self.real_words:
            edits = [edit for edit in edits if not (is_stop_word(edit) or is_known(edit))]
        edits = [edit for edit in edits if any(letter.isalpha() for letter in edit)]
        if self.limit is None or len(edits) <= self.limit:
            return tuple(edits)
        keys = uniform(torch.tensor([int.from_bytes(word.encode()[:7], "big")]), (len(edits),), seed=0)[0]
        chosen = sorted(keys.argsort()[: self.limit].tolist())
        return tuple(edits[i] for i in chosen)


def one_edit(word: str, *, first: int = 0) -> list[str]:
    """Return every different string at Levenshtein distance one with letters a-z, changed from letter `first` on.

    The marks on a letter go with it.

    Example:
        >>> len(one_edit("ab"))  # 2 deletions, 2 * 25 replacements, 3 * 26 insertions less 2 doubles
        128
    """
    ends = [0, *accumulate(map(len, split_letters(word)))][first:]
    deleted = [word[:a] + word[b:] for a, b in pairwise(ends)]
    replaced = [word[:a] + letter + word[b:] for a, b in pairwise(ends) for letter in ascii_lowercase]
    inserted = [word[:a] + letter + word[a:] for a in ends for letter in ascii_lowercase]
    return [edit for edit in dict.fromkeys(deleted + replaced + inserted) if edit not in (word, "")]
