"""Synonyms from WordNet 3.0, shipped with the package: the candidate source that needs no model and no download."""

from collections.abc import Sequence

from crossguard.attacks.candidates import Candidates, attackable
from crossguard.attacks.lexicon import inflect, readings
from crossguard.attacks.meaning import keeps_meaning
from crossguard.attacks.words import split_words
from crossguard.checks import nearest
from crossguard.models import VisionLanguageModel

_BROADER = ("never", "fallback", "always")


class Thesaurus:
    """Words of the same WordNet synset, similar adjectives, and broader words, in the form of the word they replace.

    Only forms that a lexicon vouches for are written: "ran" brings "sped". The data are built by
    `tools/build_thesaurus.py` from Princeton WordNet 3.0 and LemmInflect (licences beside them).

    Args:
        limit: the most candidates per word.
        broader: broader words, which say less ("cat" -> "feline"): "never"; "fallback", only for words without
            synonyms; "always", after the synonyms.

    Raises:
        ValueError: `limit` below one, or an unknown `broader`.

    Example:
        >>> Thesaurus().of("sofas")
        ('couches', 'lounges')
    """

    name = "thesaurus"

    def __init__(self, *, limit: int = 10, broader: str = "fallback") -> None:
        if limit < 1:
            raise ValueError(f"Expected `limit` >= 1, but got {limit}.")
        if broader not in _BROADER:
            raise ValueError(f"Unknown `broader` {broader!r}: {nearest(broader, _BROADER)}.")
        self.limit, self.broader = limit, broader
        self._known: dict[str, tuple[str, ...]] = {}

    def candidates(self, texts: Sequence[str], *, model: VisionLanguageModel | None = None) -> list[Candidates]:
        """Return synonyms for every word; the model plays no part."""
        return [tuple(self.of(word.core) for word in split_words(text)) for text in texts]

    def of(self, word: str) -> tuple[str, ...]:
        """Return the candidates for one word, best first."""
        word = word.lower()
        if word not in self._known:
            self._known[word] = self._look_up(word) if attackable(word) else ()
        return self._known[word]

    def _look_up(self, word: str) -> tuple[str, ...]:
        same: list[str] = []
        wider: list[str] = []
        found = readings(word)
        for entry, form in found:
            made = ([inflect(w, entry.pos, form) for w in words] for words in (entry.synonyms, entry.broader))
            mine, broad = ([w for w in words if w and keeps_meaning(word, w)] for words in made)
            # The likeliest reading counts first, so that "walking" is not "close" alone (as in walking distance).
            likeliest = entry == found[0][0]
            same += mine or (broad if likeliest and self.broader == "fallback" else [])
            wider += broad
        kept = tuple(dict.fromkeys(same))
        if self.broader == "always" or (self.broader == "fallback" and not kept):
            kept = tuple(dict.fromkeys((*same, *wider)))
        return kept[: self.limit]
