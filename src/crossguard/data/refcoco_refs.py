"""The references of RefCOCO and its kin: `refs(unc).p`, a pickle of Python 2, read without running anything in it."""

import pickle
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, Any

from crossguard.data.json_stream import read_json
from crossguard.runs import write_json

FIELDS = {"ref_id": int, "ann_id": int, "image_id": int, "split": str}
"""What is read of a reference; the files hold more (tokens, sentence ids, categories) than grounding needs."""


@dataclass(frozen=True)
class Reference:
    """One thing that people referred to.

    Args:
        ref_id: its number.
        ann_id: the annotation in `instances.json` that holds its box.
        image_id: the image in `instances.json`.
        split: "train", "val", "testA" or "testB".
        sentences: what was said of it.
    """

    ref_id: int
    ann_id: int
    image_id: int
    split: str
    sentences: tuple[str, ...]


def read_references(path: Path | str) -> list[Reference]:
    """Read references from the released pickle, or from JSON as `convert_references` writes it.

    A pickle is a program. This one may build lists, tuples, dicts, numbers, strings, booleans and None; whatever asks
    for a class or a function is refused before it runs. Strings of Python 2 are read as UTF-8, else as Latin-1.

    Args:
        path: `refs(unc).p`, or a file whose name ends in `.json`.

    Raises:
        ValueError: no such file, another format, or something else than plain values in it.
    """
    path = Path(path)
    rows = _from_json(path) if path.suffix == ".json" else _from_pickle(path)
    if not isinstance(rows, list) or not rows:
        raise ValueError(f"Expected a list of references in {path}, but got {type(rows).__name__} (empty or no list).")
    return [_reference(row, number, path) for number, row in enumerate(rows)]


def convert_references(source: Path | str, target: Path | str) -> int:
    """Write a pickle of references as JSON, whole or not at all, and return how many there are.

    Raises:
        ValueError: as `read_references`.
    """
    references = read_references(source)
    write_json(target, [asdict(reference) for reference in references])
    return len(references)


class _PlainUnpickler(pickle.Unpickler):
    """Builds plain values alone."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def _from_pickle(path: Path) -> Any:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"Expected references (refs(unc).p or JSON) at {path}, but got: {error}") from error
    opened: IO[bytes] = BytesIO(content)
    try:
        loaded = _PlainUnpickler(opened, encoding="bytes").load()
        return _plain(loaded, [len(content)])
    except RecursionError as error:
        raise ValueError(f"Expected a pickle of plain values in {path}, but it nests without end.") from error
    except Exception as error:  # a broken pickle fails in many ways
        raise ValueError(
            f"Expected a pickle of plain values in {path} (lists, dicts, numbers, text), but {error or type(error)}."
        ) from error


def _plain(value: Any, left: list[int]) -> Any:
    """Return the value with text as `str`; `left` counts down the bytes of the file, of which each value takes one."""
    left[0] -= 1
    if left[0] < 0:
        raise ValueError("it holds more values than bytes: references that multiply")
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            return value.decode("latin-1")
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, list | tuple):
        return [_plain(item, left) for item in value]
    if isinstance(value, dict):
        return {_plain(key, left): _plain(item, left) for key, item in value.items()}
    raise ValueError(f"it holds a {type(value).__name__}")


def _from_json(path: Path) -> Any:
    try:
        return read_json(path)
    except (ValueError, OSError) as error:
        raise ValueError(f"Expected JSON references in {path}, but got: {error}") from error


def _reference(row: Any, number: int, path: Path) -> Reference:
    where = f"reference {number} of {path}"
    if not isinstance(row, Mapping):
        raise ValueError(f"Expected a dict as {where}, but got {str(row)[:80]}.")
    for field, kind in FIELDS.items():
        if not isinstance(row.get(field), kind) or isinstance(row.get(field), bool):
            raise ValueError(f"Expected {kind.__name__} as `{field}` of {where}, but got {row.get(field)!r}.")
    spoken: Any = row.get("sentences", [])
    if not isinstance(spoken, list):
        raise ValueError(f"Expected texts as `sentences` of {where}, but got {str(spoken)[:80]}.")
    sentences: list[Any] = [item.get("sent") if isinstance(item, Mapping) else item for item in spoken]
    if not all(isinstance(sentence, str) for sentence in sentences):
        raise ValueError(f"Expected texts as `sentences` of {where}, but got {str(spoken)[:80]}.")
    return Reference(row["ref_id"], row["ann_id"], row["image_id"], row["split"], tuple(sentences))
