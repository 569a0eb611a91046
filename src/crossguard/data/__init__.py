"""Data sets: images and texts with links (`OneToManyPairs`), labelled sensors (`MultiModalSamples`) and images."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from crossguard.data.in_memory import as_images, as_pairs
from crossguard.data.labelled import LabelledImages
from crossguard.data.pairs import OneToManyPairs
from crossguard.data.pictures import Picture
from crossguard.data.questions import PictureQuestions
from crossguard.data.reading import Reading
from crossguard.data.referring import ReferringExpressions
from crossguard.data.samples import MultiModalSamples, as_samples
from crossguard.data.table import (
    DATASETS,
    DatasetRow,
    load_expressions,
    load_images,
    load_pairs,
    load_questions,
    load_samples,
    register_data,
)

if TYPE_CHECKING:
    from crossguard.data.batch import PairBatch, links_among

__all__ = [
    "DATASETS",
    "DatasetRow",
    "LabelledImages",
    "MultiModalSamples",
    "OneToManyPairs",
    "PairBatch",
    "Picture",
    "PictureQuestions",
    "Reading",
    "ReferringExpressions",
    "as_images",
    "as_pairs",
    "as_samples",
    "links_among",
    "load_expressions",
    "load_images",
    "load_pairs",
    "load_questions",
    "load_samples",
    "register_data",
]


def __getattr__(name: str) -> Any:
    """Give what needs PyTorch on first use: reading needs none of it."""
    if name not in ("PairBatch", "links_among"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("crossguard.data.batch"), name)
