"""Files that are whole or not there, and rows that survive a kill."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def atomic_folder(target: Path | str) -> Iterator[Path]:
    """Fill a temporary folder beside `target`; on success it takes `target`'s place, on error nothing is left.

    A folder already at `target` is replaced only once the new one is whole.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        yield temporary
        temporary.chmod(0o755)
        if target.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{target.name}-old-", dir=target.parent))
            target.replace(old / target.name)
            temporary.replace(target)
            shutil.rmtree(old)
        else:
            temporary.replace(target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def write_atomically(target: Path | str, content: str | bytes) -> None:
    """Write a file so that a reader sees the old content or the new one, never a part."""
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{target.name}-", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_json(target: Path | str, value: Any) -> None:
    """Write a value as indented JSON, atomically; NaN and infinity are refused."""
    write_atomically(target, json.dumps(value, indent=2, allow_nan=False) + "\n")


class Rows:
    """An append-only file of JSON rows (`rows.jsonl`); each row is flushed to the disk before `append` returns.

    A last line cut off by a kill is dropped when the file is opened again; all earlier rows stay.

    Args:
        path: the file; made with its folder when missing.

    Raises:
        ValueError: a line other than the last is not JSON.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.touch()
        whole = self._cut_torn_end()
        self._rows = [self._parse(line, number) for number, line in enumerate(whole, start=1)]

    def _cut_torn_end(self) -> list[bytes]:
        content = self.path.read_bytes()
        end = content.rfind(b"\n") + 1
        if end < len(content):
            os.truncate(self.path, end)
        return content[:end].splitlines()

    def _parse(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ValueError(
                f"Expected JSON in line {number} of {self.path}, but got {line[:60]!r}."
            ) from error
        if not isinstance(row, dict):
            raise ValueError(f"Expected an object in line {number} of {self.path}, but got {line[:60]!r}.")
        return row

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def append(self, *rows: Mapping[str, Any]) -> None:
        """Add rows and flush them to the disk; either all of them are kept or an error is raised."""
        size = self.path.stat().st_size
        block = "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows).encode()
        try:
            with self.path.open("ab") as file:
                file.write(block)
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            os.truncate(self.path, size)
            raise
        self._rows.extend(dict(row) for row in rows)
