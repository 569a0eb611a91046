"""One-to-many augmentation: sources of texts and pictures, made once offline, measured, and loaded as pairs."""

from crossguard.augment.bad import Distorted, Shuffled
from crossguard.augment.base import ImageSource, Made, Request, Source, TextSource, sample_id, sample_ids
from crossguard.augment.captioner import Captioner
from crossguard.augment.crops import Crops
from crossguard.augment.diffusion import ImageToImage, TextToImage
from crossguard.augment.eda import EDA
from crossguard.augment.measures import Measures, alignment, diversity, frechet_distance
from crossguard.augment.offline import augment, read_manifest, read_measures
from crossguard.augment.own import OwnImages, OwnTexts
from crossguard.augment.pixels import PixelSource
from crossguard.augment.randaugment import RandAugment
from crossguard.augment.rewrite import Rewrite
from crossguard.augment.table import AUGMENTATIONS, AugmentationRow, make_augmentation, register_augmentation
from crossguard.augment.thin import thin
from crossguard.data.augmented import AugmentedPairs, load_augmented

__all__ = [
    "AUGMENTATIONS",
    "EDA",
    "AugmentationRow",
    "AugmentedPairs",
    "Captioner",
    "Crops",
    "Distorted",
    "ImageSource",
    "ImageToImage",
    "Made",
    "Measures",
    "OwnImages",
    "OwnTexts",
    "PixelSource",
    "RandAugment",
    "Request",
    "Rewrite",
    "Shuffled",
    "Source",
    "TextSource",
    "TextToImage",
    "alignment",
    "augment",
    "diversity",
    "frechet_distance",
    "load_augmented",
    "make_augmentation",
    "read_manifest",
    "read_measures",
    "register_augmentation",
    "sample_id",
    "sample_ids",
    "thin",
]
