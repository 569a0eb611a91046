"""Rows of JSON that survive a kill."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from crossguard.runs.files import as_json, not_written, open_unlinked


class Rows:
    """An append-only file of JSON rows (`rows.jsonl`); each row is flushed to the disk before `append` returns.

    A last line cut off by a kill is dropped when the file is opened again; all earlier rows stay.

    Args:
        path: the file; made with its folder when missing.

    Raises:
        ValueError: a line other than the last is not JSON, or the file is a link.
        OSError: the disk is full or the folder not writable.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.close(open_unlinked(self.path, os.O_CREAT | os.O_WRONLY))
        except OSError as error:
            raise not_written(self.path, error) from error
        whole = self._cut_torn_end()
        self._rows = [_parse(line, number, self.path) for number, line in enumerate(whole, start=1)]

    def _cut_torn_end(self) -> list[bytes]:
        content = self.path.read_bytes()
        end = content.rfind(b"\n") + 1
        if end < len(content):
            os.truncate(self.path, end)
        return content[:end].split(b"\n")[:-1]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def append(self, *rows: Mapping[str, Any]) -> None:
        """Add rows and flush them to the disk.

        Raises:
            OSError: the disk is full; the file is as it was before, without any of these rows.
            ValueError: a row holds NaN or infinity; nothing is written.
        """
        block = "".join(as_json(row) + "\n" for row in rows).encode()
        with os.fdopen(open_unlinked(self.path, os.O_CREAT | os.O_APPEND | os.O_WRONLY), "ab", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            try:
                left = memoryview(block)
                while left:
                    left = left[file.write(left) :]
                os.fsync(file.fileno())
            except OSError as error:
                os.ftruncate(file.fileno(), size)
                raise not_written(self.path, error) from error
        self._rows.extend(dict(row) for row in rows)


def _parse(line: bytes, number: int, path: Path) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"Expected JSON in line {number} of {path}, but got {line[:60]!r}.") from error
    if not isinstance(row, dict):
        raise ValueError(f"Expected an object in line {number} of {path}, but got {line[:60]!r}.")
    return row


def read_rows(path: Path | str) -> list[dict[str, Any]]:
    """Read the whole rows of a file that another process may be appending to; the file is not touched.

    Raises:
        ValueError: a whole line is not a JSON object, or the file is a link.
    """
    path = Path(path)
    if not os.path.lexists(path):
        return []
    try:
        with os.fdopen(open_unlinked(path, os.O_RDONLY), "rb") as file:
            lines = file.read().split(b"\n")[:-1]  # what follows the last newline is still being written
    except OSError as error:
        raise ValueError(f"Expected the rows of a run at {path}, but got: {error.strerror}.") from error
    return [_parse(line, number, path) for number, line in enumerate(lines, start=1)]
