"""Words of a text: white-space pieces, their cores without attached punctuation, and replacing one of them."""

import re
from dataclasses import dataclass

_PIECE = re.compile(r"\S+")
_EDGE = re.compile(r"^\W+|\W+$")


@dataclass(frozen=True)
class Word:
    """One white-space piece of a text.

    Args:
        start: where its core begins in the text.
        end: where its core ends.
        core: the piece without punctuation at its ends; may be empty.
    """

    start: int
    end: int
    core: str


def split_words(text: str) -> tuple[Word, ...]:
    """Return one `Word` per white-space piece.

    Example:
        >>> [word.core for word in split_words('a "big" cat, on mats!')]
        ['a', 'big', 'cat', 'on', 'mats']
    """
    words = []
    for match in _PIECE.finditer(text):
        piece = match.group()
        core = _EDGE.sub("", piece)
        start = match.start() + (piece.find(core) if core else 0)
        words.append(Word(start, start + len(core), core))
    return tuple(words)


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
