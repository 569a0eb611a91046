"""JSON files one element at a time, so that a large annotation file needs little memory."""

import json
import re
from collections.abc import Iterator
from io import TextIOBase
from pathlib import Path
from typing import Any

_CHUNK = 2**20
_LARGEST = 2**26
"""Characters of the largest single element (64 million); a file may hold any number of them."""
_COMMA = re.compile(r"[ \t\r\n]*,[ \t\r\n]*")
_CUT = re.compile(r"[-+.eE\d]*")
_LINES = {".jsonl", ".ndjson", ".jl"}


class Repeated(dict[str, Any]):
    """An object with a key that comes twice: whatever it says, it says something else too."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    return found if len(found) == len(pairs) else Repeated(found)


_DECODER = json.JSONDecoder(object_pairs_hook=_object)


def decode(text: str) -> Any:
    """Decode JSON; an object with a key that comes twice becomes a `Repeated`.

    Raises:
        ValueError, RecursionError: no JSON.
    """
    return _DECODER.decode(text)


def read_elements(path: Path) -> Iterator[tuple[str | None, Any]]:
    """Give the elements of a JSON file: (None, element) of a list; of an object (key, element) of its lists.

    A value of an object that is no list is given as (key, value); an empty list is not.

    Raises:
        ValueError: no JSON in UTF-8, something else than one list or object, or an object with a key that comes twice.
        OSError: the file cannot be read.
    """
    with path.open(encoding="utf-8-sig") as file:
        text = _Text(file)
        first = text.peek()
        if first == "[":
            yield from ((None, element) for element in text.elements())
        elif first == "{":
            yield from text.members()
        else:
            raise ValueError("neither a list nor an object" if first else "the file is empty")
        if text.peek():
            raise text.error("more text after the end")


def read_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """Give (line number, value) of a file with a JSON value per line; None for a line that is no JSON.

    Raises:
        ValueError: not in UTF-8.
        OSError: the file cannot be read.
    """
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                try:
                    yield number, _DECODER.decode(line)
                except (ValueError, RecursionError):
                    yield number, None


def is_lines(path: Path) -> bool:
    """Whether a file has a JSON object per line rather than one value.

    Raises:
        ValueError, OSError: as `read_lines`.
    """
    if path.suffix.lower() in _LINES:
        return True
    with path.open(encoding="utf-8-sig") as file:
        start = file.read(_CHUNK).lstrip()
    try:
        _, end = _DECODER.raw_decode(start) if start.startswith("{") else (None, len(start))
    except (ValueError, RecursionError):
        return False
    return start[end:].lstrip().startswith("{")


class _Text:
    """The text of a file from where reading stands, and decoding from there."""

    def __init__(self, file: TextIOBase) -> None:
        self._file, self._text, self._at, self._passed = file, "", 0, 0

    def elements(self) -> Iterator[Any]:
        """Give the elements of the list that begins here."""
        self._take("[")
        if self.peek() == "]":
            self._take("]")
            return
        while True:
            yield self._value()
            comma = _COMMA.match(self._text, self._at)
            if comma and comma.end() < len(self._text):
                self._at = comma.end()
            elif self._take(",", "]") == "]":
                return

    def members(self) -> Iterator[tuple[str, Any]]:
        """Give the members of the object that begins here, lists by their elements."""
        self._take("{")
        if self.peek() == "}":
            self._take("}")
            return
        seen = set()
        while True:
            key = self._value() if self.peek() == '"' else None
            if key is None or key in seen:
                raise self.error("a key expected" if key is None else f"the key {key[:80]!r} comes twice")
            seen.add(key)
            self._take(":")
            if self.peek() == "[":
                yield from ((key, element) for element in self.elements())
            else:
                yield key, self._value()
            if self._take(",", "}") == "}":
                return

    def peek(self) -> str:
        """Return the next character that is no blank; an empty string at the end."""
        while True:
            while self._at < len(self._text):
                if self._text[self._at] not in " \t\r\n":
                    return self._text[self._at]
                self._at += 1
            if not self._more(_CHUNK):
                return ""

    def error(self, said: str) -> ValueError:
        """Return an error that says where reading stands."""
        return ValueError(f"{said} at character {self._passed + self._at}")

    def _take(self, *wanted: str) -> str:
        found = self.peek()
        if found not in wanted:
            raise self.error(f"{' or '.join(map(repr, wanted))} expected, but {found!r} came")
        self._at += 1
        return found

    def _value(self) -> Any:
        if self._text[self._at : self._at + 1] != "{":
            self.peek()
        size = _CHUNK
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
            except RecursionError as error:
                raise self.error("a value that nests too deep") from error
            except json.JSONDecodeError as error:
                if len(self._text) - self._at > _LARGEST:
                    raise self.error(f"no value of up to {_LARGEST:,} characters") from error
                if not self._more(size):
                    raise ValueError(f"{error.msg} at character {self._passed + error.pos}") from error
                size *= 2
                continue
            if _CUT.fullmatch(self._text, end) and self._more(size):
                continue  # a number may go on
            self._at = end
            return value

    def _more(self, size: int) -> bool:
        chunk = self._file.read(size)
        self._passed += self._at
        self._text, self._at = self._text[self._at :] + chunk, 0
        return bool(chunk)
