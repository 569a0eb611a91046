"""What emoji there are: one row per emoji with its concept, skin tone, names and keywords.

Sources, all from installed packages: em-keyboard (names and human keywords of ~1,900 emoji, from emojilib, MIT),
`emoji` (names, aliases and the skin-tone sequences of the Unicode data, BSD), and Python's own Unicode names.
"""

import importlib
import importlib.resources
import json
import re
import unicodedata
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

from crossguard.extras import install

TONES = {
    0x1F3FB: "light",
    0x1F3FC: "medium light",
    0x1F3FD: "medium",
    0x1F3FE: "medium dark",
    0x1F3FF: "dark",
}
_FULLY_QUALIFIED = 2
_NUMBERS = {
    "0": "zero", "1": "one", "2": "two", "3": "three", "4": "four", "5": "five", "6": "six", "7": "seven",
    "8": "eight", "9": "nine", "10": "ten", "11": "eleven", "12": "twelve", "17": "seventeen", "18": "eighteen",
    "24": "twenty four", "30": "thirty", "100": "hundred", "1234": "numbers", "1st": "first", "2nd": "second",
    "3rd": "third",
}  # fmt: skip
_SIGNS = {"#": " hash ", "*": " asterisk ", "&": " and ", "\u2019": "", "'": "", "!": " exclamation "}


@dataclass(frozen=True)
class Emoji:
    """One emoji.

    Args:
        key: code points in hexadecimal joined by "-", without the variation selector fe0f.
        concept: key of the emoji without its skin tone.
        tone: "" for the untoned form, else "light", "medium light", "medium", "medium dark" or "dark".
        names: clean names of the concept, the preferred one first, then its aliases; all different.
        keywords: clean single words of the concept: its keywords, then words of its names; all different.
    """

    key: str
    concept: str
    tone: str
    names: tuple[str, ...]
    keywords: tuple[str, ...]


def need(module: str) -> ModuleType:
    """Import an optional package of the built-in data.

    Raises:
        ImportError: it is not installed; the message says how to get it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"The built-in emoji data need the package {module!r}, which is not installed: {install('demo')}"
        ) from error


def clean(text: str) -> str:
    """Return lower-case words of letters only; numbers become words, or go where none is known.

    Example:
        >>> clean("St. Pierre & Miquelon"), clean("keycap_10"), clean("women\u2019s")
        ('st pierre and miquelon', 'keycap ten', 'womens')
    """
    for sign, word in _SIGNS.items():
        text = text.replace(sign, word)
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    words = (_NUMBERS.get(word, word) for word in re.split(r"[^a-z0-9]+", plain))
    return " ".join(word for word in words if word and not re.search(r"\d", word))


def key_of(sequence: str) -> str:
    """Return the key of an emoji sequence: its code points without fe0f.

    Example:
        >>> key_of("\u2764\ufe0f")
        '2764'
    """
    return "-".join(f"{ord(char):x}" for char in sequence if char != "\ufe0f")


@cache
def catalogue() -> tuple[Emoji, ...]:
    """Return every emoji that has keywords, untoned and in each single skin tone, in a fixed order.

    Sequences with more than one skin-tone modifier (two people) are left out.

    Raises:
        ImportError: a package of the `demo` extra is missing.
    """
    known = {sequence: row for sequence, row in need("emoji").EMOJI_DATA.items() if row["status"] == _FULLY_QUALIFIED}
    human = json.loads(importlib.resources.files(need("em")).joinpath("emojis.json").read_text("utf-8"))
    concepts = {}
    for sequence, (name, *words) in human.items():
        row: dict[str, Any] = next((known[form] for form in (sequence, f"{sequence}\ufe0f") if form in known), {})
        concepts[key_of(sequence)] = _texts(sequence, name, words, row)
    rows = []
    for sequence in sorted({key_of(s): s for s in known}.values(), key=key_of):
        modifiers = [char for char in sequence if ord(char) in TONES]
        concept = key_of("".join(char for char in sequence if ord(char) not in TONES))
        if len(modifiers) <= 1 and concept in concepts and (sequence not in modifiers):
            tone = TONES[ord(modifiers[0])] if modifiers else ""
            rows.append(Emoji(key_of(sequence), concept, tone, *concepts[concept]))
    return tuple(rows)


def _texts(sequence: str, name: str, words: list[str], row: dict[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the clean names and keywords of a concept."""
    other = [row.get("en", ""), *row.get("alias", ())]
    bare = sequence.replace("\ufe0f", "")
    if len(bare) == 1:
        other.append(unicodedata.name(bare, ""))
    names = [clean(text.replace("_", " ")) for text in (name, *other)]
    # Two-letter country codes are no names; a name of up to six words leaves room for keywords.
    names = [text for i, text in enumerate(names) if i == 0 or (len(text) > 2 and text.count(" ") < 6)]
    loose = [word for text in (*words, *names) for word in clean(text).split()]
    return tuple(dict.fromkeys(names)), tuple(dict.fromkeys(word for word in loose if len(word) > 1))
