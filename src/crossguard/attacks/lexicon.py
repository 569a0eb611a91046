"""The shipped lexicon: what WordNet says of English words, and their inflected forms, regular and irregular."""

import gzip
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal

Form = Literal["", "s", "ing", "ed", "en", "er", "est"]
"""Plural or third person, present participle, past, past participle, comparative, superlative; "": as it is."""

_FORMS: Mapping[str, tuple[Form, ...]] = {
    "n": ("s",),
    "v": ("s", "ing", "ed", "en"),
    "a": ("er", "est"),
    "r": ("er", "est"),
}
_RARE = 0.1
# About how often a word of running text stands in each form; the choice among a spelling's readings rests on it.
_SHARES = {
    "n": {"": 0.7, "s": 0.3},
    "v": {"": 0.3, "s": 0.1, "ing": 0.2, "ed": 0.3, "en": 0.2},
    "a": {"": 0.9, "er": 0.05, "est": 0.05},
    "r": {"": 0.9, "er": 0.05, "est": 0.05},
}


@dataclass(frozen=True)
class Entry:
    """What WordNet says of a word as one part of speech.

    Args:
        word: the word, lower case.
        pos: n, v, a or r.
        tagged: how often the part of speech was met in WordNet's tagged text.
        forms: the spellings of each form; the first is the one to write, and is empty where no lexicon vouches for it.
        synonyms: words that mean the same, or are similar; best first.
        broader: words that say less ("cat": "feline"); best first.
    """

    word: str
    pos: str
    tagged: int
    forms: Mapping[Form, tuple[str, ...]]
    synonyms: tuple[str, ...]
    broader: tuple[str, ...]


@cache
def _tables() -> tuple[dict[str, str], dict[str, str]]:
    """Read the shipped file: the lines of every word, and the words that every spelling of a form is a form of.

    Both are plain strings, taken apart when they are asked for: 0.2 million small objects would take a second to make.
    """
    packed = (files("crossguard.attacks") / "assets" / "thesaurus.txt.gz").read_bytes()
    lines: dict[str, str] = {}
    lemmas: dict[str, str] = {}
    for line in gzip.decompress(packed).decode().splitlines():
        word, _, _, forms, _ = line.split("\t", 4)
        lines[word] = f"{lines[word]}\n{line}" if word in lines else line
        for spelling in forms.replace("/", " ").replace(",", " ").split():
            lemmas[spelling] = f"{lemmas[spelling]} {word}" if spelling in lemmas else word
    return lines, lemmas


@cache
def entries(word: str) -> tuple[Entry, ...]:
    """Return a lower-case word's entries, its commonest part of speech first."""
    found = []
    for line in _tables()[0].get(word, "").splitlines():
        _, pos, tagged, forms, *lists = line.split("\t")
        slots = zip(_FORMS[pos], forms.split(","), strict=True)
        spellings = {form: tuple(slot.split("/")) for form, slot in slots if slot}
        found.append(Entry(word, pos, int(tagged), spellings, *(tuple(ws.split(",")) if ws else () for ws in lists)))
    return tuple(found)


def readings(word: str) -> tuple[tuple[Entry, Form], ...]:
    """Return what a lower-case word may be a form of, likeliest first.

    Forms a tenth as likely as the likeliest are left out, and words as they are that the tagged text never has beside a
    form that it has ("sat", a day of the week).

    Example:
        >>> [(entry.word, entry.pos, form) for entry, form in readings("berries")]
        [('berry', 'n', 's')]
        >>> [(entry.word, entry.pos, form) for entry, form in readings("wore")]
        [('wear', 'v', 'ed')]
    """
    found: list[tuple[Entry, Form]] = [(entry, "") for entry in entries(word)]
    for lemma in dict.fromkeys(_tables()[1].get(word, "").split()):
        if lemma != word:  # "sheep" and "put" are taken as they stand
            found += [(entry, form) for entry in entries(lemma) for form, ws in entry.forms.items() if word in ws]
    weights = [entry.tagged * _SHARES[entry.pos][form] for entry, form in found]
    most = max(weights, default=0.0)
    order = sorted(range(len(found)), key=lambda i: -weights[i])
    return tuple(found[i] for i in order if weights[i] >= _RARE * most or (found[i][1] == "" and found[i][0].tagged))


def inflect(word: str, pos: str, form: Form) -> str | None:
    """Put a lower-case word into a form; None where the word is not known to have it.

    Example:
        >>> inflect("berry", "n", "s"), inflect("wear", "v", "ed"), inflect("big", "a", "est")
        ('berries', 'wore', 'biggest')
        >>> inflect("careful", "a", "er") is None
        True
    """
    if form == "":
        return word
    spellings = (entry.forms.get(form, ("",)) for entry in entries(word) if entry.pos == pos)
    return next(spellings, ("",))[0] or None


def is_known(word: str) -> bool:
    """Whether a lower-case word, or what it is a form of, is in the lexicon.

    Example:
        >>> is_known("boxes"), is_known("boxxes")
        (True, False)
    """
    return any(word in table for table in _tables())
