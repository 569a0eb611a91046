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


def _like(pattern: str, new: str) -> str:
    if len(pattern) > 1 and pattern.isupper():
        return new.upper()
    return new[:1].upper() + new[1:] if pattern[:1].isupper() else new
