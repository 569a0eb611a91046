"""What a study trains on, and what judges: the data's own splits, or images of one that are held out."""

import numpy as np

from crossguard.augment import thin
from crossguard.data import OneToManyPairs, load_pairs
from crossguard.data.pairs import evenly
from crossguard.recipes.schema import Data, StudyRecipe


def load_training(recipe: StudyRecipe) -> OneToManyPairs:
    """Load the pairs that are trained on; nothing that links join to an image that is held out is among them.

    Raises:
        ValueError: as `load_judging`.
    """
    whole = _load(recipe.data)
    if recipe.held_out is None:
        return whole
    images, _ = whole.groups
    apart = np.isin(images, images[_held_out(recipe, whole)], invert=True)
    return whole.select(images=np.flatnonzero(apart).tolist())


def load_judging(recipe: StudyRecipe) -> OneToManyPairs:
    """Load the pairs that judge: a split, or images that are held out; or evenly spread images and a few texts of them.

    Raises:
        ValueError: no more images than are to be held out.
    """
    if recipe.test is not None:
        pairs = _load(recipe.test)
    else:
        whole = _load(recipe.data)
        pairs = whole.select(images=_held_out(recipe, whole).tolist())
    pairs = pairs if recipe.max_samples is None else pairs.spread(recipe.max_samples)
    return thin(pairs, texts_per_image=recipe.judged_texts, seed=recipe.seed)


def _load(data: Data) -> OneToManyPairs:
    return load_pairs(data.name, split=data.split, **data.options)


def _held_out(recipe: StudyRecipe, whole: OneToManyPairs) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    count = recipe.held_out or 0
    if count >= len(whole.images):
        raise ValueError(
            f"Expected more than {count} images (`held_out`) in {recipe.data.name!r} ({recipe.data.split}), but it has "
            f"{len(whole.images)}."
        )
    return evenly(count, len(whole.images))
