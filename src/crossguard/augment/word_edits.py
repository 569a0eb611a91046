"""The four edits of EDA (Wei & Zou, EMNLP 2019): replace by a synonym, insert a synonym, swap, delete.

Every edit takes a text, how many words to edit, and a random generator; it returns the text unchanged when it has
nothing to edit. Punctuation stays where it is.
"""

from collections.abc import Callable
from random import Random
from typing import Literal, TypeAlias

from crossguard.attacks import Thesaurus
from crossguard.attacks.stopwords import is_negation
from crossguard.attacks.words import replace_word, split_words

Edit = Literal["replace", "insert", "swap", "delete"]
Editor: TypeAlias = Callable[[str, int, Random, Thesaurus], str]


def replace_words(text: str, words: int, dice: Random, thesaurus: Thesaurus) -> str:
    """Put synonyms in the place of `words` random words that have some; stop words and negations have none."""
    known = [i for i, word in enumerate(split_words(text)) if thesaurus.of(word.core)]
    for i in dice.sample(known, min(words, len(known))):
        word = split_words(text)[i]
        text = replace_word(text, word, dice.choice(thesaurus.of(word.core)))
    return text


def insert_words(text: str, words: int, dice: Random, thesaurus: Thesaurus) -> str:
    """Insert synonyms of `words` random words at random places."""
    choices = [found for word in split_words(text) if (found := thesaurus.of(word.core))]
    if not choices:
        return text
    pieces = text.split()
    for _ in range(words):
        pieces.insert(dice.randrange(len(pieces) + 1), dice.choice(dice.choice(choices)))
    return " ".join(pieces)


def swap_words(text: str, words: int, dice: Random, thesaurus: Thesaurus | None = None) -> str:
    """Exchange two random different words, `words` times.

    Example:
        >>> swap_words("cats, purr", 1, Random(0))
        'purr, cats'
    """
    for _ in range(words):
        found = [word for word in split_words(text) if word.core]
        if len({word.core for word in found}) < 2:
            return text
        first = dice.choice(found)
        second = dice.choice([word for word in found if word.core != first.core])
        first, second = sorted((first, second), key=lambda word: word.start)
        middle = text[first.end : second.start]
        text = text[: first.start] + second.core + middle + first.core + text[second.end :]
    return text


def delete_words(text: str, words: int, dice: Random, thesaurus: Thesaurus | None = None) -> str:
    """Delete `words` random words, but never a negation and never the last other word."""
    pieces = text.split()
    cores = [word.core for word in split_words(text)]
    deletable = [i for i, core in enumerate(cores) if core and not is_negation(core)]
    gone = set(dice.sample(deletable, max(0, min(words, len(deletable) - 1))))
    return " ".join(piece for i, piece in enumerate(pieces) if i not in gone).rstrip(",;: ") if gone else text


EDITS: dict[Edit, Editor] = {
    "replace": replace_words,
    "insert": insert_words,
    "swap": swap_words,
    "delete": delete_words,
}
