"""Whether a word may stand for another: no antonyms, no other member of a set of exclusives, no negations.

Neighbours in an embedding space and guesses of a language model are words of like *use*, which opposites are as well.
"""

import gzip
from functools import cache
from importlib.resources import files

from crossguard.attacks.stopwords import is_stop_word

_EXCLUSIVE_SETS = (
    "red orange yellow green blue purple violet pink brown black white grey gray cyan magenta teal turquoise gold "
    "golden silver beige tan maroon navy",
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand million half "
    "single double triple couple",
    "first second third fourth fifth sixth seventh eighth ninth tenth last",
    "left right",
    "up down top bottom upper lower upward downward upwards downwards",
    "front back rear",
    "north south east west northern southern eastern western northeast northwest southeast southwest",
    "monday tuesday wednesday thursday friday saturday sunday",
    "january february march april may june july august september october november december",
    "spring summer autumn fall winter",
    "morning noon afternoon evening night midnight day",
    "man woman boy girl gentleman lady guy",
    "men women boys girls gentlemen ladies guys",
    "male female",
    "male woman girl lady women girls ladies",
    "female man boy gentleman guy men boys gentlemen guys",
    "father mother dad mom son daughter brother sister uncle aunt husband wife king queen prince princess grandfather "
    "grandmother grandpa grandma",
    "open closed shut",
    "clockwise anticlockwise counterclockwise",
    "solid liquid gas",
    "light medium dark",
)


@cache
def _sets_of() -> dict[str, frozenset[int]]:
    sets: dict[str, set[int]] = {}
    for number, members in enumerate(_EXCLUSIVE_SETS):
        for word in members.split():
            sets.setdefault(word, set()).add(number)
    return {word: frozenset(numbers) for word, numbers in sets.items()}


@cache
def antonyms() -> frozenset[tuple[str, str]]:
    """Return the antonym pairs of WordNet, both ways round."""
    packed = (files("crossguard.attacks") / "assets" / "antonyms.txt.gz").read_bytes()
    pairs = [tuple(line.split("\t")) for line in gzip.decompress(packed).decode().splitlines()]
    return frozenset([(a, b) for a, b in pairs] + [(b, a) for a, b in pairs])


def keeps_meaning(word: str, candidate: str) -> bool:
    """Whether `candidate` may be tried in the place of `word` at all (lower case both).

    Refused: the word itself, stop words and negations, anything that is not one piece of letters, WordNet antonyms,
    and another member of the same set of exclusives (colours, numbers, sides, days, family members, ...).

    Example:
        >>> [c for c in ("couch", "blue", "big", "not", "two words") if keeps_meaning("small", c)]
        ['couch', 'blue']
        >>> keeps_meaning("red", "blue")
        False
    """
    if candidate == word or is_stop_word(candidate) or not candidate.replace("-", "").isalpha():
        return False
    if (word, candidate) in antonyms():
        return False
    sets = _sets_of()
    return not (word in sets and candidate in sets and sets[word] & sets[candidate])
