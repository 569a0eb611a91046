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
    words_seen: set[frozenset[str]] = set()
    late: dict[str, None] = {}
    early: set[str] = set()
    for number in range(_DRAWS):
        caption = _draw(emoji, number)
        words = frozenset(caption.replace(",", "").split())
        if words not in words_seen:
            words_seen.add(words)
            early.add(caption)
            yield caption
        else:
            late[caption] = None
    yield from (caption for caption in late if caption not in early)


def _draw(emoji: Emoji, number: int) -> str:
    dice = iter(hashlib.sha256(f"caption|{emoji.key}|{number}".encode()).digest())
    # The preferred name opens half of the captions.
    name = emoji.names[max(0, next(dice) % (2 * len(emoji.names)) - len(emoji.names))]
    subject = with_tone(name, emoji.tone)
    taken = subject.split()
    left = [word for word in emoji.keywords if word not in taken]
    wanted = max(SHORTEST - len(taken), 3 + next(dice) % 4)
    opening = _OPENINGS[next(dice) % len(_OPENINGS)]
    keywords = [left.pop(next(dice) % len(left)) for _ in range(min(wanted, LONGEST - len(taken), len(left)))]
    text = f"{subject}, {' '.join(keywords)}" if keywords else subject
    return f"{opening} {text}" if len(text.split()) < SHORTEST else text
