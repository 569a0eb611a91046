"""The field's annotation files with their images: any `{"image", "caption"}` JSON, Flickr30k, COCO."""

from collections.abc import Sequence
from pathlib import Path

from crossguard.data.annotations import gather_json
from crossguard.data.files import find_base
from crossguard.data.pairs import OneToManyPairs
from crossguard.progress import Reporter

SPLITS = ("train", "val", "test")


def load_json(
    *,
    annotations: Path | str,
    root: Path | str,
    split: str = "test",
    skip_bad: bool = False,
    verify: bool = False,
    workers: int | None = None,
    progress: Reporter | None = None,
) -> OneToManyPairs:
    """Load image-caption pairs from an annotation file.

    Rows that name the same image are one image with all their captions; the same caption of several images is one
    text linked to all of them. Any number of captions per image is taken, in any script. Images are decoded when they
    are asked for.

    Args:
        annotations: JSON file: a list of {"image": path below `root`, "caption": text or list of texts}, Karpathy's
            `dataset_*.json`, or COCO's `captions_*.json`.
        root: folder that the image paths start from.
        split: name of the split; of a Karpathy file it says which images are taken.
        skip_bad: leave out bad rows, missing files and images that do not decode; the pairs' `notes` tell of them.
        verify: decode every image once, now.
        workers: threads that do so; default: one per core.
        progress: where that is shown.

    Raises:
        ValueError: not such a file; rows without image or caption, blank captions, missing files, images that do not
            decode, each counted and named in one message.
    """
    annotations = Path(annotations)
    return gather_json(annotations, split=split, skip_bad=skip_bad).build(
        name=annotations.stem, split=split, root=Path(root), verify=verify, workers=workers, progress=progress
    )


def load_flickr30k(
    *,
    root: Path | str,
    split: str = "test",
    annotations: Path | str | None = None,
    skip_bad: bool = False,
    verify: bool = False,
    workers: int | None = None,
    progress: Reporter | None = None,
) -> OneToManyPairs:
    """Load a split of Flickr30k (Young et al., 2014; 29,000 / 1,014 / 1,000 images of Karpathy's split).

    Args:
        root: the folder with the images, or with `flickr30k-images/`. The annotation file is looked for in it and in
            its `annotations/`: `flickr30k_{split}.json` as ALBEF and BLIP have it, or `dataset_flickr30k.json`.
        split: "train", "val" or "test".
        annotations: the annotation file, where it lies elsewhere.
        skip_bad: as `load_json`.
        verify: as `load_json`.
        workers: as `load_json`.
        progress: as `load_json`.

    Raises:
        ValueError: an unknown split, no annotation file there, or as `load_json`.
    """
    root, path = _annotations(root, annotations, split, ("flickr30k_{}.json", "dataset_flickr30k.json"))
    rows = gather_json(path, split=split, skip_bad=skip_bad)
    base = find_base(root, ("flickr30k-images", "flickr30k_images", "images", "flickr30k"), rows.images)
    return rows.build(name="flickr30k", split=split, root=base, verify=verify, workers=workers, progress=progress)


def load_coco(
    *,
    root: Path | str,
    split: str = "test",
    annotations: Path | str | None = None,
    skip_bad: bool = False,
    verify: bool = False,
    workers: int | None = None,
    progress: Reporter | None = None,
) -> OneToManyPairs:
    """Load a split of COCO's captions (Lin et al., 2014; 113,287 / 5,000 / 5,000 images of Karpathy's split).

    Args:
        root: the folder with `train2014/` and `val2014/`, or with an `images/` that has them. The annotation file is
            looked for in it and in its `annotations/`: `coco_{split}.json` or `coco_karpathy_{split}.json` as ALBEF
            and BLIP have it, or `dataset_coco.json`.
        split: "train" ("restval" included), "val" or "test".
        annotations: the annotation file, where it lies elsewhere.
        skip_bad: as `load_json`.
        verify: as `load_json`.
        workers: as `load_json`.
        progress: as `load_json`.

    Raises:
        ValueError: an unknown split, no annotation file there, or as `load_json`.
    """
    names = ("coco_{}.json", "coco_karpathy_{}.json", "dataset_coco.json")
    root, path = _annotations(root, annotations, split, names)
    rows = gather_json(path, split=split, skip_bad=skip_bad)
    base = find_base(root, ("images", "coco", "coco2014", "val2014", "train2014"), rows.images)
    return rows.build(name="coco", split=split, root=base, verify=verify, workers=workers, progress=progress)


def _annotations(root: Path | str, given: Path | str | None, split: str, names: Sequence[str]) -> tuple[Path, Path]:
    root = Path(root)
    if split not in SPLITS:
        raise ValueError(f"Expected split {', '.join(SPLITS)}, but got {split!r}.")
    if not root.is_dir():
        raise ValueError(f"Expected the data set's folder at `root`, but {root} is none.")
    if given is not None:
        return root, Path(given)
    places = [folder / name.format(split) for name in names for folder in (root, root / "annotations")]
    for place in places:
        if place.is_file():
            return root, place
    looked = ", ".join(name.format(split) for name in names)
    raise ValueError(
        f"Expected one of {looked} in {root} or its annotations/, but there is none: name it with annotations=."
    )
