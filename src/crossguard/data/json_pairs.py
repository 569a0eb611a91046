"""The field's annotation files with their images: any `{"image", "caption"}` JSON, Flickr30k, COCO."""

from collections.abc import Sequence
from pathlib import Path

from crossguard.checks import visible
from crossguard.data.annotations import gather_json
from crossguard.data.csv_pairs import gather_csv
from crossguard.data.files import find_base
from crossguard.data.gather import Gathering
from crossguard.data.judged import with_judged_links
from crossguard.data.pairs import OneToManyPairs
from crossguard.data.reading import Reading, data_name

SPLITS = ("train", "val", "test")


def load_json(
    *,
    annotations: Path | str,
    root: Path | str,
    split: str | None = None,
    image_key: str | None = None,
    caption_key: str | None = None,
    reading: Reading | None = None,
) -> OneToManyPairs:
    """Load image-caption pairs from an annotation file.

    Rows that name the same image are one image with all their captions; the same caption of several images is one
    text linked to all of them. Any number of captions per image is taken, in any script. Images are decoded when they
    are asked for.

    Args:
        annotations: JSON file: a list of {"image": path below `root`, "caption": text or list of texts}, such rows one
            a line (`metadata.jsonl`), Karpathy's `dataset_*.json`, or COCO's `captions_*.json`.
        root: folder that the image paths start from.
        split: which rows, where these have a `split`; else the name of the split. Default: what the file's name tells,
            else "test".
        image_key: the key of the image, where rows have another than "image", "file_name" and the like.
        caption_key: the same for the caption.
        reading: how strictly, and where images may lie.

    Raises:
        ValueError: not such a file; rows without image or caption, blank captions, missing files, images that do not
            decode, each counted and named in one message; a file of another split.
    """
    path = Path(annotations)
    rows, split = gather_json(
        path, split=split, reading=reading or Reading(), image_key=image_key, caption_key=caption_key
    )
    return rows.build(name=data_name(path), split=split, root=Path(root))


def load_flickr30k(
    *,
    root: Path | str,
    split: str = "test",
    annotations: Path | str | None = None,
    reading: Reading | None = None,
) -> OneToManyPairs:
    """Load a split of Flickr30k (Young et al., 2014; 29,000 / 1,014 / 1,000 images of Karpathy's split).

    Args:
        root: the folder with the images, or with `flickr30k-images/`. The annotation file is looked for in it and in
            its `annotations/`: `flickr30k_{split}.json` as ALBEF and BLIP have it, `dataset_flickr30k.json`, or
            `flickr_annotations_30k.csv` of the hub.
        split: "train", "val" or "test".
        annotations: the annotation file, where it lies elsewhere.
        reading: as `load_json`.

    Raises:
        ValueError: an unknown split, no annotation file there, or as `load_json`.
    """
    root, path = _annotations(
        root, annotations, split, ("flickr30k_{}.json", "dataset_flickr30k.json", "flickr_annotations_30k.csv")
    )
    rows = _gather(path, split, reading or Reading())
    base = find_base(root, ("flickr30k-images", "flickr30k_images", "images", "flickr30k"), rows.images)
    return rows.build(name="flickr30k", split=split, root=base)


def load_coco(
    *,
    root: Path | str,
    split: str = "test",
    annotations: Path | str | None = None,
    judged: Path | str | Sequence[Path | str] | None = None,
    captions: Path | str | None = None,
    reading: Reading | None = None,
) -> OneToManyPairs:
    """Load a split of COCO's captions (Lin et al., 2014; 113,287 / 5,000 / 5,000 images of Karpathy's split).

    Args:
        root: the folder with `train2014/` and `val2014/`, or with an `images/` that has them. The annotation file is
            looked for in it and in its `annotations/`: `coco_{split}.json` or `coco_karpathy_{split}.json` as ALBEF
            and BLIP have it, or `dataset_coco.json`.
        split: "train" ("restval" included), "val" or "test".
        annotations: the annotation file, where it lies elsewhere.
        judged: files of links that people judged afterwards, ECCV Caption's or CxC's (see `with_judged_links`); then
            retrieval is told with these links and with the data's own.
        captions: COCO's `captions_val2014.json`, which numbers the captions; default: below `root` or `annotations/`.
        reading: as `load_json`.

    Raises:
        ValueError: an unknown split, no annotation file there, links of other data, or as `load_json`.
    """
    names = ("coco_{}.json", "coco_karpathy_{}.json", "dataset_coco.json")
    root, path = _annotations(root, annotations, split, names)
    rows = _gather(path, split, reading or Reading())
    base = find_base(root, ("images", "coco", "coco2014", "val2014", "train2014"), rows.images)
    pairs = rows.build(name="coco", split=split, root=base)
    if judged is None:
        return pairs
    numbered = "captions_val2014.json"
    beside = next((place for place in (root, root / "annotations") if (place / numbered).is_file()), root)
    return with_judged_links(pairs, judged, captions=captions or beside / numbered)


def _gather(path: Path, split: str, reading: Reading) -> Gathering:
    gather = gather_csv if path.suffix.lower() in (".csv", ".tsv") else gather_json
    rows, _ = gather(path, split=split, reading=reading)
    return rows


def _annotations(root: Path | str, given: Path | str | None, split: str, names: Sequence[str]) -> tuple[Path, Path]:
    root = Path(root)
    if split not in SPLITS:
        raise ValueError(f"Expected split {', '.join(SPLITS)}, but got {split!r}.")
    if not root.is_dir():
        raise ValueError(f"Expected the data set's folder at `root`, but {visible(root)} is none.")
    if given is not None:
        return root, Path(given)
    places = [folder / name.format(split) for name in names for folder in (root, root / "annotations")]
    for place in places:
        if place.is_file():
            return root, place
    looked = ", ".join(name.format(split) for name in names)
    raise ValueError(
        f"Expected one of {looked} in {visible(root)} or its annotations/, but there is none: name it with "
        "annotations=."
    )
