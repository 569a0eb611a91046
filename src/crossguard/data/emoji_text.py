"""Captions of an emoji: a name and several of its human keywords, 6 to 12 words."""

import hashlib
from collections.abc import Iterator
from itertools import islice

from crossguard.data.emoji_catalogue import Emoji

SHORTEST, LONGEST = 6, 12
_OPENINGS = ("a picture of", "a drawing of", "an emoji of", "an icon of")
_DRAWS = 60


def chance(*parts: object) -> int:
    """Return a number in [0, 2^32) that depends on `parts` alone: the same on every machine and in every version."""
    return int.from_bytes(hashlib.sha256("|".join(map(str, parts)).encode()).digest()[:4], "big")


def with_tone(name: str, tone: str) -> str:
    """Return the name with the words of its skin tone.

    Example:
        >>> with_tone("woman astronaut", "medium dark")
        'woman astronaut with medium dark skin tone'
    """
    return f"{name} with {tone} skin tone" if tone else name


def captions(emoji: Emoji, count: int, *, skip: int = 0) -> tuple[str, ...]:
    """Return captions number `skip` to `skip + count` of an emoji; fewer if it has too few words for so many.

    All captions of an emoji are different. The sets of their words differ too as long as there are enough keywords;
    after that only the order does.
    """
    return tuple(islice(_all_captions(emoji), skip, skip + count))


def _all_captions(emoji: Emoji) -> Iterator[str]:
    drawn = [_draw(emoji, number) for number in range(_DRAWS)]
    words_seen: set[frozenset[str]] = set()
    late = []
    for caption in dict.fromkeys(drawn):
        words = frozenset(caption.replace(",", "").split())
        if words in words_seen:
            late.append(caption)
        else:
            words_seen.add(words)
            yield caption
    yield from late


def _draw(emoji: Emoji, number: int) -> str:
    seed = (emoji.key, number)
    # The preferred name opens half of the captions.
    name = emoji.names[max(0, chance(*seed, "name") % (2 * len(emoji.names)) - len(emoji.names))]
    subject = with_tone(name, emoji.tone)
    room = LONGEST - len(subject.split())
    keywords = sorted((word for word in emoji.keywords if word not in subject.split()), key=lambda w: chance(*seed, w))
    wanted = max(SHORTEST - len(subject.split()), 3 + chance(*seed, "count") % 4)
    keywords = keywords[: min(room, wanted)]
    text = f"{subject}, {' '.join(keywords)}" if keywords else subject
    if len(text.split()) < SHORTEST:
        text = f"{_OPENINGS[chance(*seed, 'opening') % len(_OPENINGS)]} {text}"
    return text
