"""The field's annotation files, in each of their JSON layouts, as rows for a `Gathering`."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import Any

from crossguard.checks import visible
from crossguard.data.gather import Gathering, listed
from crossguard.data.json_stream import Repeated, is_lines, opening, read_lines, read_list, read_object, read_whole
from crossguard.data.reading import Reading, split_of_file, split_said, uncollected
from crossguard.data.rows_of import (
    CAPTION,
    IMAGE,
    Columns,
    also_said,
    named,
    of_split,
    picture_of,
    rows_of,
    splits_of,
)

_VALUES = frozenset(CAPTION)
_AT_ONCE = 4096
_STREAMED = ("images", "annotations")


@uncollected()
def gather_json(
    path: Path | str,
    *,
    split: str | None,
    reading: Reading,
    image_key: str | None = None,
    caption_key: str | None = None,
) -> tuple[Gathering, str]:
    """Read an annotation file, and say which split it is.

    Layouts: a list of `{"image", "caption"}` rows (one per caption or one per image; `image_id` and `split` optional),
    or one such row per line; Karpathy's `dataset_*.json`; COCO's own `captions_*.json`; and whatever `rows_of` reads
    of lists and mappings. Where rows have a `split`, those of the one asked for are taken.

    Args:
        path: the file.
        split: the split asked for; None: the one that the file's name tells, else "test".
        reading: as in `Gathering`.
        image_key: the key of the image, where a row has another than the usual ones.
        caption_key: the same for the caption or captions.

    Raises:
        ValueError: not JSON, another layout, rows with and without a split, or a name that tells another split.
    """
    path = Path(path)
    usual = IMAGE if image_key is None else (), CAPTION if caption_key is None else ()
    columns = Columns(image_key or "image", caption_key or "caption", None, *usual, "caption")
    try:
        if is_lines(path):
            return _read_rows(_in_batches(read_lines(path)), path, split, reading, columns, unit="line")
        begins = opening(path)
        if begins == "[[":
            return _read_any(read_whole(path), path, split, reading, columns)
        if begins.startswith("["):
            return _read_rows(_numbered(read_list(path)), path, split, reading, columns)
        held: dict[str, Any] = {}
        found = gather_layout(read_object(path, _STREAMED), held, path, split, reading, columns)
        whole = held if found is None and not set(_STREAMED) & held.keys() else None
        return found or _read_any(read_whole(path) if whole is None else whole, path, split, reading, columns)
    except (OSError, ValueError) as error:
        if str(error).startswith("Expected"):
            raise
        raise ValueError(f"Expected a JSON annotation file at {visible(path)}, but got: {error}") from error


def _read_rows(
    batches: Iterable[tuple[Sequence[int], Sequence[Any]]],
    path: Path,
    split: str | None,
    reading: Reading,
    columns: Columns,
    *,
    unit: str = "row",
) -> tuple[Gathering, str]:
    rows = Gathering(path, reading, unit=unit)
    asked = split or split_said(path.name) or "test"
    empty = True
    for number, row in _unusual(batches, rows, (columns.image, columns.value, "image_id")):
        empty = False
        if not isinstance(row, dict) or isinstance(row, Repeated):
            rows.refuse("a key that comes twice" if isinstance(row, Repeated) else "no object", number)
            continue
        parts = splits_of(row)
        if len(parts) > 1:
            rows.refuse("several splits", number)
            continue
        if not parts:
            rows.without_split(number)
        elif not rows.is_of(row[parts[0]], asked, number):
            continue
        image, caption = _picture(row, columns), _caption(row, columns)
        rows.leave_unread(also_said(row, columns.beside(row, columns.value), caption))
        rows.add(image, caption, number, image_id=row.get("image_id"))
    if empty and not len(rows):
        raise ValueError(f"Expected a list of rows in {visible(path)}, but it is empty.")
    return rows, asked if rows.tell_splits else split_of_file(path, split)


def _read_any(obj: Any, path: Path, split: str | None, reading: Reading, columns: Columns) -> tuple[Gathering, str]:
    """Read what is neither a list of objects nor one of the field's layouts, as it would be read in memory."""
    rows = Gathering(path, reading)
    asked = split or split_said(path.name) or "test"
    try:
        for number, row in of_split(rows_of(obj, columns), rows, asked):
            if isinstance(row.value, Repeated):
                rows.refuse("a key that comes twice", number)
            else:
                rows.leave_unread(row.unread)
                rows.add(row.picture, row.value, number)
    except ValueError as error:
        raise ValueError(
            f"Expected a list of rows in {visible(path)}, captions by image, columns, or Karpathy's or COCO's layout, "
            f"but got something else: {error}"
        ) from error
    return rows, asked if rows.tell_splits else split_of_file(path, split)


def _numbered(batches: Iterable[list[Any]]) -> Iterator[tuple[Sequence[int], list[Any]]]:
    """Give batches with the numbers of their rows."""
    start = 0
    for batch in batches:
        yield range(start, start + len(batch)), batch
        start += len(batch)


def _in_batches(numbered: Iterable[tuple[int, Any]]) -> Iterator[tuple[Sequence[int], Sequence[Any]]]:
    numbered = iter(numbered)
    while batch := list(islice(numbered, _AT_ONCE)):
        numbers, rows = zip(*batch, strict=True)
        yield numbers, rows


def _unusual(
    batches: Iterable[tuple[Sequence[int], Sequence[Any]]],
    rows: Gathering,
    keys: tuple[str, str, str],
) -> Iterator[tuple[int, Any]]:
    """Give the rows that have to be looked at one by one; `rows` takes the others, thousands at a time.

    Args:
        batches: all rows, with their numbers.
        rows: takes what needs no look.
        keys: of image, caption and the image's id.
    """
    for numbers, given in batches:
        plain = set(map(type, given)) == {dict}
        columns = [_column(given, key) for key in keys] if plain else []
        found = [[None] * len(given) if column is None else column for column in columns]
        if plain and sum(map(len, given)) != len(given) * sum(column is not None for column in columns):
            held = {key for layout in set(map(tuple, given)) for key in layout}  # some have more to say
            lacking = {key for key, column in zip(keys, columns, strict=True) if column is None}
            plain = not splits_of(held) and not held & (_VALUES - set(keys) | lacking)
        if plain and rows.add_plain(*found):
            rows.without_split(numbers[0])
        else:
            yield from zip(numbers, given, strict=True)


def _column(rows: Sequence[dict[str, Any]], key: str) -> list[Any] | None:
    """Return what all rows have under a key; None if some lack it."""
    try:
        return list(map(itemgetter(key), rows))
    except KeyError:
        return None


def _picture(row: Mapping[str, Any], columns: Columns) -> Any:
    name = named([key for key in row if row[key] is not None], (columns.image, *columns.images))
    return None if name is None else picture_of(row, name)


def _caption(row: Mapping[str, Any], columns: Columns) -> Any:
    name = named([key for key in row if row[key] is not None], (columns.value, *columns.values))
    return None if name is None else row[name]


def gather_layout(
    elements: Iterable[tuple[str, Any]],
    held: dict[str, Any],
    path: Path,
    split: str | None,
    reading: Reading,
    columns: Columns,
) -> tuple[Gathering, str] | None:
    """Read Karpathy's layout or COCO's: which one it is shows only once all keys are known.

    Args:
        elements: of the lists "images" and "annotations", each with its key; and all other keys with their values.
        held: gets all other keys, and those of the lists.
        path: of the file.
        split: the split asked for.
        reading: as in `Gathering`.
        columns: of entries that have an image and a caption.

    Returns:
        The rows and their split; None for another layout.
    """
    images: list[tuple[Any, ...]] = []
    captions: list[tuple[Any, Any]] = []
    for key, element in elements:
        held[key] = None if key in _STREAMED else element
        given = element if isinstance(element, dict) and not isinstance(element, Repeated) else {}
        if key == "images":
            images.append(
                (
                    given.get("id"),
                    _picture(given, columns),
                    listed(_caption(given, columns)),
                    given.get("split"),
                    isinstance(element, Repeated),
                )
            )
        elif key == "annotations":
            captions.append((given.get("image_id"), given.get("caption")))
    if "images" not in held:
        return None
    if "annotations" in held:
        return _coco(images, captions, path, split, reading)
    return _karpathy(images, path, split, reading)


def _karpathy(
    images: Sequence[tuple[Any, ...]], path: Path, split: str | None, reading: Reading
) -> tuple[Gathering, str]:
    rows = Gathering(path, reading, unit="image")
    told = any(part is not None for *_, part, _ in images)
    wanted = split or "test"
    for number, (_, picture, sentences, part, repeated) in enumerate(images):
        if repeated:
            rows.refuse("a key that comes twice", number)
        elif not told or rows.is_of(part, wanted, number):
            rows.add(picture, sentences, number)
    return rows, wanted if told else split_of_file(path, split)


def _coco(
    images: Sequence[tuple[Any, ...]],
    captions: Sequence[tuple[Any, Any]],
    path: Path,
    split: str | None,
    reading: Reading,
) -> tuple[Gathering, str]:
    rows = Gathering(path, reading, unit="annotation")
    files: dict[str, Any] = {}
    parts: dict[str, Any] = {}
    times: Counter[str] = Counter()
    for number, (key, file, _, part, _) in enumerate(images):
        if key is None or not isinstance(file, str):
            rows.complain("an image without `id` or `file_name`", f"image {number}")
        else:
            times[_key(key)] += 1
            files.setdefault(_key(key), file)
            parts.setdefault(_key(key), part)
    asked = split or split_said(path.name) or "test"
    has_parts = any(part is not None for part in parts.values())
    told = set()
    for number, (image_id, caption) in enumerate(captions):
        key = _key(image_id)
        told.add(key)
        if key not in files:
            rows.refuse("an `image_id` that no image has", number)
        elif times[key] > 1:
            rows.refuse("an `image_id` that several images have", number)
        elif not has_parts or rows.is_of(parts[key], asked, number):
            rows.add(files[key], caption, number)
    for key in files:
        if key not in told:
            rows.complain("an image without annotation", f"image {key}")
    return rows, asked if has_parts else split_of_file(path, split)


def _key(image_id: Any) -> str:
    return repr(image_id) if isinstance(image_id, str) else str(image_id)
