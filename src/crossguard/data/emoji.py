"""The built-in image-text data: emoji in two art styles with their human names and keywords."""

from collections import defaultdict
from collections.abc import Iterator

import numpy as np

from crossguard.checks import lookup
from crossguard.data.emoji_art import Drawing, drawings
from crossguard.data.emoji_catalogue import Emoji, catalogue
from crossguard.data.emoji_split import SPLITS, Part, Split, place
from crossguard.data.emoji_text import captions, with_tone
from crossguard.data.pairs import OneToManyPairs
from crossguard.data.pictures import Picture

_HELD_OUT_CAPTIONS = 4
_TRAIN_CAPTIONS = 8


def load_emoji(*, split: str = "test") -> OneToManyPairs:
    """Load the emoji pairs: pictures in two art styles (Twemoji, OpenMoji) with captions, names and aliases.

    Captions are a name with several keywords (6 to 12 words); `train` has names and aliases too. A text that
    describes several emoji is one text linked to all of their pictures. The splits ask for two kinds of
    generalisation, see `crossguard.data.emoji_split`; `part_of` says which one a picture belongs to. The first call
    draws the pictures into the cache folder (`crossguard.data.cache.cache_folder`).

    Args:
        split: "train", "val" or "test".

    Raises:
        ValueError: an unknown split.
        ImportError: a package of the `demo` extra is missing.
        OSError: the cache cannot be written.
    """
    lookup({name: name for name in SPLITS}, split, what="split")
    emojis = {emoji.key: emoji for emoji in catalogue()}
    images, image_texts = [], []
    for home, part, group in _pictures(emojis):
        if home == split:
            first = group[0]
            images.append(Picture(f"{part}/{first.style}/{first.key}", first.path, first.style))
            texts: dict[str, str] = {}
            for drawing in group:
                for text, kind in _texts(emojis[drawing.key], held_out=split != "train"):
                    texts.setdefault(text, kind)
            image_texts.append(texts)
    kinds: dict[str, str] = {}
    for texts in image_texts:
        for text, kind in texts.items():
            kinds.setdefault(text, kind)
    index = {text: position for position, text in enumerate(kinds)}
    links = [(image, index[text]) for image, texts in enumerate(image_texts) for text in texts]
    return OneToManyPairs("emoji", split, images, tuple(kinds), np.array(links, dtype=np.int64), tuple(kinds.values()))


def part_of(picture: Picture) -> str:
    """Return which question a picture asks: "seen" (training), "restyle" or "retone".

    Example:
        >>> from pathlib import Path
        >>> part_of(Picture("restyle/openmoji/1f98a", Path("1f98a.png"), "openmoji"))
        'restyle'
    """
    return picture.key.split("/", 1)[0]


def _pictures(emojis: dict[str, Emoji]) -> Iterator[tuple[Split, Part, list[Drawing]]]:
    """Give every different picture with its split, its part, and the drawings of it; a family has one split."""
    toned = {emoji.concept for emoji in emojis.values() if emoji.tone}
    groups: dict[int, list[Drawing]] = defaultdict(list)
    homes: dict[int, list[Split]] = defaultdict(list)
    places = {}
    for drawing in drawings():
        groups[drawing.picture].append(drawing)
        places[drawing] = place(emojis[drawing.key], drawing.style, toned=toned)
        homes[drawing.family].append(places[drawing][0])
    for group in groups.values():
        home = min(homes[group[0].family], key=SPLITS.index)
        _, part = min((places[drawing] for drawing in group), key=lambda found: SPLITS.index(found[0]))
        yield home, part if home != "train" else "seen", group


def _texts(emoji: Emoji, *, held_out: bool) -> Iterator[tuple[str, str]]:
    """Give the texts of an emoji with their kinds; held-out captions come first in its order, training ones after."""
    if held_out:
        yield from ((text, "caption") for text in captions(emoji, _HELD_OUT_CAPTIONS))
        return
    yield from ((text, "caption") for text in captions(emoji, _TRAIN_CAPTIONS, skip=_HELD_OUT_CAPTIONS))
    name, *aliases = (with_tone(name, emoji.tone) for name in emoji.names)
    yield name, "name"
    yield from ((alias, "alias") for alias in aliases)
