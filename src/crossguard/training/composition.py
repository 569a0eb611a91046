"""What a training step is made of: which images and texts, and which pairs among them are targets.

A step's content is a pure function of (seed, step), so a run that is taken up needs no sampler state.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Int64

from crossguard.data import OneToManyPairs, links_among


@dataclass(frozen=True)
class Composition:
    """How many images and texts a step encodes, and how they are paired.

    *One-to-one* (`one_to_many=False`): `images` images, each with one of its texts, drawn. The drawn text is the
    image's only target; the links to the batch's other texts are not known to such training, so a true pair may stand
    as a negative, as in the MAT baseline. Only copies of a text (drawn for two images) are taken out of the softmax.

    *One-to-many*: `images / images_per_text` anchors; each brings `texts_per_image` of its texts and
    `images_per_text - 1` further images of those texts. Every true link in the batch is a target. No image or text
    comes twice; where a group cannot be filled, others are drawn so that the counts are kept as far as the data allow.

    Args:
        images: images per step.
        one_to_many: pairing, see above.
        texts_per_image: texts per anchor; 1 for one-to-one.
        images_per_text: images per group; 1 for one-to-one.

    Raises:
        ValueError: fewer than two images, counts below one, or groups in a one-to-one step.

    Example:
        >>> Composition(64, one_to_many=True, texts_per_image=2, images_per_text=2).texts
        64
    """

    images: int
    one_to_many: bool = False
    texts_per_image: int = 1
    images_per_text: int = 1

    def __post_init__(self) -> None:
        if self.images < 2:
            raise ValueError(
                f"Expected at least 2 images per step (contrastive training needs negatives), but got {self.images}."
            )
        if self.texts_per_image < 1 or self.images_per_text < 1:
            raise ValueError(
                "Expected `texts_per_image` and `images_per_text` >= 1, but got "
                f"{self.texts_per_image} and {self.images_per_text}."
            )
        if not self.one_to_many and (self.texts_per_image, self.images_per_text) != (1, 1):
            raise ValueError(
                "Expected one text per image in one-to-one training, but got `texts_per_image`="
                f"{self.texts_per_image}, `images_per_text`={self.images_per_text}: use a one-to-many defence."
            )
        if self.groups < 1 or self.texts < 2:
            raise ValueError(
                f"Expected at least 2 texts per step, but {self.images} images in groups of "
                f"{self.images_per_text} give {self.texts}."
            )

    @property
    def groups(self) -> int:
        """Anchors per step."""
        return self.images // self.images_per_text

    @property
    def texts(self) -> int:
        """Texts per step."""
        return self.groups * self.texts_per_image


@dataclass(frozen=True)
class Draw:
    """The images and texts of one step.

    Args:
        image_ids: int64 [images] indices of the data set.
        text_ids: int64 [texts]; may repeat in one-to-one steps.
        links: int64 [links, 2], every true link as positions in the two lists.
        targets: bool [images, texts], the positives of the loss.
        ignored: bool [images, texts], pairs that are neither target nor negative.
    """

    image_ids: Int64[np.ndarray, " images"]
    text_ids: Int64[np.ndarray, " texts"]
    links: Int64[np.ndarray, "links 2"]
    targets: Bool[np.ndarray, "images texts"]
    ignored: Bool[np.ndarray, "images texts"]


def draw_step(pairs: OneToManyPairs, composition: Composition, *, seed: int, step: int) -> Draw:
    """Draw the content of step `step`; over an epoch every image is an anchor once (the last part batch is left out).

    Args:
        pairs: the training pairs.
        composition: what a step is made of.
        seed: of the whole training.
        step: from 0.

    Raises:
        ValueError: the data set has fewer images than a step.
    """
    size = len(pairs.images)
    if size < composition.images:
        raise ValueError(
            f"Expected at least {composition.images} images (`batch_size`) to train on, but {pairs.name!r} "
            f"({pairs.split}) has {size}."
        )
    per_epoch = size // composition.groups
    order = _order(size, seed, step // per_epoch)
    start = step % per_epoch * composition.groups
    anchors = order[start : start + composition.groups]
    rng = np.random.default_rng([seed, 1, step])
    if not composition.one_to_many:
        return _one_to_one(pairs, anchors, rng)
    return _one_to_many(pairs, anchors, composition, rng)


@lru_cache(maxsize=4)
def _order(size: int, seed: int, epoch: int) -> Int64[np.ndarray, " images"]:
    return np.random.default_rng([seed, 0, epoch]).permutation(size)


def _one_to_one(pairs: OneToManyPairs, anchors: Int64[np.ndarray, " images"], rng: np.random.Generator) -> Draw:
    text_ids = np.array([rng.choice(pairs.texts_of(int(i))) for i in anchors], dtype=np.int64)
    own = np.eye(len(anchors), dtype=np.bool_)
    copies = (text_ids[:, None] == text_ids[None, :]) & ~own
    return Draw(anchors, text_ids, links_among(pairs, anchors, text_ids), own, copies)


def _one_to_many(
    pairs: OneToManyPairs,
    anchors: Int64[np.ndarray, " groups"],
    composition: Composition,
    rng: np.random.Generator,
) -> Draw:
    # Dictionaries as ordered sets: the batch's order is part of what must be reproducible.
    images = dict.fromkeys(anchors.tolist())
    texts: dict[int, None] = {}
    for anchor in anchors.tolist():
        own = _some(pairs.texts_of(anchor), composition.texts_per_image, texts, rng)
        texts.update(dict.fromkeys(own))
        if composition.images_per_text > 1:
            partners = np.unique(np.concatenate([pairs.images_of(j) for j in (own or pairs.texts_of(anchor).tolist())]))
            images.update(dict.fromkeys(_some(partners, composition.images_per_text - 1, images, rng)))
    # Groups that could not be filled: other images, then other texts of the batch's images, until the counts are kept.
    for image in rng.permutation(len(pairs.images)).tolist():
        if len(images) >= composition.images:
            break
        if image not in images:
            images[image] = None
            texts.update(dict.fromkeys(_some(pairs.texts_of(image), int(len(texts) < composition.texts), texts, rng)))
    missing = composition.texts - len(texts)
    if missing > 0:
        pool = np.unique(np.concatenate([pairs.texts_of(i) for i in images]))
        texts.update(dict.fromkeys(_some(pool, missing, texts, rng)))
    image_ids, text_ids = np.array(list(images), dtype=np.int64), np.array(list(texts), dtype=np.int64)
    links = links_among(pairs, image_ids, text_ids)
    targets = np.zeros((len(image_ids), len(text_ids)), dtype=np.bool_)
    targets[links[:, 0], links[:, 1]] = True
    return Draw(image_ids, text_ids, links, targets, np.zeros_like(targets))


def _some(pool: Int64[np.ndarray, " pool"], count: int, taken: dict[int, None], rng: np.random.Generator) -> list[int]:
    """Draw up to `count` different members of the pool that were not taken yet."""
    free = [int(member) for member in pool if int(member) not in taken]
    if count < len(free):
        return [free[i] for i in rng.choice(len(free), size=count, replace=False)]
    return free
