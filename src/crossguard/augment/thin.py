"""Taking a part of the pairs as the originals, so that the rest, human captions say, can be their augmentation."""

from jaxtyping import Int64
from numpy import ndarray

from crossguard.augment.base import dice
from crossguard.data import OneToManyPairs


def thin(
    pairs: OneToManyPairs, *, texts_per_image: int | None = None, images_per_text: int | None = None, seed: int
) -> OneToManyPairs:
    """Return pairs in which every image keeps a few of its texts, or every text a few of its images.

    A text that is kept for one image stays linked to all images that it is true of, so that no true pair is lost among
    what is left; an image can therefore have more texts than it chose.

    Args:
        pairs: the whole data.
        texts_per_image: how many texts every image chooses; None keeps all.
        images_per_text: how many images every text that is left chooses; None keeps all.
        seed: of the choice.

    Raises:
        ValueError: a number below 1.
    """
    for name, number in (("texts_per_image", texts_per_image), ("images_per_text", images_per_text)):
        if number is not None and number < 1:
            raise ValueError(f"Expected `{name}` >= 1 or None, but got {number}.")
    if texts_per_image is not None:
        kept = {
            j
            for i, picture in enumerate(pairs.images)
            for j in _some(pairs.texts_of(i), texts_per_image, seed, "texts", picture.key)
        }
        pairs = pairs.select(texts=sorted(kept))
    if images_per_text is not None:
        kept = {
            i
            for j, text in enumerate(pairs.texts)
            for i in _some(pairs.images_of(j), images_per_text, seed, "images", text)
        }
        pairs = pairs.select(images=sorted(kept))
    return pairs


def _some(indices: Int64[ndarray, " some"], count: int, seed: int, *key: str) -> list[int]:
    return dice(seed, "thin", *key).sample(indices.tolist(), min(count, len(indices)))
