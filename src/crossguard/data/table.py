"""The table of data sets: one row each, found by name."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from inspect import Parameter, signature
from typing import Any, Literal

from crossguard.checks import check_options, plain
from crossguard.data.augmented import load_augmented
from crossguard.data.csv_pairs import load_csv
from crossguard.data.emoji import load_emoji
from crossguard.data.emoji_classes import load_emoji_classes
from crossguard.data.folder_pairs import load_folder, load_parquet
from crossguard.data.image_folders import load_image_folder, load_image_shards
from crossguard.data.json_pairs import load_coco, load_flickr30k, load_json
from crossguard.data.kitti_road import load_kitti_road
from crossguard.data.labelled import LabelledImages
from crossguard.data.npz_samples import load_npz
from crossguard.data.pairs import OneToManyPairs
from crossguard.data.pothole import load_pothole
from crossguard.data.question_files import load_pope, load_scienceqa, load_textvqa, load_vqav2
from crossguard.data.questions import PictureQuestions
from crossguard.data.ravdess import load_ravdess, load_ravdess_features
from crossguard.data.reading import with_reading
from crossguard.data.refcoco import load_refcoco_plus
from crossguard.data.referring import ReferringExpressions
from crossguard.data.rgbd import load_rgbd
from crossguard.data.roads import load_roads
from crossguard.data.samples import MultiModalSamples
from crossguard.data.speech_clips import load_crema_d, load_grid
from crossguard.data.watch import load_watch
from crossguard.data.webdataset import load_webdataset
from crossguard.progress import Reporter
from crossguard.table import Table


@dataclass(frozen=True)
class DatasetRow:
    """One data set: how to load a split of it, and what it gives."""

    name: str
    summary: str
    gives: Literal["pairs", "samples", "expressions", "images", "questions"]
    load: Callable[..., Any]

    def __post_init__(self) -> None:
        if "reading" in signature(self.load).parameters:
            object.__setattr__(self, "load", with_reading(self.load))


DATASETS = Table[DatasetRow](
    "data set",
    (
        DatasetRow(
            "emoji",
            "two art styles of ~1,900 emoji, captions of their names and keywords",
            "pairs",
            load_emoji,
        ),
        DatasetRow("emoji-classes", "emoji with their Unicode group or subgroup (`by`)", "images", load_emoji_classes),
        DatasetRow("json", 'annotation files of {"image", "caption"} rows and their images', "pairs", load_json),
        DatasetRow("flickr30k", "Flickr30k, Karpathy's split (`root`: its folder)", "pairs", load_flickr30k),
        DatasetRow("coco", "COCO's captions, Karpathy's split (`root`: its folder)", "pairs", load_coco),
        DatasetRow(
            "csv",
            "an image folder and a table of captions, as Flickr8k's captions.txt",
            "pairs",
            load_csv,
        ),
        DatasetRow(
            "webdataset",
            "tar shards of images and captions, for large training",
            "pairs",
            load_webdataset,
        ),
        DatasetRow("folder", "an image folder with metadata.jsonl, .csv or .parquet", "pairs", load_folder),
        DatasetRow("parquet", "parquet files of pictures and captions, as the hub has them", "pairs", load_parquet),
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
        DatasetRow("npz", "arrays of your own by name: modalities, labels, groups", "samples", load_npz),
        DatasetRow("rgbd", "any folder of rgb/, depth/ and label/ pictures", "samples", load_rgbd),
        DatasetRow("crema-d", "acted emotions: frames and sound of video clips, by actor", "samples", load_crema_d),
        DatasetRow("grid", "spoken sentences: frames and sound of video clips, one word each", "samples", load_grid),
        DatasetRow(
            "imagefolder", "class folders of pictures, for zero-shot classification", "images", load_image_folder
        ),
        DatasetRow("wds", "clip_benchmark's tar shards of pictures and classes", "images", load_image_shards),
        DatasetRow("vqav2", "VQAv2's questions about COCO's pictures, ten people's answers", "questions", load_vqav2),
        DatasetRow("textvqa", "TextVQA's questions about what is written in pictures", "questions", load_textvqa),
        DatasetRow("pope", "POPE: is a thing in the picture, yes or no", "questions", load_pope),
        DatasetRow("scienceqa", "ScienceQA's questions with a picture, several choices", "questions", load_scienceqa),
        DatasetRow("pothole", "stereo pothole photographs: RGB, disparity, mask", "samples", load_pothole),
    ),
)


def register_data(
    name: str,
    load: Callable[..., Any],
    *,
    summary: str,
    gives: Literal["pairs", "samples", "expressions", "images", "questions"] = "pairs",
) -> None:
    """Add a data set of your own to the table, so that recipes, the command line and `load_...` can name it.

    Args:
        name: what it is called.
        load: takes `split` and options of its own by keyword, and returns what `gives` says.
        summary: one line for `crossguard list datasets`.
        gives: "pairs" (`OneToManyPairs`), "samples" (`MultiModalSamples`), "images" (`LabelledImages`), "expressions"
            (`ReferringExpressions`) or "questions" (`PictureQuestions`).

    Raises:
        ValueError: a name of the package's own.
    """
    DATASETS.register(DatasetRow(name, summary, gives, load))


def load_pairs(
    name: str, *, split: str | None = None, progress: Reporter | None = None, **options: Any
) -> OneToManyPairs:
    """Load a split of an image-text data set; expressions that point at things in pictures are texts for these.

    Args:
        name: a name of the table (`crossguard list datasets`).
        split: "train", "val" or "test" for built-in data. Default: "test", or what a file's name tells.
        progress: where reading shards and checking images are shown.
        options: the data set's own (for "json": `annotations`, `root`; for "flickr30k" and "coco": `root`).

    Raises:
        ValueError: an unknown name or option, one that is missing, or a name that holds labelled samples.
    """
    return _load(name, "pairs", split, progress=progress, **options)


def load_samples(
    name: str, *, split: str | None = None, progress: Reporter | None = None, **options: Any
) -> MultiModalSamples:
    """Load a split of a labelled multi-modal data set.

    Args:
        name: a name of the table (`crossguard list datasets`) that gives samples: "watch", "roads", ...
        split: "train", "val" or "test". Default: "test", or what a file's name tells.
        progress: where reading clips or drawing scenes is shown.
        options: the data set's own (for "watch": `window`, `stride`; for "kitti-road": `root`, `size`, ...).

    Raises:
        ValueError: an unknown name or option, an option that is missing or of another type, or a name that holds
            image-text pairs.
    """
    return _load(name, "samples", split, progress=progress, **options)


def load_expressions(name: str, *, split: str = "val", **options: Any) -> ReferringExpressions:
    """Load a split of a data set for visual grounding: expressions, each pointing at a box in an image.

    Args:
        name: "refcoco+".
        split: "val", "testA" or "testB".
        options: the data set's own (for "refcoco+": `annotations`, `root`, `boxes`).

    Raises:
        ValueError: an unknown name, or one that holds something else.
    """
    return _load(name, "expressions", split, **options)


def load_images(
    name: str, *, split: str | None = None, progress: Reporter | None = None, **options: Any
) -> LabelledImages:
    """Load a split of a data set of pictures with a class each.

    Args:
        name: "imagefolder" or "wds".
        split: the split; default: "test", or the only one there is.
        progress: where reading and checking are shown.
        options: the data set's own (`root`, `classes`, `templates`, ...).

    Raises:
        ValueError: an unknown name or option, one that is missing, or a name that holds something else.
    """
    return _load(name, "images", split, progress=progress, **options)


def load_questions(name: str, *, split: str | None = None, **options: Any) -> PictureQuestions:
    """Load a split of a data set of questions about pictures.

    Args:
        name: "vqav2", "textvqa", "pope" or "scienceqa".
        split: the split; default: the data set's usual one.
        options: the data set's own (`root`; of "pope" also `file`).

    Raises:
        ValueError: an unknown name or option, one that is missing, or a name that holds something else.
    """
    return _load(name, "questions", split, **options)


def _load(name: str, gives: str, split: str | None, *, progress: Reporter | None = None, **options: Any) -> Any:
    row = DATASETS.find(name)
    parameters = signature(row.load).parameters
    if "progress" in parameters:
        options["progress"] = progress
    if split is not None or ("split" in parameters and parameters["split"].default is Parameter.empty):
        options["split"] = split or "test"
    told = gives == "pairs" and row.gives == "expressions"  # what is said of a picture is a text for it
    if row.gives != gives and not told:
        raise ValueError(f"Expected a data set of {gives}, but {name!r} holds {row.gives}: use load_{row.gives}.")
    check_options(row.load, options, what=f"data set {name!r}")
    found = row.load(**{option: _given(value, parameters.get(option)) for option, value in options.items()})
    return found.pairs() if told else found


def _given(value: Any, parameter: Parameter | None) -> Any:
    """Return a NumPy number as Python's own, and a path with `~` as the home folder; what is neither stays."""
    value = plain(value)
    if parameter is None or "Path" not in str(parameter.annotation):
        return value
    if isinstance(value, list | tuple):
        return [_given(each, parameter) for each in value]
    return os.path.expanduser(value) if isinstance(value, str | os.PathLike) else value
