"""Words of a text: white-space pieces, their cores without attached punctuation, and replacing one of them."""

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

_PIECE = re.compile(r"\S+")
_CORE = re.compile(r"\w(?:.*\w)?", re.DOTALL)
_JOINERS = "\u200c\u200d"


@dataclass(frozen=True)
class Word:
    """One white-space piece of a text.

    Args:
        start: where its core begins in the text.
        end: where its core ends.
        core: the piece without punctuation and signs at its ends; may be empty. The marks of its last letter (an
            accent that is a character of its own, a vowel sign) belong to it.
    """

    start: int
    end: int
    core: str


@lru_cache(maxsize=2**16)  # attacks come back to the same texts
def split_words(text: str) -> tuple[Word, ...]:
    """Return one `Word` per white-space piece.

    Example:
        >>> [word.core for word in split_words('a "big" cat, on mats!')]
        ['a', 'big', 'cat', 'on', 'mats']
    """
    words = []
    for match in _PIECE.finditer(text):
        piece = match.group()
        inner = _CORE.search(piece)
        begin, end = (inner.start(), _after_marks(piece, inner.end())) if inner else (0, 0)
        words.append(Word(match.start() + begin, match.start() + end, piece[begin:end]))
    return tuple(words)


def split_letters(word: str) -> list[str]:
    """Cut a word into letters, each with the marks that stand on it.

    Example:
        >>> [len(letter) for letter in split_letters("cafe\u0301s")]
        [1, 1, 1, 2, 1]
    """
    letters: list[str] = []
    at = 0
    while at < len(word):
        end = _after_marks(word, at + 1)
        letters.append(word[at:end])
        at = end
    return letters


def _after_marks(text: str, at: int) -> int:
    """Return where the combining marks end that begin at a place, with a joiner that gives the last one its form."""
    end = at
    while end < len(text) and unicodedata.category(text[end]).startswith("M"):
        end += 1
    return end + (at < end < len(text) and text[end] in _JOINERS)


def replace_word(text: str, word: Word, new: str) -> str:
    """Put another word in a word's place; attached punctuation, white space and capitals stay.

    Example:
        >>> replace_word("A Sofa, red", split_words("A Sofa, red")[1], "couch")
        'A Couch, red'
    """
    return text[: word.start] + _like(word.core, new) + text[word.end :]


def insert_word(text: str, word: Word, new: str) -> str:
    """Put another word before a word.

    Example:
        >>> insert_word('a "Sofa", red', split_words('a "Sofa", red')[1], "couch")
        'a couch "Sofa", red'
    """
    start, _ = _piece(text, word)
    return f"{text[:start]}{new} {text[start:]}"


def delete_word(text: str, word: Word) -> str:
    """Take a word away with its attached punctuation, and the white space behind it (before it, if it is the last).

    Example:
        >>> [delete_word("a red  sofa!", word) for word in split_words("a red  sofa!")]
        ['red  sofa!', 'a sofa!', 'a red']
    """
    start, end = _piece(text, word)
    rest = text[end:].lstrip()
    return text[:start] + rest if rest else text[:start].rstrip()


def _piece(text: str, word: Word) -> tuple[int, int]:
    start, end = word.start, word.end
    while start and not text[start - 1].isspace():
        start -= 1
    while end < len(text) and not text[end].isspace():
        end += 1
    return start, end


def _like(pattern: str, new: str) -> str:
    if len(pattern) > 1 and pattern.isupper():
        return new.upper()
    return new[:1].upper() + new[1:] if pattern[:1].isupper() else new
