"""The table of data sets: one row each, found by name."""

from collections.abc import Callable
from dataclasses import dataclass
from inspect import signature
from typing import Any, Literal

from crossguard.checks import check_options
from crossguard.data.augmented import load_augmented
from crossguard.data.csv_pairs import load_csv
from crossguard.data.emoji import load_emoji
from crossguard.data.json_pairs import load_coco, load_flickr30k, load_json
from crossguard.data.kitti_road import load_kitti_road
from crossguard.data.pairs import OneToManyPairs
from crossguard.data.pothole import load_pothole
from crossguard.data.ravdess import load_ravdess, load_ravdess_features
from crossguard.data.refcoco import load_refcoco_plus
from crossguard.data.referring import ReferringExpressions
from crossguard.data.roads import load_roads
from crossguard.data.samples import MultiModalSamples
from crossguard.data.watch import load_watch
from crossguard.data.webdataset import load_webdataset
from crossguard.progress import Reporter
from crossguard.table import Table


@dataclass(frozen=True)
class DatasetRow:
    """One data set: how to load a split of it, and what it gives."""

    name: str
    summary: str
    gives: Literal["pairs", "samples", "expressions"]
    load: Callable[..., Any]


DATASETS = Table[DatasetRow](
    "data set",
    (
        DatasetRow(
            "emoji",
            "two art styles of ~1,900 emoji, captions of their names and keywords",
            "pairs",
            load_emoji,
        ),
        DatasetRow("json", 'annotation files of {"image", "caption"} rows and their images', "pairs", load_json),
        DatasetRow("flickr30k", "Flickr30k, Karpathy's split (`root`: its folder)", "pairs", load_flickr30k),
        DatasetRow("coco", "COCO's captions, Karpathy's split (`root`: its folder)", "pairs", load_coco),
        DatasetRow("csv", "an image folder and a table of captions, as Flickr8k's captions.txt", "pairs", load_csv),
        DatasetRow("webdataset", "tar shards of images and captions, for large training", "pairs", load_webdataset),
        DatasetRow("augmented", "what `crossguard augment` made (`folder`: its run folder)", "pairs", load_augmented),
        DatasetRow("watch", "accelerometer and gyroscope of 7 exercises by 10 people", "samples", load_watch),
        DatasetRow("roads", "drawn road scenes: RGB, depth, road mask; nothing to download", "samples", load_roads),
        DatasetRow("kitti-road", "KITTI Road with dense depth: RGB, depth, road mask", "samples", load_kitti_road),
        DatasetRow("ravdess", "acted emotions: frames and sound of video clips, by actor", "samples", load_ravdess),
        DatasetRow(
            "ravdess-features",
            "acted emotions: facial action units and MFCC statistics of clips, by actor",
            "samples",
            load_ravdess_features,
        ),
        DatasetRow(
            "refcoco+",
            "expressions that point at one thing in a photo of COCO: boxes, proposals (val, testA, testB)",
            "expressions",
            load_refcoco_plus,
        ),
        DatasetRow("pothole", "stereo pothole photographs: RGB, disparity, mask", "samples", load_pothole),
    ),
)


def register_data(
    name: str, load: Callable[..., Any], *, summary: str, gives: Literal["pairs", "samples", "expressions"] = "pairs"
) -> None:
    """Add a data set of your own to the table, so that recipes, the command line and `load_...` can name it.

    Args:
        name: what it is called.
        load: takes `split` and options of its own by keyword, and returns what `gives` says.
        summary: one line for `crossguard list datasets`.
        gives: "pairs" (`OneToManyPairs`), "samples" (`MultiModalSamples`) or "expressions" (`ReferringExpressions`).

    Raises:
        ValueError: a name of the package's own.
    """
    DATASETS.register(DatasetRow(name, summary, gives, load))


def load_pairs(name: str, *, split: str = "test", progress: Reporter | None = None, **options: Any) -> OneToManyPairs:
    """Load a split of an image-text data set.

    Args:
        name: a name of the table (`crossguard list datasets`).
        split: "train", "val" or "test" for built-in data.
        progress: where reading shards and checking images are shown.
        options: the data set's own (for "json": `annotations`, `root`; for "flickr30k" and "coco": `root`).

    Raises:
        ValueError: an unknown name or option, one that is missing, or a name that holds labelled samples.
    """
    row = DATASETS.find(name)
    if "progress" in signature(row.load).parameters:
        options["progress"] = progress
    return _load(name, "pairs", split=split, **options)


def load_samples(name: str, *, split: str = "test", **options: Any) -> MultiModalSamples:
    """Load a split of a labelled multi-modal data set.

    Args:
        name: a name of the table (`crossguard list datasets`) that gives samples: "watch", "roads", ...
        split: "train", "val" or "test".
        options: the data set's own (for "watch": `window`, `stride`; for "kitti-road": `root`, `size`, ...).

    Raises:
        ValueError: an unknown name or option, an option that is missing or of another type, or a name that holds
            image-text pairs.
    """
    return _load(name, "samples", split=split, **options)


def load_expressions(name: str, *, split: str = "val", **options: Any) -> ReferringExpressions:
    """Load a split of a data set for visual grounding: expressions, each pointing at a box in an image.

    Args:
        name: "refcoco+".
        split: "val", "testA" or "testB".
        options: the data set's own (for "refcoco+": `annotations`, `root`, `boxes`).

    Raises:
        ValueError: an unknown name, or one that holds something else.
    """
    return _load(name, "expressions", split=split, **options)


def _load(name: str, gives: str, **options: Any) -> Any:
    row = DATASETS.find(name)
    if row.gives != gives:
        raise ValueError(f"Expected a data set of {gives}, but {name!r} holds {row.gives}: use load_{row.gives}.")
    check_options(row.load, options, what=f"data set {name!r}")
    return row.load(**options)
