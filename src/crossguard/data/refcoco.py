"""RefCOCO+ (Yu et al., ECCV 2016; Kazemzadeh et al., EMNLP 2014) in the files that grounding is evaluated with."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from crossguard.checks import nearest
from crossguard.data.files import locate
from crossguard.data.json_stream import read_json
from crossguard.data.pictures import UNREADABLE, Picture, open_image, orientation
from crossguard.data.refcoco_refs import Reference, read_references
from crossguard.data.referring import ReferringExpressions, refuse

SPLITS = ("val", "testA", "testB", "train")
REFERENCES = ("refs(unc).json", "refs.json", "refs(unc).p")
"""Names under which references are looked for, in this order; `convert_references` makes the JSON from the pickle."""


def load_refcoco_plus(
    *,
    annotations: Path | str,
    root: Path | str,
    boxes: Path | str,
    split: str = "val",
    outside_root: bool = False,
) -> ReferringExpressions:
    """Load a split of RefCOCO+ (RefCOCO has the same files): expressions, true boxes, and the detector's proposals.

    The annotation file may hold all splits; the references say which row belongs to which. Proposals come from a
    detector that saw the clean photos (MAttNet's Mask R-CNN), so that an attack on a picture does not move them.

    Args:
        annotations: JSON file, a list of {"image": path below `root`, "text": expression, "ref_id": number}.
        root: folder that the image paths start from (COCO's).
        boxes: folder with `instances.json` (COCO's annotations), `refs(unc).p` or its JSON form (see
            `convert_references`), and `dets.json` ({image id: [[left, top, width, height, ...], ...]}, in pixels).
        split: "val", "testA" (people), "testB" (other things) or "train".
        outside_root: take image files outside of `root` too.

    Raises:
        ValueError: an unknown split, files that are missing or of another format, rows whose reference, annotation,
            image or proposals are missing, image files that are missing or of another size, or boxes outside their
            image (counted and named).
    """
    if split not in SPLITS:
        raise ValueError(f"Unknown split {split!r} of RefCOCO+: {nearest(split, SPLITS)}.")
    annotations, root, boxes = Path(annotations), Path(root), Path(boxes)
    rows = [_read_row(row, number, annotations) for number, row in enumerate(_read_list(annotations))]
    references = _by_id(read_references(_references_file(boxes)))
    refuse(
        sorted({ref_id for _, _, ref_id in rows if ref_id not in references}),
        f"every `ref_id` of {annotations} in the references",
        "these are missing:",
    )
    rows = [row for row in rows if references[row[2]].split == split]
    if not rows:
        raise ValueError(f"Expected expressions of split {split!r} in {annotations}, but there are none.")
    wanted = [references[ref_id] for _, _, ref_id in rows]
    instances = _Instances(boxes / "instances.json", wanted)
    detections = _detections(boxes / "dets.json", wanted)
    images: dict[int, str] = {}
    for (image, _, _), reference in zip(rows, wanted, strict=True):
        if images.setdefault(reference.image_id, image) != image:
            raise ValueError(
                f"Expected one path for image {reference.image_id} in {annotations}, but got "
                f"{images[reference.image_id]!r} and {image!r}."
            )
    if not outside_root:
        found = locate(list(images.values()), root)
        leading = [name for place, name in enumerate(images.values()) if place in found.outside]
        refuse(leading, f"image files inside {root} (outside_root takes others)", "these paths lead out of it:")
    sizes = {image_id: instances.sizes[image_id] for image_id in images}
    _check_files({path: (root / path, sizes[image_id]) for image_id, path in images.items()}, root)
    place = {image_id: index for index, image_id in enumerate(images)}
    return ReferringExpressions(
        name="refcoco+",
        split=split,
        images=tuple(Picture(path, root / path) for path in images.values()),
        sizes=np.array(list(sizes.values()), dtype=np.int64).reshape(-1, 2),
        proposals=tuple(detections[image_id] for image_id in images),
        texts=tuple(text for _, text, _ in rows),
        image_of=np.array([place[reference.image_id] for reference in wanted], dtype=np.int64),
        boxes=np.array([instances.boxes[reference.ann_id] for reference in wanted], dtype=np.float64).reshape(-1, 4),
        keys=tuple(_numbered(str(ref_id) for _, _, ref_id in rows)),
    )


class _Instances:
    """COCO's `instances.json`: boxes by annotation, (height, width) by image; only what the references name."""

    def __init__(self, path: Path, references: Sequence[Reference]) -> None:
        content = _read_json(path)
        if not isinstance(content, Mapping) or not {"images", "annotations"} <= set(content):
            raise ValueError(f"Expected COCO's `images` and `annotations` in {path}, but got {str(content)[:80]}.")
        images, annotations = {r.image_id for r in references}, {r.ann_id for r in references}
        try:
            shown = [
                (row["id"], (int(row["height"]), int(row["width"]))) for row in content["images"] if row["id"] in images
            ]
            marked = [
                (row["id"], (row["image_id"], row["bbox"]))
                for row in content["annotations"]
                if row["id"] in annotations
            ]
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ValueError(
                f"Expected images and annotations as COCO has them in {path}, but got: {error!r}."
            ) from error
        self.sizes, found = dict(shown), dict(marked)
        for what, given, kept in (("images", shown, self.sizes), ("annotations", marked, found)):
            if len(kept) < len(given):
                raise ValueError(
                    f"Expected {what} of different ids in {path}, but {len(given) - len(kept)} come again."
                )
        refuse(sorted(images - set(self.sizes)), f"every referred image in {path}", "these are missing:")
        refuse(sorted(annotations - set(found)), f"every referred annotation in {path}", "these are missing:")
        refuse(
            sorted({r.ref_id for r in references if found[r.ann_id][0] != r.image_id}),
            "references whose annotation is of their image",
            "not these:",
        )
        self.boxes = {number: _boxes([box], f"annotation {number} of {path}")[0] for number, (_, box) in found.items()}


def _detections(path: Path, references: Sequence[Reference]) -> dict[int, Float64[np.ndarray, "boxes 4"]]:
    content = _read_json(path)
    if not isinstance(content, Mapping):
        raise ValueError(f"Expected an object of boxes by image id in {path}, but got {type(content).__name__}.")
    wanted = dict.fromkeys(reference.image_id for reference in references)
    missing = [image_id for image_id in wanted if not content.get(str(image_id))]
    refuse(missing, f"proposals for every image in {path}", "there are none for")
    return {image_id: _boxes(content[str(image_id)], f"image {image_id} of {path}") for image_id in wanted}


def _boxes(values: Any, where: str) -> Float64[np.ndarray, "boxes 4"]:
    """Read rows of [left, top, width, height, ...]."""
    try:
        return np.array([[float(number) for number in row[:4]] for row in values], dtype=np.float64).reshape(-1, 4)
    except (TypeError, ValueError, KeyError) as error:
        raise ValueError(f"Expected [left, top, width, height] for {where}, but got {str(values)[:80]}.") from error


def _check_files(files: Mapping[str, tuple[Path, tuple[int, int]]], root: Path) -> None:
    """Look at every file's header: it must be there, and of the size that its boxes are measured in."""
    missing, other = [], []
    for name, (path, (height, width)) in files.items():
        if not path.is_file():
            missing.append(name)
            continue
        try:
            with open_image(path) as image:
                turned = orientation(image) in (5, 6, 7, 8)
                found = image.size if turned else image.size[::-1]
        except UNREADABLE as error:
            raise ValueError(f"Expected an image file at {path}, but it could not be read: {error}") from error
        if found != (height, width):
            other.append(f"{name} is {found[1]} x {found[0]} instead of {width} x {height}")
    refuse(missing, f"{len(files)} image files below {root}", "missing are")
    refuse(other, "images of the size that `instances.json` says", "others are")


def _read_row(row: object, number: int, path: Path) -> tuple[str, str, int]:
    where = f"row {number} of {path}"
    if not isinstance(row, dict) or not {"image", "text", "ref_id"} <= set(row):
        raise ValueError(f'Expected {{"image", "text", "ref_id"}} in {where}, but got {str(row)[:80]}.')
    image, text, ref_id = row["image"], row["text"], row["ref_id"]
    if not isinstance(image, str) or not isinstance(text, str) or not isinstance(ref_id, int) or not text.strip():
        raise ValueError(f"Expected a path, a text and a whole number in {where}, but got {str(row)[:80]}.")
    return image, text, ref_id


def _by_id(references: Sequence[Reference]) -> dict[int, Reference]:
    found = {reference.ref_id: reference for reference in references}
    if len(found) != len(references):
        raise ValueError(f"Expected different `ref_id`s, but {len(references) - len(found)} come again.")
    return found


def _references_file(folder: Path) -> Path:
    for name in REFERENCES:
        if (folder / name).is_file():
            return folder / name
    raise ValueError(f"Expected references in {folder} ({' or '.join(REFERENCES)}), but there are none.")


def _numbered(keys: Any) -> list[str]:
    """Tell several expressions of one reference apart: "7", "7.2", "7.3"."""
    seen: dict[str, int] = {}
    names = []
    for key in keys:
        seen[key] = seen.get(key, 0) + 1
        names.append(key if seen[key] == 1 else f"{key}.{seen[key]}")
    return names


def _read_list(path: Path) -> list[Any]:
    rows = _read_json(path)
    if not isinstance(rows, list) or not rows:
        raise ValueError(f"Expected a list of rows in {path}, but got {type(rows).__name__} (empty or no list).")
    return rows


def _read_json(path: Path) -> Any:
    try:
        return read_json(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"Expected a JSON file at {path}, but got: {error}") from error
