"""Synonyms from WordNet 3.0, shipped with the package: the candidate source that needs no model and no download."""

import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from crossguard.attacks.candidates import Candidates, attackable
from crossguard.attacks.inflect import Form, inflect, lemmas
from crossguard.attacks.meaning import keeps_meaning
from crossguard.attacks.words import split_words
from crossguard.checks import nearest
from crossguard.models import VisionLanguageModel

# Forms a part of speech can take; verbs' third person looks like a plural.
_FORMS: dict[str, tuple[Form, ...]] = {"n": ("", "s"), "v": ("", "s", "ing", "ed"), "a": ("",), "r": ("",)}
_BROADER = ("never", "fallback", "always")


class Thesaurus:
    """Words of the same WordNet synset, similar adjectives, and broader words, in the form of the word they replace.

    The data are built by `tools/build_thesaurus.py` from Princeton WordNet 3.0 (licence beside them).

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
        broad: list[str] = []
        for lemma, form in lemmas(word):
            for entry in entries(lemma):
                if form in _FORMS[entry.pos]:
                    same += [_in_form(w, form) for w in entry.synonyms]
                    broad += [_in_form(w, form) for w in entry.broader]
        kept, wider = (tuple(w for w in dict.fromkeys(ws) if keeps_meaning(word, w)) for ws in (same, broad))
        if self.broader == "always":
            kept += tuple(w for w in wider if w not in kept)
        elif self.broader == "fallback" and not kept:
            kept = wider
        return kept[: self.limit]


def _in_form(word: str, form: Form) -> str:
    # WordNet lists some words in the plural alone ("stakes").
    plural = form == "s" and word.endswith("s") and not word.endswith("ss")
    return word if plural else inflect(word, form)


@dataclass(frozen=True)
class Entry:
    """What WordNet says of a word as one part of speech (n, v, a or r), best first."""

    pos: str
    synonyms: tuple[str, ...]
    broader: tuple[str, ...]


@cache
def lines() -> dict[str, tuple[str, ...]]:
    """Read the shipped thesaurus: a word's lines, its commonest part of speech first, not taken apart yet."""
    packed = (files("crossguard.attacks") / "assets" / "thesaurus.txt.gz").read_bytes()
    table: dict[str, tuple[str, ...]] = {}
    for line in gzip.decompress(packed).decode().splitlines():
        word, _, rest = line.partition("\t")
        table[word] = (*table[word], rest) if word in table else (rest,)
    return table


@cache
def entries(word: str) -> tuple[Entry, ...]:
    """Return a lower-case lemma's entries, its commonest part of speech first."""
    found = []
    for line in lines().get(word, ()):
        pos, same, broader = line.split("\t")
        found.append(Entry(pos, *(tuple(words.split(",")) if words else () for words in (same, broader))))
    return tuple(found)


@cache
def vocabulary() -> frozenset[str]:
    """Return every word of the shipped thesaurus, as an entry or as a candidate."""
    tails = ",".join(rest[2:].replace("\t", ",") for rows in lines().values() for rest in rows)
    return frozenset(lines()) | frozenset(tails.split(","))
