"""Rows of whatever people hold pictures and texts in: lists, tables, Hugging Face and PyTorch data sets, loaders."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from crossguard.data.files import suffix_of
from crossguard.data.pictures import SUFFIXES

SPLIT = "split"
"""The column that says which split a row is of, in capitals or not."""


class Row(NamedTuple):
    """A picture, what belongs to it, and what else the row tells."""

    picture: Any
    value: Any
    id: Any = None
    split: Any = None


@dataclass(frozen=True)
class Columns:
    """The names of what is read of a row.

    Args:
        image: of the picture.
        value: of what belongs to it: a text, a label.
        id: of the picture's number; None: pictures are told apart by what they show.
        images: names looked for where there is none called `image`.
        values: the same for `value`.
        what: what a value is, in words.
    """

    image: str
    value: str
    id: str | None
    images: Sequence[str]
    values: Sequence[str]
    what: str


def rows_of(obj: Any, columns: Columns) -> Iterator[Row]:
    """Give every row.

    Raises:
        ValueError: an object of another kind, or without the columns; the message says what was expected.
    """
    if isinstance(obj, str | bytes):
        raise _unknown(obj, columns)
    if isinstance(obj, Mapping):
        yield from _mapping(obj, columns)
    elif hasattr(obj, "cast_column"):
        yield from _hugging_face(obj, columns)
    elif hasattr(obj, "to_pydict") and hasattr(obj, "column_names"):  # Arrow's table
        yield from _table(obj.to_pydict(), _keys(obj.column_names), columns)
    elif hasattr(obj, "columns") and hasattr(obj, "__getitem__"):
        yield from _table(obj, _keys(obj.columns), columns)
    elif hasattr(obj, "dataset") and hasattr(obj, "collate_fn"):
        for batch in obj:
            yield from _batch(batch, columns)
    elif isinstance(obj, list | tuple) and _are_two_lists(obj, columns):
        yield from _zipped(obj[0], obj[1], columns)
    elif hasattr(obj, "__getitem__") and hasattr(obj, "__len__") and not hasattr(obj, "shape"):
        yield from (_row(obj[place], columns) for place in range(len(obj)))
    elif isinstance(obj, Iterable) and not hasattr(obj, "shape"):
        yield from (_row(row, columns) for row in obj)
    else:
        raise _unknown(obj, columns)


def names_of_classes(obj: Any, label: str) -> Sequence[str] | None:
    """Return the class names that a data set carries: Hugging Face's `ClassLabel`, torchvision's `classes`."""
    names = getattr((getattr(obj, "features", None) or {}).get(label), "names", None)
    if names is None:
        names = getattr(getattr(obj, "dataset", obj), "classes", None)
    return None if names is None else [str(name) for name in names]


def _mapping(obj: Mapping[Any, Any], columns: Columns) -> Iterator[Row]:
    if obj and all(hasattr(value, "cast_column") for value in obj.values()):
        raise ValueError(f"Expected one split of the data set, but got all of {sorted(map(str, obj))}: choose one.")
    if are_pictures(obj):
        yield from (Row(picture, value) for picture, value in obj.items())
        return
    yield from _table(obj, _keys(obj), columns)


def are_pictures(names: Iterable[Any]) -> bool:
    """Whether there are names, and all are those of picture files: of an object or a mapping by picture."""
    names = list(names)
    return bool(names) and all(isinstance(name, str) and suffix_of(name) in SUFFIXES for name in names)


def _table(obj: Any, names: Sequence[str], columns: Columns) -> Iterator[Row]:
    image, value = _named(names, columns)
    ids = None if columns.id is None else obj[_id(names, columns)]
    part = split_of(names)
    yield from _zipped(obj[image], obj[value], columns, ids, None if part is None else obj[part])


def _zipped(images: Any, values: Any, columns: Columns, ids: Any = None, splits: Any = None) -> Iterator[Row]:
    columns_given = [column for column in (images, values, ids, splits) if column is not None]
    if images is None or values is None:
        raise ValueError(f"Expected columns of pictures and {columns.what}s, but one is None.")
    for column in columns_given:
        if (
            isinstance(column, str | bytes | Mapping)
            or not hasattr(column, "__len__")
            or not getattr(column, "ndim", 1)
        ):
            raise ValueError(f"Expected columns of pictures and {columns.what}s, but one is a {type(column).__name__}.")
    counts = set(map(len, columns_given))
    if len(counts) > 1:
        raise ValueError(f"Expected as many pictures as {columns.what}s, but got {len(images)} and {len(values)}.")
    _check_id(ids, columns)
    nothing = [None] * len(images)
    others = (nothing if column is None else column for column in (ids, splits))
    yield from map(Row, images, values, *others)


def _hugging_face(obj: Any, columns: Columns) -> Iterator[Row]:
    plain = obj.with_format(None)
    image, value = _named(plain.column_names or [], columns)
    key = None if columns.id is None else _id(plain.column_names, columns)
    kind: Any = plain.features[image] if plain.features else None
    if type(kind).__name__ == "Image":
        plain = plain.cast_column(image, replace(kind, decode=False))  # the file's bytes, not decoded
    for row in plain:
        yield Row(row[image], row[value], None if key is None else row[key], row.get(split_of(row)))


def _batch(batch: Any, columns: Columns) -> Iterator[Row]:
    """Give the rows of a loader's batch: pictures as one tensor or a list, beside texts or labels."""
    ids: Any = None
    splits: Any = None
    if isinstance(batch, Mapping):
        image, value = _named(_keys(batch), columns)
        images, values = batch[image], batch[value]
        ids = None if columns.id is None else batch[_id(_keys(batch), columns)]
        splits = batch.get(split_of(batch))
    elif isinstance(batch, list | tuple) and len(batch) >= 2 and not _is_row(batch[0]):
        images, values = batch[0], batch[1]
    elif isinstance(batch, list | tuple):  # a loader that leaves its rows as they are
        yield from (_row(row, columns) for row in batch)
        return
    else:
        raise _unknown(batch, columns)
    size = len(images) if hasattr(images, "__len__") else 0
    if isinstance(values, list | tuple) and values and all(isinstance(value, list | tuple) for value in values):
        sizes = {len(value) for value in values}
        if len(values) != size and sizes == {size}:  # PyTorch puts the first texts of all rows together, and so on
            values = list(map(list, zip(*values, strict=True)))
        elif len(values) == size and size in sizes and size > 1:
            raise ValueError(
                f"Expected batches that tell which texts belong to one picture, but got {size} pictures and {size} "
                f"lists of {size} texts: take another batch size, or give the data set itself."
            )
    if hasattr(values, "tolist"):
        values = values.tolist()
    if hasattr(ids, "tolist"):
        ids = ids.tolist()
    yield from _zipped(images, values, columns, ids, splits)


def _row(row: Any, columns: Columns) -> Row:
    if isinstance(row, Mapping):
        names = _keys(row)
        image, value = _named(names, columns)
        key = None if columns.id is None else row[_id(names, columns)]
        return Row(row[image], row[value], key, row.get(split_of(row)))
    if not isinstance(row, list | tuple) or len(row) < 2:
        raise ValueError(
            f"Expected rows of (picture, {columns.what}) or with the keys {columns.image!r} and {columns.value!r}, but "
            f"got a {type(row).__name__}."
        )
    _check_id(None, columns)
    return Row(row[0], row[1])


def _check_id(ids: Any, columns: Columns) -> None:
    if columns.id is not None and ids is None:
        raise ValueError(f"Expected rows with names, so that one is the id {columns.id!r}, but these have none.")


def _named(names: Sequence[str], columns: Columns) -> tuple[str, str]:
    found = []
    for wanted, known in ((columns.image, columns.images), (columns.value, columns.values)):
        name = next((name for name in (wanted, *known) if name in names), None)
        if name is None:
            raise ValueError(f"Expected a column {wanted!r}, but got {', '.join(map(repr, names)) or 'none'}.")
        if names.count(name) > 1:
            raise ValueError(f"Expected one column {name!r}, but got {names.count(name)}.")
        found.append(name)
    return found[0], found[1]


def splits_of(names: Iterable[Any]) -> list[str]:
    """Return all names of columns of splits: one, or none, or several that differ in capitals."""
    return [name for name in names if isinstance(name, str) and name.lower() == SPLIT]


def split_of(names: Iterable[Any]) -> str | None:
    """Return the name of the column of splits; None if there is none.

    Raises:
        ValueError: there are several.
    """
    found = splits_of(names)
    if len(found) > 1:
        raise ValueError(f"Expected one column {SPLIT!r}, but got {', '.join(map(repr, found))}.")
    return found[0] if found else None


def _id(names: Sequence[str], columns: Columns) -> str:
    assert columns.id is not None
    if columns.id not in names:
        raise ValueError(f"Expected a column {columns.id!r}, but got {', '.join(map(repr, names)) or 'none'}.")
    return columns.id


def _keys(names: Iterable[Any]) -> list[str]:
    return [name for name in names if isinstance(name, str)]


def _are_two_lists(obj: Sequence[Any], columns: Columns) -> bool:
    """Whether a pair is a list of pictures and a list of what belongs to them, rather than two rows."""
    if len(obj) != 2 or any(isinstance(side, str | bytes | Mapping) or not hasattr(side, "__len__") for side in obj):
        return False
    images, values = obj
    if _is_picture(images) or _is_picture(values):
        return False
    if len(images) != 2 or not isinstance(images, list | tuple):
        return True
    # Two lists of two: rows if the first holds a picture and a value.
    second = images[1]
    return _is_picture(second) or (isinstance(second, str | os.PathLike) and suffix_of(os.fspath(second)) in SUFFIXES)


def _is_row(value: Any) -> bool:
    return isinstance(value, Mapping) or (
        isinstance(value, list | tuple) and len(value) >= 2 and not _is_picture(value[1])
    )


def _is_picture(value: Any) -> bool:
    """Whether this is one picture in memory; a path is a text and does not count."""
    if hasattr(value, "getbands") or isinstance(value, bytes | bytearray | memoryview):
        return True
    return getattr(value, "ndim", 0) in (2, 3) and not hasattr(value, "iloc")


def _unknown(obj: Any, columns: Columns) -> ValueError:
    return ValueError(
        f"Expected a list of (picture, {columns.what}), two lists, a table with the columns {columns.image!r} and "
        f"{columns.value!r} (a dict, pandas, Polars, Hugging Face), or a PyTorch data set or loader, but got a "
        f"{type(obj).__name__}."
    )
