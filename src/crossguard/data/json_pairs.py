"""The field's annotation files: a JSON list of {"image": path, "caption": text or [texts]}."""

import json
from pathlib import Path

import numpy as np

from crossguard.data.pairs import OneToManyPairs
from crossguard.data.pictures import Picture


def load_json(*, annotations: Path | str, root: Path | str, split: str = "test") -> OneToManyPairs:
    """Load image-caption pairs from an annotation file (the layout of Flickr30k, COCO and their kin).

    Rows that name the same image are one image with all their captions; the same caption of several images is one
    text linked to all of them. Any number of captions per image is taken.

    Args:
        annotations: JSON file, a list of {"image": path below `root`, "caption": text or list of texts}.
        root: folder that the image paths start from.
        split: name of the split that the file holds, for tables and rows.

    Raises:
        ValueError: not such a file, a row without image or caption, missing image files (counted and named).
    """
    annotations, root = Path(annotations), Path(root)
    try:
        rows = json.loads(annotations.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"Expected a JSON annotation file at {annotations}, but got: {error}") from error
    if not isinstance(rows, list) or not rows:
        raise ValueError(f"Expected a list of rows in {annotations}, but got {type(rows).__name__} (empty or no list).")
    images: dict[str, int] = {}
    texts: dict[str, int] = {}
    links: set[tuple[int, int]] = set()
    for number, row in enumerate(rows):
        image, captions = _read_row(row, number, annotations)
        for caption in captions:
            links.add((images.setdefault(image, len(images)), texts.setdefault(caption, len(texts))))
    missing = [image for image in images if not (root / image).is_file()]
    if missing:
        named = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        raise ValueError(f"Expected {len(images)} image files below {root}, but {len(missing)} are missing: {named}")
    return OneToManyPairs(
        name=annotations.stem,
        split=split,
        images=tuple(Picture(key=image, path=root / image) for image in images),
        texts=tuple(texts),
        links=np.array(sorted(links), dtype=np.int64),
        text_kinds=("caption",) * len(texts),
    )


def _read_row(row: object, number: int, annotations: Path) -> tuple[str, list[str]]:
    where = f"row {number} of {annotations}"
    if not isinstance(row, dict) or "image" not in row or "caption" not in row:
        raise ValueError(f'Expected {{"image", "caption"}} in {where}, but got {str(row)[:80]}.')
    image, caption = row["image"], row["caption"]
    captions = [caption] if isinstance(caption, str) else caption
    if not isinstance(image, str) or not isinstance(captions, list) or not captions:
        raise ValueError(f"Expected a path and a text or list of texts in {where}, but got {str(row)[:80]}.")
    for text in captions:
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"Expected captions that are not blank in {where}, but got {text!r}.")
    return image, captions
