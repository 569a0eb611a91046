"""The data's own further captions and pictures, as a source beside the made ones (`I2T(Human)` of MAT+)."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int64

from crossguard.augment.base import Made, MadePicture, MadeText, Request, Side, dice
from crossguard.data import OneToManyPairs


class OwnTexts:
    """Further texts that the pool has for a picture: human captions, when the originals are a part of the data.

    Pictures are found in the pool by their key. A text is linked to all originals that the pool links it to, so that
    no true pair is missing. When the originals are the whole pool, the texts of each picture are measured and nothing
    is added.
    """

    name = "own-texts"
    per: Side = "images"
    block = 2048

    def __init__(self) -> None:
        self.options: Mapping[str, Any] = {}

    def make_texts(self, pairs: OneToManyPairs, items: Sequence[int], request: Request) -> list[list[MadeText]]:
        """Return, per picture, texts of the pool that the originals do not have; its own ones when there are none."""
        pool, known = request.pool, set(pairs.texts)
        in_pool = {picture.key: i for i, picture in enumerate(pool.images)}
        originals = _positions([picture.key for picture in pairs.images])
        made = []
        for item in items:
            key = pairs.images[item].key
            texts = pool.texts_of(in_pool[key])
            chosen = _choose(texts, [pool.texts[j] not in known for j in texts], request, self.name, key)
            made.append(
                [
                    Made(
                        pool.texts[j],
                        images=tuple(i for n in pool.images_of(j) for i in originals[pool.images[n].key]),
                    )
                    for j in chosen
                ]
            )
        return made


class OwnImages:
    """Further pictures that the pool has for a text: another art style of a concept, another photo of a caption.

    The same as `OwnTexts` with the sides exchanged. The files are used where they lie.
    """

    name = "own-images"
    per: Side = "texts"
    block = 2048

    def __init__(self) -> None:
        self.options: Mapping[str, Any] = {}

    def make_images(self, pairs: OneToManyPairs, items: Sequence[int], request: Request) -> list[list[MadePicture]]:
        """Return, per text, pictures of the pool that the originals do not have; its own ones when there are none."""
        pool, known = request.pool, {picture.key for picture in pairs.images}
        in_pool = {text: j for j, text in enumerate(pool.texts)}
        originals = _positions(pairs.texts)
        made: list[list[MadePicture]] = []
        for item in items:
            text = pairs.texts[item]
            images = pool.images_of(in_pool[text])
            chosen = _choose(images, [pool.images[i].key not in known for i in images], request, self.name, text)
            made.append(
                [
                    Made(pool.images[i], texts=tuple(j for n in pool.texts_of(i) for j in originals[pool.texts[n]]))
                    for i in chosen
                ]
            )
        return made


def _positions(keys: Sequence[str]) -> defaultdict[str, list[int]]:
    found: defaultdict[str, list[int]] = defaultdict(list)
    for position, key in enumerate(keys):
        found[key].append(position)
    return found


def _choose(indices: Int64[np.ndarray, " some"], new: list[bool], request: Request, *key: str) -> list[int]:
    """Take at most as many as are wanted, of the new ones if there are any, in random order."""
    fresh = [int(i) for i, is_new in zip(indices, new, strict=True) if is_new]
    candidates = fresh or [int(i) for i in indices]
    # All are shuffled, so that a larger count begins with what a smaller one takes.
    return dice(request.seed, *key).sample(candidates, len(candidates))[: request.count]
