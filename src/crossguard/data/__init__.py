"""Data sets: images and texts with their links (`OneToManyPairs`), and labelled sensors (`MultiModalSamples`)."""

from crossguard.data.batch import PairBatch, links_among
from crossguard.data.pairs import OneToManyPairs
from crossguard.data.pictures import Picture
from crossguard.data.referring import ReferringExpressions
from crossguard.data.samples import MultiModalSamples
from crossguard.data.table import DATASETS, DatasetRow, load_expressions, load_pairs, load_samples, register_data

__all__ = [
    "DATASETS",
    "DatasetRow",
    "MultiModalSamples",
    "OneToManyPairs",
    "PairBatch",
    "Picture",
    "ReferringExpressions",
    "links_among",
    "load_expressions",
    "load_pairs",
    "load_samples",
    "register_data",
]
