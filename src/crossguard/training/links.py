"""Which pairs a training learns from, and whether it knows that they are many-to-many: ways to have more data.

The paper on MAT+ compares four: originals alone, augmented samples as extra one-to-one pairs, augmented samples with
one-to-many targets, and new originals in place of augmentation. Extra pairs may be read in two ways: an image takes
turns with its texts, or every pair is a sample, so that an image may meet itself in a batch.
"""

from dataclasses import dataclass
from typing import Literal, get_args

from crossguard.checks import check_choice
from crossguard.data import OneToManyPairs
from crossguard.data.augmented import AugmentedPairs
from crossguard.data.join import join
from crossguard.training.composition import Composition

Links = Literal["originals", "extra-pairs", "every-pair", "one-to-many", "new-originals"]


@dataclass(frozen=True)
class Arranged:
    """Pairs to train on.

    Args:
        pairs: images and texts; they begin with those that were given, indices unchanged.
        one_to_many: whether every true link of a batch is a target (see `Composition`).
        every_pair: whether every link is a sample (see `Composition`).
    """

    pairs: OneToManyPairs
    one_to_many: bool
    every_pair: bool = False

    @property
    def samples(self) -> int:
        """What an epoch goes through: images, or links where every pair is a sample."""
        return len(self.pairs.links if self.every_pair else self.pairs.images)

    def composition(self, images: int, *, texts_per_image: int | None = None, images_per_text: int = 1) -> Composition:
        """Return what a step of so many images is made of.

        Args:
            images: per step.
            texts_per_image: None: two of one-to-many, else one, as where every pair is a sample.
            images_per_text: images per group.

        Raises:
            ValueError: as `Composition`.
        """
        several = self.one_to_many and not self.every_pair
        return Composition(
            images,
            one_to_many=self.one_to_many,
            every_pair=self.every_pair,
            texts_per_image=(2 if several else 1) if texts_per_image is None else texts_per_image,
            images_per_text=images_per_text,
        )


def arrange(
    pairs: OneToManyPairs, links: str | None, *, one_to_many: bool, new_originals: OneToManyPairs | None = None
) -> Arranged:
    """Choose the pairs of a training and how they are linked.

    - "originals": the originals of augmented pairs (of others: all), one text per image.
    - "extra-pairs": everything, one text per image: an image takes turns with its own and its augmented texts, and an
      augmented image is an image like others; that it shares its texts is not known.
    - "every-pair": everything, every link a pair of its own, as files of pairs list them: an image comes as often as it
      has texts. Where two of its pairs meet in a batch, each is a negative of the other, or, of a one-to-many defence,
      a target: so that both differ in nothing else.
    - "one-to-many": everything, every true link of a batch a target.
    - "new-originals": the originals and other originals, one text per image: what augmentation replaces.

    Args:
        pairs: augmented pairs (`load_pairs("augmented", folder=...)`) or any others.
        links: one of the ways; None takes all pairs as the defence would.
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
    if one_to_many and way not in ("one-to-many", "every-pair"):
        raise ValueError(
            f"Expected links='one-to-many' or 'every-pair' for a one-to-many defence, but got {links!r}: use "
            "'mat' to compare the ways."
        )
    originals = pairs.originals() if isinstance(pairs, AugmentedPairs) else pairs
    if way == "originals":
        return Arranged(originals, one_to_many=False)
    if new_originals is not None:
        return Arranged(join(originals, new_originals), one_to_many=False)
    return Arranged(pairs, one_to_many=one_to_many or way == "one-to-many", every_pair=way == "every-pair")
