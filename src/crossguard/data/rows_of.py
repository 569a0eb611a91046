"""Rows of whatever people hold pictures and texts in: lists, tables, Hugging Face and PyTorch data sets, loaders."""

import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import PIL.Image

from crossguard.checks import some
from crossguard.data.files import suffix_of
from crossguard.data.gather import Gathering
from crossguard.data.json_stream import Repeated
from crossguard.data.pictures import SUFFIXES
from crossguard.data.reading import same_split

IMAGE = ("image", "image_name", "image_path", "filepath", "filename", "file_name", "file", "path", "img")
CAPTION = ("caption", "captions", "comment", "text", "texts", "title", "description", "sentence", "sentences", "raw")
SPLIT = "split"
"""The column that says which split a row is of."""
FOLDER, FILE = "filepath", "filename"
"""Karpathy's: a row with both has its picture in a folder."""
_PARTS = ("train", "val", "test", "restval")
NO_SPLIT = object()
"""Instead of a split, of rows that have none, not even an empty one."""


class Row(NamedTuple):
    """A picture, what belongs to it, and what else the row tells.

    Args:
        picture: the picture.
        value: a text or texts, or a label.
        id: of the picture.
        split: which the row is of.
        unread: names of what might be meant, too.
    """

    picture: Any
    value: Any
    id: Any = None
    split: Any = NO_SPLIT
    unread: Sequence[str] = ()


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

    def find(self, names: Sequence[str]) -> tuple[str, str]:
        """Return the names of the columns of pictures and values.

        Raises:
            ValueError: one is not there, or several times.
        """
        found = []
        for wanted, known in ((self.image, self.images), (self.value, self.values)):
            name = named(names, (wanted, *known))
            if name is None:
                raise ValueError(f"Expected a column {wanted!r}, but got {some(list(map(repr, names))) or 'none'}.")
            if names.count(name) > 1:
                raise ValueError(f"Expected one column {name!r}, but got {names.count(name)}.")
            found.append(name)
        return found[0], found[1]

    def beside(self, names: Iterable[str], value: str) -> list[str]:
        """Return the names of what might be meant instead of the column of values; none if that was asked for."""
        if self.value not in self.values:
            return []
        return [name for name in names if name != value and name.lower() in self.values]


def columns_of(image: str, text: str, *, id: str | None = None) -> Columns:  # noqa: A002
    """Return the columns of pairs: those asked for, or where they have their default names, the usual ones."""
    return Columns(image, text, id, IMAGE if image == "image" else (), CAPTION if text == "caption" else (), "text")


def rows_of(obj: Any, columns: Columns) -> Iterator[Row]:
    """Give every row.

    Raises:
        ValueError: an object of another kind, or without the columns; the message says what was expected.
    """
    if isinstance(obj, str | bytes | type):
        raise _unknown(obj, columns)
    if isinstance(obj, Mapping):
        yield from _mapping(obj, columns)
    elif hasattr(obj, "cast_column"):
        yield from _hugging_face(obj, columns)
    elif hasattr(obj, "to_pydict") and hasattr(obj, "column_names"):  # Arrow's table
        yield from _table(obj.to_pydict(), _keys(obj.column_names), columns)
    elif hasattr(obj, "collect") and hasattr(obj, "collect_schema"):  # Polars' table that is not yet made
        yield from rows_of(obj.collect(), columns)
    elif hasattr(obj, "columns") and hasattr(obj, "__getitem__"):
        yield from _table(obj, _keys(obj.columns), columns)
    elif hasattr(obj, "dataset") and hasattr(obj, "collate_fn"):
        rows_alone = getattr(obj, "batch_sampler", obj) is None
        for batch in obj:
            yield from (_row(batch, columns),) if rows_alone else _batch(batch, columns)
    elif isinstance(obj, list | tuple) and _are_two_lists(obj, columns):
        yield from _zipped(obj[0], obj[1], columns)
    elif hasattr(obj, "__getitem__") and hasattr(obj, "__len__") and not _is_array(obj):
        yield from (_row(obj[place], columns) for place in range(len(obj)))
    elif (isinstance(obj, Iterable) or hasattr(obj, "__getitem__")) and not _is_array(obj):
        yield from (_row(row, columns) for row in obj)
    else:
        raise _unknown(obj, columns)


def of_split(given: Iterable[Row], rows: Gathering, asked: str | None) -> Iterator[tuple[int, Row]]:
    """Give the rows of a split with their numbers; `rows` counts the others.

    Args:
        given: all rows.
        rows: where they go.
        asked: the split; None: the only one that the rows tell.
    """
    for number, row in enumerate(given):
        if row.split is NO_SPLIT:
            rows.without_split(number)
        elif not rows.is_of(row.split, asked or str(row.split), number):
            continue
        yield number, row


def names_of_classes(obj: Any, label: str) -> Sequence[str] | None:
    """Return the class names that a data set carries: Hugging Face's `ClassLabel`, torchvision's `classes`."""
    names = getattr((getattr(obj, "features", None) or {}).get(label), "names", None)
    if names is None:
        names = getattr(getattr(obj, "dataset", obj), "classes", None)
    return None if names is None else [str(name) for name in names]


def parts_of(obj: Any) -> list[str]:
    """Return the names of the splits that a mapping holds, each with rows of its own; none of anything else."""
    if not isinstance(obj, Mapping) or not obj or not all(isinstance(name, str) for name in obj):
        return []
    if all(hasattr(value, "cast_column") for value in obj.values()):  # Hugging Face's, which may have any name
        return list(obj)
    rows = all(hasattr(value, "__len__") and not isinstance(value, str | bytes) for value in obj.values())
    return list(obj) if rows and all(same_split(name) in _PARTS for name in obj) else []


def _mapping(obj: Mapping[Any, Any], columns: Columns) -> Iterator[Row]:
    """Give the rows of a mapping: of splits, of pictures, of columns, of rows by number, or of one list of rows."""
    names = _keys(obj)
    if parts_of(obj):
        for part in names:
            for row in rows_of(obj[part], columns):
                yield row._replace(split=part) if row.split is NO_SPLIT else row
    elif are_pictures(obj):
        yield from (_of_picture(os.fspath(picture), value, columns) for picture, value in obj.items())
    elif _has_columns(names, columns):
        image, value = columns.find(names)
        if isinstance(obj[value], str) or isinstance(obj[image], str | os.PathLike | bytes | PIL.Image.Image):
            yield _row(obj, columns)
        else:
            yield from _table(_plain_columns(obj), names, columns)
    elif obj and all(isinstance(value, Mapping) and _has_columns(_keys(value), columns) for value in obj.values()):
        yield from (_row(value, columns) for value in obj.values())
    elif len(lists := [value for value in obj.values() if _is_list_of_rows(value)]) == 1:
        yield from (_row(row, columns) for row in lists[0])
    else:
        columns.find(names)


def _of_picture(picture: str, value: Any, columns: Columns) -> Row:
    """Return the row of a picture and what a mapping has for it: the value, or an object with it."""
    if (
        isinstance(value, Mapping)
        and not isinstance(value, Repeated)
        and (name := named(_keys(value), (columns.value, *columns.values)))
    ):
        beside = columns.beside(_keys(value), name)
        return Row(picture, value[name], split=_split(value), unread=also_said(value, beside, value[name]))
    return Row(picture, value)


def _has_columns(names: Sequence[str], columns: Columns) -> bool:
    image, value = (columns.image, *columns.images), (columns.value, *columns.values)
    return named(names, image) is not None and named(names, value) is not None


def _is_list_of_rows(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and isinstance(value[0], Mapping)


def _plain_columns(obj: Mapping[Any, Any]) -> Mapping[Any, Any]:
    """Return columns as lists where they are mappings from the number of a row, all with the same numbers."""
    inner = [value for value in obj.values() if isinstance(value, Mapping)]
    if not inner or any(isinstance(value, Repeated) or list(value) != list(inner[0]) for value in inner):
        return obj
    return {name: list(value.values()) if isinstance(value, Mapping) else value for name, value in obj.items()}


def are_pictures(names: Iterable[Any]) -> bool:
    """Whether there are names, and all are those of picture files: of an object or a mapping by picture."""
    names = list(names)
    return bool(names) and all(
        isinstance(name, str | os.PathLike) and suffix_of(os.fspath(name)) in SUFFIXES for name in names
    )


def named(names: Collection[str], wanted: Iterable[str]) -> str | None:
    """Return the first of some names that there is, as it is spelled or else in other capitals; None if none is."""
    wanted = list(wanted)
    for name in wanted:
        if name in names:
            return name
    for name in wanted:
        alike = [found for found in names if found.lower() == name.lower()]
        if len(alike) == 1:
            return alike[0]
    return None


def in_folder(folder: Any, name: Any) -> Any:
    """Return the path of a picture whose row has a folder and a file's name, as Karpathy's; else the first of both."""
    whole = isinstance(folder, str) and isinstance(name, str) and folder.strip() and name.strip()
    if not whole or suffix_of(folder) in SUFFIXES:
        return folder or name
    return f"{folder.rstrip('/')}/{name}"


def picture_of(row: Mapping[str, Any], image: str) -> Any:
    """Return the picture of a row with names."""
    if image.lower() == FOLDER and (beside := named(_keys(row), (FILE,))):
        return in_folder(row[image], row[beside])
    return row[image]


def _table(obj: Any, names: Sequence[str], columns: Columns) -> Iterator[Row]:
    image, value = columns.find(names)
    ids = None if columns.id is None else obj[_id(names, columns)]
    part, beside = split_of(names), named(names, (FILE,))
    images = obj[image]
    if image.lower() == FOLDER and beside and len(images) == len(obj[beside]):
        images = list(map(in_folder, images, obj[beside]))
    unread = columns.beside(names, value)
    splits = None if part is None else obj[part]
    yield from (row._replace(unread=unread) for row in _zipped(images, obj[value], columns, ids, splits))


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
    size = len(images)
    yield from map(
        Row, images, values, [None] * size if ids is None else ids, [NO_SPLIT] * size if splits is None else splits
    )


def _hugging_face(obj: Any, columns: Columns) -> Iterator[Row]:
    if (getattr(obj, "format", None) or {}).get("type") == "custom":  # a transform of the user's own
        yield from (_row(row, columns) for row in obj)
        return
    plain = obj.with_format(None)
    image, _ = columns.find(plain.column_names or [])
    kind: Any = plain.features[image] if plain.features else None
    if type(kind).__name__ == "Image":
        plain = plain.cast_column(image, replace(kind, decode=False))  # the file's bytes, not decoded
    yield from (_row(row, columns) for row in plain)


def _batch(batch: Any, columns: Columns) -> Iterator[Row]:
    """Give the rows of a loader's batch: pictures as one tensor or a list, beside texts or labels."""
    ids: Any = None
    splits: Any = None
    unread: Sequence[str] = ()
    if isinstance(batch, Mapping):
        image, value = columns.find(_keys(batch))
        images, values = batch[image], batch[value]
        ids = None if columns.id is None else batch[_id(_keys(batch), columns)]
        splits = batch.get(split_of(batch))
        unread = columns.beside(_keys(batch), value)
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
    yield from (row._replace(unread=unread) for row in _zipped(images, values, columns, ids, splits))


def _row(row: Any, columns: Columns) -> Row:
    fields = getattr(row, "_fields", ())  # of a named tuple, in whatever order
    if isinstance(row, tuple) and _has_columns(_keys(fields), columns):
        row = dict(zip(fields, row, strict=True))
    if isinstance(row, Repeated):
        return Row(None, row)
    if isinstance(row, Mapping):
        names = _keys(row)
        image, value = columns.find(names)
        key = None if columns.id is None else row[_id(names, columns)]
        unread = also_said(row, columns.beside(names, value), row[value])
        return Row(picture_of(row, image), row[value], key, _split(row), unread)
    if not isinstance(row, list | tuple) or len(row) < 2:
        raise ValueError(
            f"Expected rows of (picture, {columns.what}) or with the keys {columns.image!r} and {columns.value!r}, but "
            f"got a {type(row).__name__}."
        )
    _check_id(None, columns)
    return Row(row[0], row[1])


def _split(row: Mapping[Any, Any]) -> Any:
    name = split_of(row)
    return NO_SPLIT if name is None else row[name]


def also_said(row: Mapping[str, Any], names: Iterable[str], value: Any) -> list[str]:
    """Return those names under which a row says something else than its value."""
    told = ((name, row[name]) for name in names)
    return [name for name, said in told if isinstance(said, str | list | tuple) and said and not _same(said, value)]


def _same(said: Any, value: Any) -> bool:
    return type(said) is type(value) and bool(said == value) if isinstance(said, str) else said is value


def _check_id(ids: Any, columns: Columns) -> None:
    if columns.id is not None and ids is None:
        raise ValueError(f"Expected rows with names, so that one is the id {columns.id!r}, but these have none.")


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
        raise ValueError(f"Expected a column {columns.id!r}, but got {some(list(map(repr, names))) or 'none'}.")
    return columns.id


def _keys(names: Iterable[Any]) -> list[str]:
    return [name for name in names if isinstance(name, str)]


def _are_two_lists(obj: Sequence[Any], columns: Columns) -> bool:
    """Whether a pair is a list of pictures and a list of what belongs to them, rather than two rows."""
    if len(obj) != 2 or any(isinstance(side, str | bytes | Mapping) or not hasattr(side, "__len__") for side in obj):
        return False
    if any(hasattr(side, "_fields") for side in obj):  # named tuples are rows
        return False
    images, values = obj
    if _is_picture(images) or _is_picture(values):
        return False
    if len(images) != 2 or not isinstance(images, list | tuple):
        return True
    # Two lists of two: rows if the first holds a picture and a value.
    second = images[1]
    return _is_picture(second) or (isinstance(second, str | os.PathLike) and suffix_of(os.fspath(second)) in SUFFIXES)


def _is_array(obj: Any) -> bool:
    """Whether this has values in place of rows: an array, or groups of a table."""
    return hasattr(obj, "shape") or hasattr(obj, "ngroups")


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
