"""The table of augmentation sources."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from crossguard.augment.bad import Distorted, Shuffled
from crossguard.augment.base import ImageSource, Side, Source, TextSource
from crossguard.augment.captioner import Captioner
from crossguard.augment.crops import Crops
from crossguard.augment.diffusion import ImageToImage, TextToImage
from crossguard.augment.eda import EDA
from crossguard.augment.own import OwnImages, OwnTexts
from crossguard.augment.randaugment import RandAugment
from crossguard.augment.rewrite import Rewrite
from crossguard.checks import WrongKind, check_options, lookup
from crossguard.table import Table


@dataclass(frozen=True)
class AugmentationRow:
    """One source: its name, one line about it, what it makes, and how to build it."""

    name: str
    summary: str
    gives: Side
    build: Callable[..., Source]


AUGMENTATIONS = Table[AugmentationRow](
    "augmentation source",
    (
        AugmentationRow("eda", "synonyms, insertions, swaps and deletions of words (Wei & Zou 2019)", "texts", EDA),
        AugmentationRow("own-texts", "further texts that the data have for a picture", "texts", OwnTexts),
        AugmentationRow(
            "rewrite", "a causal language model says it in other words (`model`: folder or hub id)", "texts", Rewrite
        ),
        AugmentationRow("captioner", "BLIP describes the picture (`model`: folder or hub id)", "texts", Captioner),
        AugmentationRow("randaugment", "random operations on pixels (Cubuk et al. 2020)", "images", RandAugment),
        AugmentationRow("crops", "random parts of the picture, enlarged", "images", Crops),
        AugmentationRow("own-images", "further pictures that the data have for a text", "images", OwnImages),
        AugmentationRow(
            "img2img", "a diffusion model redraws the picture, guided by its caption", "images", ImageToImage
        ),
        AugmentationRow("text2img", "a diffusion model draws the caption", "images", TextToImage),
        AugmentationRow("shuffled", "captions of other pictures: a deliberately bad source", "texts", Shuffled),
        AugmentationRow("distorted", "coarse mosaics under noise: a deliberately bad source", "images", Distorted),
    ),
)


def register_augmentation(name: str, build: Callable[..., Source], *, summary: str, gives: Side = "texts") -> None:
    """Add an augmentation source of your own to the table, so that recipes and `augment` can name it.

    Args:
        name: what it is called; what it builds has the same `name`.
        build: makes a `TextSource` or an `ImageSource`; its keyword arguments are its options.
        summary: one line for listings.
        gives: whether it makes "texts" or "images".

    Raises:
        ValueError: a name of the package's own.
    """
    AUGMENTATIONS.register(AugmentationRow(name, summary, gives, build))


def make_augmentation(source: "str | Mapping[str, Any] | Source") -> Source:
    """Build a source by name, or from {"name": ..., "options": {...}}; one already built is returned as it is.

    Raises:
        ValueError: an unknown name or option (the nearest known one is named), a missing or bad option.
        ImportError: the source needs a package that is missing.
        WrongKind: neither of the three.
    """
    if isinstance(source, str):
        return make_augmentation({"name": source})
    if isinstance(source, TextSource | ImageSource):
        return source
    if not isinstance(source, Mapping) or "name" not in source:
        raise WrongKind(
            "Expected a source's name, {'name', 'options'}, or an object with make_texts or make_images, "
            f"but got {source!r}."
        )
    for key in source:
        lookup({"name": None, "options": None}, key, what="setting of a source")
    row = AUGMENTATIONS.find(source["name"])
    options = dict(source.get("options") or {})
    check_options(row.build, options, what=f"augmentation source {row.name!r}")
    return row.build(**options)
