"""The field's annotation files, in each of their JSON layouts, as rows for a `Gathering`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crossguard.data.gather import Gathering

_KARPATHY = {"train": {"train", "restval"}, "val": {"val"}, "test": {"test"}}
"""Karpathy and Fei-Fei (2015) train on what COCO's validation images leave over, "restval"."""


def gather_json(path: Path | str, *, split: str, skip_bad: bool) -> Gathering:
    """Read an annotation file.

    Layouts: a list of `{"image", "caption"}` rows (one per caption or one per image, `image_id` optional); Karpathy's
    `dataset_*.json`, of which the images of `split` are taken; COCO's own `captions_*.json`.

    Args:
        path: the file.
        split: which images of a Karpathy file; the other layouts hold one split per file.
        skip_bad: as in `Gathering`.

    Raises:
        ValueError: not JSON, or another layout.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"Expected a JSON annotation file at {path}, but got: {error}") from error
    rows = Gathering(path, skip_bad=skip_bad)
    if isinstance(content, list) and content:
        _read_list(content, rows)
    elif _holds(content, "images", "annotations"):
        _read_coco(content, rows)
    elif _holds(content, "images"):
        _read_karpathy(content["images"], rows, split=split, path=path)
    else:
        raise ValueError(
            f"Expected a list of rows in {path}, or Karpathy's or COCO's layout, but got {_describe(content)}."
        )
    return rows


def _holds(content: object, *keys: str) -> bool:
    return isinstance(content, Mapping) and all(isinstance(content.get(key), list) for key in keys)


def _describe(content: object) -> str:
    if isinstance(content, Mapping):
        return f"an object with the keys {sorted(map(str, content))[:5]}"
    return "an empty list" if isinstance(content, list) else type(content).__name__


def _read_list(content: list[Any], rows: Gathering) -> None:
    for number, row in enumerate(content):
        given = row if isinstance(row, Mapping) else {}
        rows.add(given.get("image"), given.get("caption"), where=f"row {number}", image_id=given.get("image_id"))


def _read_karpathy(images: list[Any], rows: Gathering, *, split: str, path: Path) -> None:
    wanted, seen = _KARPATHY.get(split, {split}), set()
    for number, image in enumerate(images):
        given = image if isinstance(image, Mapping) else {}
        seen.add(str(given.get("split", "")))
        if given.get("split") not in wanted:
            continue
        sentences = given.get("sentences")
        captions = [s.get("raw") if isinstance(s, Mapping) else s for s in sentences] if sentences else None
        folder, file = given.get("filepath"), given.get("filename")
        rows.add(f"{folder}/{file}" if folder and file else file, captions, where=f"image {number}")
    if not wanted & seen:
        raise ValueError(f"Expected images of split {split!r} in {path}, but its splits are {sorted(seen)}.")


def _read_coco(content: Mapping[str, Any], rows: Gathering) -> None:
    files = {image.get("id"): image.get("file_name") for image in content["images"] if isinstance(image, Mapping)}
    captions: dict[Any, list[Any]] = {key: [] for key in files}
    for number, row in enumerate(content["annotations"]):
        key = row.get("image_id") if isinstance(row, Mapping) else None
        if key in captions:
            captions[key].append(row.get("caption"))
        else:
            rows.refuse("an `image_id` that no image has", f"annotation {number}")
    for key, texts in captions.items():
        rows.add(files[key], texts, where=f"image {key}")
