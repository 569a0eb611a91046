"""Which picture belongs to which split.

Two questions are asked of a model, each about something whose parts it has seen:

- `restyle`: a concept without skin tones, held out in one art style; its other style is in training.
- `retone`: a concept in a skin tone held out in both styles; the concept in its other tones and the tone on other
  concepts are in training. A split holds out one tone per concept, so the tone's words alone decide nothing.

The choice is a hash of the concept's key (SHA-256): no random generator, the same on every machine. Pictures that are
nearly equal (`crossguard.data.emoji_likeness`) stay together: if they would fall into different splits, all of them go
to the first of training, validation, test, so that no held-out picture, nor its like, is ever seen in training.
"""

from collections.abc import Collection
from typing import Literal

from crossguard.data.emoji_art import STYLES
from crossguard.data.emoji_catalogue import TONES, Emoji
from crossguard.data.emoji_text import chance

Split = Literal["train", "val", "test"]
Part = Literal["seen", "restyle", "retone"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")

_RESTYLE_PERCENT = 15  # of the concepts without tones, in each of val and test
_RETONE_PERCENT = 50  # of the concepts with tones, in each of val and test


def place(emoji: Emoji, style: str, *, toned: Collection[str]) -> tuple[Split, Part]:
    """Return the split and the part of one picture, before pictures that are alike are joined.

    Args:
        emoji: the emoji drawn.
        style: "twemoji" or "openmoji".
        toned: keys of the concepts that exist in skin tones.
    """
    draw = chance("split", emoji.concept) % 100
    if emoji.concept in toned:
        held_out = tuple(TONES.values())[chance("tone", emoji.concept) % len(TONES)]
        if emoji.tone == held_out:
            return ("test" if draw < _RETONE_PERCENT else "val"), "retone"
    elif draw < 2 * _RESTYLE_PERCENT and style == STYLES[chance("style", emoji.concept) % len(STYLES)]:
        return ("test" if draw < _RESTYLE_PERCENT else "val"), "restyle"
    return "train", "seen"
