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

    With `every_pair`, of either kind, a step's `images` are links, drawn without regard to their images: an image may
    come twice, each time with another of its texts. The kinds then differ in the targets alone.

    Args:
        images: images per step.
        one_to_many: pairing, see above.
        every_pair: whether steps go through all links in place of all images.
        texts_per_image: texts per anchor; 1 for one-to-one.
        images_per_text: images per group; 1 for one-to-one.

    Raises:
        ValueError: fewer than two images, counts below one, groups in a step that is one-to-one or of every pair.

    Example:
        >>> Composition(64, one_to_many=True, texts_per_image=2, images_per_text=2).texts
        64
    """

    images: int
    one_to_many: bool = False
    every_pair: bool = False
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
        groups = f"`texts_per_image`={self.texts_per_image}, `images_per_text`={self.images_per_text}"
        if (self.texts_per_image, self.images_per_text) != (1, 1):
            if not self.one_to_many:
                raise ValueError(
                    f"Expected one text per image in one-to-one training, but got {groups}: use a one-to-many defence."
                )
            if self.every_pair:
                raise ValueError(f"Expected one text per image where every pair is a sample, but got {groups}.")
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
        image_ids: int64 [images] indices of the data set; may repeat in steps of every pair.
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

    @property
    def false_negatives(self) -> int:
        """True pairs that the loss takes for negatives."""
        true = np.zeros_like(self.targets)
        true[self.links[:, 0], self.links[:, 1]] = True
        return int((true & ~self.targets & ~self.ignored).sum())


def draw_step(pairs: OneToManyPairs, composition: Composition, *, seed: int, step: int) -> Draw:
    """Draw the content of step `step`; over an epoch every image is an anchor once, or every link comes once (the last
    part batch is left out).

    Args:
        pairs: the training pairs.
        composition: what a step is made of.
        seed: of the whole training.
        step: from 0.

    Raises:
        ValueError: the data set has fewer images, or links, than a step.
    """
    size = len(pairs.links if composition.every_pair else pairs.images)
    if size < composition.images:
        raise ValueError(
            f"Expected at least {composition.images} {'pairs' if composition.every_pair else 'images'} (`batch_size`) "
            f"to train on, but {pairs.name!r} ({pairs.split}) has {size}."
        )
    per_epoch = size // composition.groups
    order = _order(size, seed, step // per_epoch)
    start = step % per_epoch * composition.groups
    anchors = order[start : start + composition.groups]
    rng = np.random.default_rng([seed, 1, step])
    if composition.every_pair:
        drawn = _one_to_one(pairs, *pairs.links[anchors].T)
        return _all_targets(drawn.image_ids, drawn.text_ids, drawn.links) if composition.one_to_many else drawn
    if composition.one_to_many:
        return _one_to_many(pairs, anchors, composition, rng)
    return _one_to_one(pairs, anchors, np.array([rng.choice(pairs.texts_of(int(i))) for i in anchors], dtype=np.int64))


def false_negatives(pairs: OneToManyPairs, composition: Composition, *, seed: int, steps: int) -> float:
    """Return how many true pairs a step takes for negatives, mean over the first steps of a training.

    Args:
        pairs: the training pairs.
        composition: what a step is made of.
        seed: of the training.
        steps: to count; at least 1.
    """
    drawn = (draw_step(pairs, composition, seed=seed, step=step) for step in range(steps))
    return sum(draw.false_negatives for draw in drawn) / steps


@lru_cache(maxsize=4)
def _order(size: int, seed: int, epoch: int) -> Int64[np.ndarray, " images"]:
    return np.random.default_rng([seed, 0, epoch]).permutation(size)


def _one_to_one(
    pairs: OneToManyPairs, image_ids: Int64[np.ndarray, " images"], text_ids: Int64[np.ndarray, " images"]
) -> Draw:
    own = np.eye(len(image_ids), dtype=np.bool_)
    copies = (text_ids[:, None] == text_ids[None, :]) & ~own
    return Draw(image_ids, text_ids, links_among(pairs, image_ids, text_ids), own, copies)


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
    return _all_targets(image_ids, text_ids, links_among(pairs, image_ids, text_ids))


def _all_targets(
    image_ids: Int64[np.ndarray, " images"], text_ids: Int64[np.ndarray, " texts"], links: Int64[np.ndarray, "links 2"]
) -> Draw:
    targets = np.zeros((len(image_ids), len(text_ids)), dtype=np.bool_)
    targets[links[:, 0], links[:, 1]] = True
    return Draw(image_ids, text_ids, links, targets, np.zeros_like(targets))


def _some(pool: Int64[np.ndarray, " pool"], count: int, taken: dict[int, None], rng: np.random.Generator) -> list[int]:
    """Draw up to `count` different members of the pool that were not taken yet."""
    free = [int(member) for member in pool if int(member) not in taken]
    if count < len(free):
        return [free[i] for i in rng.choice(len(free), size=count, replace=False)]
    return free
