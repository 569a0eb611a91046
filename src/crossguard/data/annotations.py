"""The field's annotation files, in each of their JSON layouts, as rows for a `Gathering`."""

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import Any

from crossguard.checks import some, visible
from crossguard.data.gather import Gathering
from crossguard.data.json_stream import Repeated, is_lines, is_list, read_lines, read_list, read_object
from crossguard.data.reading import Reading, split_of_file, split_said, uncollected
from crossguard.data.rows_of import splits_of

IMAGE = ("image", "image_name", "image_path", "filepath", "filename", "file_name", "file", "path", "img")
CAPTION = ("caption", "captions", "comment", "text", "texts", "title", "description", "sentence", "sentences", "raw")
_VALUES = frozenset(CAPTION)
_AT_ONCE = 4096
_REST = {"restval": "train"}
"""Karpathy and Fei-Fei (2015) train on what COCO's validation images leave over, "restval"."""


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
    or one such row per line; Karpathy's `dataset_*.json`; COCO's own `captions_*.json`. Where rows have a `split`,
    those of the one asked for are taken.

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
    columns = (image_key, caption_key)
    try:
        if is_lines(path):
            return _read_rows(_in_batches(read_lines(path)), path, split, reading, columns, unit="line")
        if is_list(path):
            return _read_rows(_numbered(read_list(path)), path, split, reading, columns)
        return _read_object(read_object(path), path, split, reading)
    except (OSError, ValueError) as error:
        if str(error).startswith("Expected"):
            raise
        raise ValueError(f"Expected a JSON annotation file at {visible(path)}, but got: {error}") from error


def _read_rows(
    batches: Iterable[tuple[Sequence[int], Sequence[Any]]],
    path: Path,
    split: str | None,
    reading: Reading,
    columns: tuple[str | None, str | None],
    *,
    unit: str = "row",
) -> tuple[Gathering, str]:
    rows = Gathering(path, reading, unit=unit)
    asked = split or split_said(path.name) or "test"
    told, untold = 0, array("q")
    image_key, caption_key = columns
    keys = (image_key or "image", caption_key or "caption", "image_id")
    for number, row in _unusual(batches, rows, keys, untold):
        if not isinstance(row, dict) or isinstance(row, Repeated):
            rows.refuse("a key that comes twice" if isinstance(row, Repeated) else "no object", number)
            continue
        parts = splits_of(row)
        if len(parts) > 1:
            rows.refuse("several splits", number)
            continue
        if parts:
            told += 1
            if not rows.is_of(row[parts[0]], asked, number, also=_REST):
                continue
        elif len(untold) < 6:
            untold.append(number)
        image = row.get("image") if image_key is None else row.get(image_key)
        caption = row.get("caption") if caption_key is None else row.get(caption_key)
        if image is None and image_key is None:
            image = _first(row, IMAGE)
        if caption is None and caption_key is None:
            caption = _first(row, CAPTION)
        if isinstance(caption, list) and any(isinstance(text, dict) for text in caption):
            caption = [text.get("raw") if isinstance(text, dict) else text for text in caption]
        if caption_key is None:
            rows.leave_unread([key for key in CAPTION if row.get(key) not in (None, caption)])
        rows.add(image, caption, number, image_id=row.get("image_id"))
    if not (told or untold or len(rows) or rows.refused):
        raise ValueError(f"Expected a list of rows in {visible(path)}, but it is empty.")
    if told and untold:
        raise ValueError(
            f"Expected a `split` in every row of {visible(path)} or in none, but {told} have one and others do not "
            f"({some([f'{unit} {number}' for number in untold])})."
        )
    return rows, asked if told else split_of_file(path, split)


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
    untold: "array[int]",
) -> Iterator[tuple[int, Any]]:
    """Give the rows that have to be looked at one by one; `rows` takes the others, thousands at a time.

    Args:
        batches: all rows, with their numbers.
        rows: takes what needs no look.
        keys: of image, caption and the image's id.
        untold: gets the numbers of the first rows without a split.
    """
    for numbers, given in batches:
        plain = set(map(type, given)) == {dict}
        found = [_column(given, key) for key in keys] if plain else []
        if plain and sum(map(len, given)) != len(given) * sum(None not in column for column in found):
            held = {key for layout in set(map(tuple, given)) for key in layout}  # some have more to say
            plain = not splits_of(held) and not (held & _VALUES - set(keys))
        if plain and rows.add_plain(*found):
            untold.extend(numbers[: 6 - min(6, len(untold))])
        else:
            yield from zip(numbers, given, strict=True)


def _column(rows: Sequence[dict[str, Any]], key: str) -> list[Any]:
    try:
        return list(map(itemgetter(key), rows))
    except KeyError:
        return [row.get(key) for row in rows]


def _first(row: Mapping[str, Any], known: Sequence[str]) -> Any:
    return next((row[key] for key in known if row.get(key) is not None), None)


def _read_object(
    elements: Iterator[tuple[str, Any]], path: Path, split: str | None, reading: Reading
) -> tuple[Gathering, str]:
    """Read Karpathy's layout or COCO's: which one it is shows only once all keys are known."""
    images: list[tuple[Any, ...]] = []
    captions: list[tuple[Any, Any]] = []
    keys: dict[str, None] = {}
    for key, element in elements:
        keys[key] = None
        given = element if isinstance(element, dict) and not isinstance(element, Repeated) else {}
        if key == "images":
            images.append(tuple(given.get(name) for name in ("id", "file_name", "filepath", "filename", "split")))
            images[-1] = (*images[-1], _sentences(given.get("sentences")), isinstance(element, Repeated))
        elif key == "annotations":
            captions.append((given.get("image_id"), given.get("caption")))
    if "images" not in keys:
        raise ValueError(
            f"Expected a list of rows in {visible(path)}, or Karpathy's or COCO's layout, but got an object with the "
            f"keys {[visible(key) for key in sorted(keys)[:5]]}."
        )
    if "annotations" in keys:
        return _coco(images, captions, path, split, reading)
    return _karpathy(images, path, split, reading)


def _sentences(given: Any) -> Any:
    """Return the captions of an entry: a text, or a list of texts or of `{"raw"}`."""
    if not isinstance(given, list):
        return given
    return [text.get("raw") if isinstance(text, dict) else text for text in given]


def _karpathy(
    images: Sequence[tuple[Any, ...]], path: Path, split: str | None, reading: Reading
) -> tuple[Gathering, str]:
    rows = Gathering(path, reading, unit="image")
    wanted = split or "test"
    for number, (_, _, folder, file, part, sentences, repeated) in enumerate(images):
        if repeated:
            rows.refuse("a key that comes twice", number)
        elif rows.is_of(part, wanted, number, also=_REST):
            rows.add(f"{folder}/{file}" if folder and file else file, sentences, number)
    return rows, wanted


def _coco(
    images: Sequence[tuple[Any, ...]],
    captions: Sequence[tuple[Any, Any]],
    path: Path,
    split: str | None,
    reading: Reading,
) -> tuple[Gathering, str]:
    rows = Gathering(path, reading, unit="annotation")
    files: dict[str, Any] = {}
    times: Counter[str] = Counter()
    for number, (key, file, *_) in enumerate(images):
        if key is None or not isinstance(file, str):
            rows.complain("an image without `id` or `file_name`", f"image {number}")
        else:
            times[_key(key)] += 1
            files.setdefault(_key(key), file)
    told = set()
    for number, (image_id, caption) in enumerate(captions):
        key = _key(image_id)
        told.add(key)
        if key not in files:
            rows.refuse("an `image_id` that no image has", number)
        elif times[key] > 1:
            rows.refuse("an `image_id` that several images have", number)
        else:
            rows.add(files[key], caption, number)
    for key in files:
        if key not in told:
            rows.complain("an image without annotation", f"image {key}")
    return rows, split_of_file(path, split)


def _key(image_id: Any) -> str:
    return repr(image_id) if isinstance(image_id, str) else str(image_id)
