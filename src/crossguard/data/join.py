"""Putting two sets of pairs together: equal pictures and equal texts become one, every link stays."""

from collections.abc import Hashable, Iterable
from typing import TypeVar

import numpy as np

from crossguard.data.pairs import OneToManyPairs

_Key = TypeVar("_Key", bound=Hashable)


def join(first: OneToManyPairs, second: OneToManyPairs, *, name: str | None = None) -> OneToManyPairs:
    """Return the pairs of both; those of `first` come first and keep their indices.

    Pictures are the same if key and path are, texts if they are equal. Text kinds are kept if both sets have them; the
    notes are those of both.

    Args:
        first: some pairs.
        second: more of them; a picture or text that `first` has adds its links alone.
        name: of the result; default: both names with a "+".
    """
    images, image_at = _merge(((p.key, p.file) for p in first.images), ((p.key, p.file) for p in second.images))
    texts, text_at = _merge(first.texts, second.texts)
    moved = np.stack([np.array(image_at)[second.links[:, 0]], np.array(text_at)[second.links[:, 1]]], axis=1)
    kinds: tuple[str, ...] = ()
    if first.text_kinds and second.text_kinds:
        kinds = (*first.text_kinds, *(second.text_kinds[j] for j in texts))
    return OneToManyPairs(
        name=f"{first.name}+{second.name}" if name is None else name,
        split=first.split,
        images=(*first.images, *(second.images[i] for i in images)),
        texts=(*first.texts, *(second.texts[j] for j in texts)),
        links=np.unique(np.concatenate([first.links, moved]), axis=0),
        text_kinds=kinds,
        notes=tuple(dict.fromkeys((*first.notes, *second.notes))),
    )


def _merge(first: Iterable[_Key], second: Iterable[_Key]) -> tuple[list[int], list[int]]:
    """Return the members of `second` that are new, by index, and the place of each of its members in the union."""
    places = {key: place for place, key in enumerate(first)}
    new, at = [], []
    for index, key in enumerate(second):
        if key not in places:
            places[key] = len(places)
            new.append(index)
        at.append(places[key])
    return new, at
