"""`as_pairs` and `as_images`: data sets of what is in memory already."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from crossguard.checks import expanded
from crossguard.data.annotations import gather_layout
from crossguard.data.gather import Gathering
from crossguard.data.labelled import TEMPLATES, LabelledImages, labelled
from crossguard.data.pairs import OneToManyPairs
from crossguard.data.pictures import Picture
from crossguard.data.reading import Reading, same_split, split_said
from crossguard.data.referring import ReferringExpressions
from crossguard.data.rows_of import IMAGE, Columns, columns_of, names_of_classes, of_split, parts_of, rows_of
from crossguard.data.spool import InMemory, Spool, take

GIVEN = "the given rows"
_LABEL = ("label", "labels", "class", "target", "fine_label", "cls", "y")


def as_pairs(
    obj: Any,
    *,
    image: str = "image",
    text: str = "caption",
    id: str | None = None,  # noqa: A002
    root: Path | str | None = None,
    name: str = "pairs",
    split: str | None = None,
    reading: Reading | None = None,
) -> OneToManyPairs:
    """Make pairs of what is in memory; pairs are returned as they are, referring expressions as their pairs.

    Pictures may be PIL images, arrays, tensors, the bytes of image files, or paths (see `crossguard.data.spool.take`
    for shapes and ranges). What has no file of its own is written into one file of the cache, so that workers and later
    runs find it: the same pictures always have the same file. Rows that show the same picture become one image with all
    their texts, and equal texts one text. Data sets and loaders are read once, from the first row to the last.

    Args:
        obj: a list of (picture, text or texts); two lists, pictures and texts; a dict of columns, of texts by the
            name of their picture's file, or of splits; Karpathy's or COCO's annotations; a DataFrame or Arrow table; a
            Hugging Face data set; a PyTorch data set or loader whose rows are (picture, text or texts, ...) or dicts.
        image: name of the column of pictures; default: "image", or another usual name.
        text: the same for the column of texts.
        id: a column that says which rows have the same picture; the first of them is taken. Default: pictures are the
            same if they show the same or have the same path.
        root: folder that relative paths start from, and that no path may leave; default: the working directory, and
            any path is taken.
        name: of the data set.
        split: which rows, where these have a `split` or come by split; else the name of the split. Default: the only
            one that there is, or "test".
        reading: how strictly.

    Raises:
        ValueError: another object, no such columns, rows without picture or text, pictures that cannot be read or
            missing files: counted and named in one message.
        OSError: the cache cannot be written.

    Example:
        >>> from crossguard.data import as_pairs
        >>> from PIL import Image
        >>> red, blue = (Image.new("RGB", (8, 8), colour) for colour in ("red", "blue"))
        >>> pairs = as_pairs([(red, "a red square"), (red, "something red"), (blue, "a blue square")])
        >>> pairs.texts, pairs.links.tolist()
        (('a red square', 'something red', 'a blue square'), [[0, 0], [0, 1], [1, 2]])
    """
    if isinstance(obj, OneToManyPairs):
        return obj
    if isinstance(obj, ReferringExpressions):
        return obj.pairs()
    reading, home = _within(reading, root), expanded(root or ".")
    columns = columns_of(image, text, id=id)
    layout = _layout(obj, split, reading, columns)
    if layout is not None:
        return layout[0].build(name=name, split=layout[1], root=home)
    rows = Gathering(GIVEN, reading)
    with Spool() as spool:
        kept = _Kept(spool)
        for number, row in of_split(rows_of(_part(obj, split), columns), rows, split):
            rows.leave_unread(row.unread)
            try:
                own, found = kept.take(row.picture, None if row.id is None else f"id {row.id}")
            except ValueError as error:
                rows.refuse(f"a picture {error}", number)
                continue
            before = len(rows)
            rows.add(own, _plain(row.value), number)
            if len(rows) > before:
                kept.keep(own, found)
        part = _said(obj, rows, split)
        return rows.build(name=name, split=part, root=home, pictures=kept.pictures())


def as_images(
    obj: Any,
    *,
    image: str = "image",
    label: str = "label",
    classes: Sequence[str] | None = None,
    templates: Sequence[str] = TEMPLATES,
    root: Path | str | None = None,
    name: str = "images",
    split: str | None = None,
    reading: Reading | None = None,
) -> LabelledImages:
    """Make labelled images of what is in memory; labelled images are returned as they are.

    Args:
        obj: as for `as_pairs`, with a label in the place of the texts: a whole number or the name of a class.
        image: name of the column of pictures; default: "image", or another usual name.
        label: the same for the column of labels.
        classes: the names of the classes, in the order of the numbers; default: those that a data set of Hugging Face
            or torchvision carries, else the labels themselves, sorted.
        templates: prompts with `{c}` in the place of a class name.
        root: as for `as_pairs`.
        name: of the data set.
        split: as for `as_pairs`.
        reading: how strictly.

    Raises:
        ValueError: as `as_pairs`, or labels that are no class, of two kinds, or numbers without class names.
        OSError: the cache cannot be written.
    """
    if isinstance(obj, LabelledImages):
        return obj
    given = names_of_classes(obj, label) if classes is None else list(map(str, classes))
    rows = Gathering(GIVEN, _within(reading, root), value="label")
    names: set[bool] = set()
    with Spool() as spool:
        kept = _Kept(spool)
        usual = IMAGE if image == "image" else (), _LABEL if label == "label" else ()
        columns = Columns(image, label, None, *usual, "label")
        for number, row in of_split(rows_of(_part(obj, split), columns), rows, split):
            rows.leave_unread(row.unread)
            try:
                own, found = kept.take(row.picture, None)
                told = _label(row.value, given)
                names.add(isinstance(row.value, str))
            except ValueError as error:
                rows.refuse(f"a picture or label {error}", number)
                continue
            own = own if isinstance(found, str) else f"{number:06d}-{own}"  # equal pictures stay samples of their own
            rows.add(own, told, number)
            kept.keep(own, found)
        if given is None and len(names) > 1:
            raise ValueError("Expected labels that are all whole numbers or all names, but got both.")
        part = _said(obj, rows, split)
        pairs = rows.build(name=name, split=part, root=expanded(root or "."), pictures=kept.pictures())
    return labelled(pairs, given, templates)


def _part(obj: Any, split: str | None) -> Any:
    """Return the split of a Hugging Face data set that comes with all of them; anything else as it is.

    Raises:
        ValueError: no split, or another one, is asked for.
    """
    parts = parts_of(obj)
    if not parts or not hasattr(obj[parts[0]], "cast_column"):
        return obj
    chosen = [part for part in parts if split is not None and same_split(part) == same_split(split)]
    if len(chosen) != 1:
        asked = "" if split is None else f" {split!r}"
        raise ValueError(f"Expected one split{asked} of the data set, but got all of {sorted(parts)}: choose one.")
    return obj[chosen[0]]


def _said(obj: Any, rows: Gathering, asked: str | None) -> str:
    """Return the split of what was given: the one asked for, else as its rows or a Hugging Face data set tells it."""
    found = rows.split(asked)
    if asked is not None or rows.tell_splits or not hasattr(obj, "cast_column"):
        return found
    return split_said(str(getattr(obj, "split", None) or "")) or found


def _plain(value: Any) -> Any:
    """Return a list where an array or a column's part is given."""
    if isinstance(value, str | list | tuple):
        return value
    for form in ("tolist", "to_list"):
        if hasattr(value, form):
            return getattr(value, form)()
    return value


def _layout(obj: Any, split: str | None, reading: Reading, columns: Columns) -> tuple[Gathering, str] | None:
    """Read one of the layouts of annotation files that was read from its file; None for anything else."""
    images = obj.get("images") if isinstance(obj, Mapping) else None
    if not isinstance(images, list) or not images or not isinstance(images[0], Mapping):
        return None
    if not isinstance(obj.get("annotations", []), list):
        return None
    elements = (
        (key, element)
        for key, value in obj.items()
        for element in (value if key in ("images", "annotations") else [value])
    )
    return gather_layout(elements, {}, Path(GIVEN), split, reading, columns)


class _Kept:
    """The pictures of the rows so far: those with a file by its path, the others in the spool."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._places: dict[str, tuple[int, int] | str] = {}

    def take(self, picture: Any, key: str | None) -> tuple[str, InMemory | str | None]:
        """Return a picture's key (default: by its path or what it shows), and the picture if its key is new."""
        if key is not None and key in self._places:
            return key, None
        if isinstance(picture, Mapping) and {"bytes", "path"} & set(picture):  # as Hugging Face keeps them
            picture = picture.get("path") if picture.get("bytes") is None else picture["bytes"]
        found = _path(picture) if isinstance(picture, str | os.PathLike) else take(picture)
        return key or (found if isinstance(found, str) else found.digest), found

    def keep(self, key: str, found: InMemory | str | None) -> None:
        """Keep a new picture."""
        if found is not None:
            self._places[key] = found if isinstance(found, str) else self._spool.put(found)

    def pictures(self) -> list[Picture | str]:
        """Close the spool and return all pictures, in the order they came in."""
        inside = any(not isinstance(place, str) for place in self._places.values())
        spool = self._spool.close() if inside else Path()
        return [
            place if isinstance(place, str) else Picture(key, spool, "", *place) for key, place in self._places.items()
        ]


def _path(picture: str | os.PathLike[str]) -> str:
    path = os.fspath(picture)
    if not isinstance(path, str) or not path or "\0" in path:
        raise ValueError("without a path")
    if "://" in path:
        raise ValueError("at an address of the web, which is not fetched")
    return os.path.expanduser(path)


def _within(reading: Reading | None, root: Path | str | None) -> Reading:
    reading = reading or Reading()
    return reading if root is not None else replace(reading, outside_root=True)


def _label(value: Any, classes: Sequence[str] | None) -> str:
    """Return a label as a text: the number of a class if these are known, else what it says."""
    plain = value.item() if hasattr(value, "item") and not getattr(value, "ndim", 0) else value
    if isinstance(plain, float) and plain.is_integer():
        plain = int(plain)
    if isinstance(plain, bool) or not isinstance(plain, int | str) or plain == "":
        raise ValueError(f"that is a whole number or a text, but it is {str(plain)[:40]!r}")
    if isinstance(plain, int) and plain < 0:
        raise ValueError(f"of a class, but it is {plain}")
    if classes is None:
        return str(plain)
    if isinstance(plain, str) and classes.count(plain) == 1:
        return str(classes.index(plain))
    if isinstance(plain, str) or not 0 <= plain < len(classes):
        raise ValueError(f"of {len(classes)} classes, but it is {plain!r}")
    return str(plain)
