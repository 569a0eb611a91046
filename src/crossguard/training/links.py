"""Which pairs a training learns from, and whether it knows that they are many-to-many: four ways to have more data.

The four ways are those that the paper on MAT+ compares: originals alone, augmented samples as extra one-to-one pairs,
augmented samples with one-to-many targets, and new originals in place of augmentation.
"""

from dataclasses import dataclass
from typing import Literal, get_args

from crossguard.checks import check_choice
from crossguard.data import OneToManyPairs
from crossguard.data.augmented import AugmentedPairs
from crossguard.data.join import join

Links = Literal["originals", "extra-pairs", "one-to-many", "new-originals"]


@dataclass(frozen=True)
class Arranged:
    """Pairs to train on.

    Args:
        pairs: images and texts; they begin with those that were given, indices unchanged.
        one_to_many: whether every true link of a batch is a target (see `Composition`).
    """

    pairs: OneToManyPairs
    one_to_many: bool


def arrange(
    pairs: OneToManyPairs, links: str | None, *, one_to_many: bool, new_originals: OneToManyPairs | None = None
) -> Arranged:
    """Choose the pairs of a training and how they are linked.

    - "originals": the originals of augmented pairs (of others: all), one text per image.
    - "extra-pairs": everything, one text per image: an image takes turns with its own and its augmented texts, and an
      augmented image is an image like others; that it shares its texts is not known.
    - "one-to-many": everything, every true link of a batch a target.
    - "new-originals": the originals and other originals, one text per image: what augmentation replaces.

    Args:
        pairs: augmented pairs (`load_pairs("augmented", folder=...)`) or any others.
        links: one of the four; None takes all pairs as the defence would.
        one_to_many: what the defence does by itself.
        new_originals: for "new-originals"; equal pictures and texts count once.

    Raises:
        ValueError: an unknown way, a one-to-many defence with a one-to-one way, or `new_originals` missing or in vain.
    """
    if (links == "new-originals") != (new_originals is not None):
        raise ValueError(
            "Expected `new_originals` together with links='new-originals' and only then, but got "
            f"links={links!r} and {'no' if new_originals is None else 'some'} `new_originals`."
        )
    if links is None:
        return Arranged(pairs, one_to_many)
    way: Links = check_choice(links, get_args(Links), "links")
    if one_to_many and way != "one-to-many":
        raise ValueError(
            f"Expected links='one-to-many' for a one-to-many defence, but got {links!r}: use 'mat' to compare the four."
        )
    originals = pairs.originals() if isinstance(pairs, AugmentedPairs) else pairs
    if way == "originals":
        return Arranged(originals, one_to_many=False)
    if new_originals is not None:
        return Arranged(join(originals, new_originals), one_to_many=False)
    return Arranged(pairs, one_to_many=way == "one-to-many")
