"""Simple English inflection, so that "cats" finds the entry of "cat" and its synonyms come back in the plural."""

from typing import Literal

Form = Literal["", "s", "ing", "ed"]
_VOWELS = "aeiou"
_IRREGULAR_PLURALS = {
    "children": "child", "men": "man", "women": "woman", "people": "person", "feet": "foot", "teeth": "tooth",
    "mice": "mouse", "geese": "goose", "knives": "knife", "leaves": "leaf", "wolves": "wolf", "lives": "life",
    "wives": "wife", "halves": "half", "shelves": "shelf", "scarves": "scarf", "loaves": "loaf", "hooves": "hoof",
    "calves": "calf", "thieves": "thief", "elves": "elf", "oxen": "ox", "dice": "die",
}  # fmt: skip
_PLURAL_MANS = frozenset({"human", "german", "roman", "shaman", "ottoman", "talisman", "caiman", "superhuman"})
_IRREGULAR_PLURAL_OF = {singular: plural for plural, singular in _IRREGULAR_PLURALS.items()}


def lemmas(word: str) -> tuple[tuple[str, Form], ...]:
    """Return what a lower-case word may be a form of, likeliest first, itself last.

    Example:
        >>> lemmas("berries")[0], lemmas("waving")[1], lemmas("sofa")
        (('berry', 's'), ('wave', 'ing'), (('sofa', ''),))
    """
    found: list[tuple[str, Form]] = []
    if word in _IRREGULAR_PLURALS:
        found.append((_IRREGULAR_PLURALS[word], "s"))
    elif word.endswith("men") and len(word) > 5:
        found.append((word[:-3] + "man", "s"))
    elif word.endswith("ies") and len(word) > 4:
        found.append((word[:-3] + "y", "s"))
    elif word.endswith(("ses", "xes", "zes", "ches", "shes", "oes")) and len(word) > 4:
        found += [(word[:-2], "s"), (word[:-1], "s")]
    elif word.endswith("s") and not word.endswith(("ss", "us", "is")) and len(word) > 3:
        found.append((word[:-1], "s"))
    elif word.endswith("ing") and len(word) > 5:
        found += [(stem, "ing") for stem in _stems(word[:-3])]
    elif word.endswith("ied") and len(word) > 4:
        found.append((word[:-3] + "y", "ed"))
    elif word.endswith("ed") and len(word) > 4:
        found += [(stem, "ed") for stem in _stems(word[:-2])]
    return (*found, (word, ""))


def inflect(lemma: str, form: Form) -> str:
    """Put a lower-case lemma into a form, by the regular rules and the commonest irregular plurals.

    Example:
        >>> [inflect("berry", "s"), inflect("wave", "ing"), inflect("grin", "ed"), inflect("child", "s")]
        ['berries', 'waving', 'grinned', 'children']
    """
    if form == "":
        return lemma
    y_after_consonant = lemma.endswith("y") and lemma[-2:-1] not in _VOWELS
    if form == "s":
        if lemma in _IRREGULAR_PLURAL_OF:
            return _IRREGULAR_PLURAL_OF[lemma]
        if lemma.endswith("man") and lemma not in _PLURAL_MANS:
            return lemma[:-3] + "men"
        if y_after_consonant:
            return lemma[:-1] + "ies"
        return lemma + ("es" if lemma.endswith(("s", "x", "z", "ch", "sh")) else "s")
    if form == "ed" and y_after_consonant:
        return lemma[:-1] + "ied"
    if lemma.endswith("e") and not (form == "ing" and lemma.endswith(("ee", "oe", "ye"))):
        return lemma[:-1] + form
    if _doubles(lemma):
        return lemma + lemma[-1] + form
    return lemma + form


def _stems(stem: str) -> tuple[str, ...]:
    """What was before "-ing" or "-ed": as it is, with a silent e, or with its doubled consonant single."""
    doubled = len(stem) > 2 and stem[-1] == stem[-2] and stem[-1] not in "aeiouls"
    return (stem[:-1], stem) if doubled else (stem, stem + "e")


def _doubles(lemma: str) -> bool:
    """One syllable, consonant - vowel - consonant: "grin", not "rain", "play" or "open"."""
    return (
        len(lemma) > 2
        and lemma[-1] not in "aeiouwxy"
        and lemma[-2] in _VOWELS
        and lemma[-3] not in _VOWELS
        and sum(letter in _VOWELS for letter in lemma) == 1
    )
