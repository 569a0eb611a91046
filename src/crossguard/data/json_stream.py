"""JSON files one element at a time, so that a large annotation file needs little memory."""

import json
import re
from collections.abc import Container, Iterator
from contextlib import suppress
from io import TextIOBase
from pathlib import Path
from typing import Any

import orjson

from crossguard.checks import some

_CHUNK = 2**20
_TRIES = 3
"""After so many vain tries to decode many elements at once they are decoded one by one."""
_LARGEST = 2**26
"""Characters of the largest single element (64 million); a file may hold any number of them."""
_COMMA = re.compile(r"[ \t\r\n]*,[ \t\r\n]*")
_OBJECTS = re.compile(r"\[[ \t\r\n]*\{")
_CUT = re.compile(r"[-+.eE\d]*")
_LINES = {".jsonl", ".ndjson", ".jl"}


class Repeated(dict[str, Any]):
    """An object with a key that comes twice: whatever it says, it says something else too."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    return found if len(found) == len(pairs) else Repeated(found)


def _different(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = _object(pairs)
    if isinstance(found, Repeated):
        raise ValueError(f"a key that comes twice among {some([key for key, _ in pairs])}")
    return found


_DECODER = json.JSONDecoder(object_pairs_hook=_object)
_STRICT = json.JSONDecoder(object_pairs_hook=_different)


_SPACED = (" :", "\n:", "\t:", "\r:")


def _decode_list(text: str) -> list[Any]:
    """Decode a list as `decode` does, faster where its elements are objects without others inside.

    Where no colon follows a blank, every key is followed by its colon at once, so that the text has no more keys than
    `":`: if the objects have as many, none of their keys came twice.
    """
    keys = text.count('":')
    if text.count(":") == keys or not any(spaced in text for spaced in _SPACED):
        with suppress(ValueError):  # it is stricter: no NaN, no halves of characters
            elements: list[Any] = orjson.loads(text)
            if set(map(type, elements)) == {dict} and sum(map(len, elements)) == keys:
                return elements
    found: list[Any] = _DECODER.decode(text)
    return found


def decode(text: str) -> Any:
    """Decode JSON; an object with a key that comes twice becomes a `Repeated`.

    Raises:
        ValueError, RecursionError: no JSON.
    """
    return _DECODER.decode(text)


def read_json(path: Path) -> Any:
    """Return the value of a JSON file in which no key comes twice.

    Raises:
        ValueError: no JSON, a key that comes twice, not in UTF-8.
        OSError: the file cannot be read.
    """
    try:
        return _STRICT.decode(path.read_text(encoding="utf-8-sig"))
    except RecursionError as error:
        raise ValueError("a value that nests too deep") from error


def opening(path: Path) -> str:
    """Return the first two signs of a JSON file that are no blanks, which tell a list of objects from other values.

    Raises:
        ValueError: not in UTF-8.
        OSError: the file cannot be read.
    """
    with path.open(encoding="utf-8-sig") as file:
        return _Text(file).start()


def read_whole(path: Path) -> Any:
    """Return the value of a JSON file, all at once.

    Raises:
        ValueError: no JSON, not in UTF-8.
        OSError: the file cannot be read.
    """
    try:
        return decode(path.read_text(encoding="utf-8-sig"))
    except RecursionError as error:
        raise ValueError("a value that nests too deep") from error


def read_list(path: Path) -> Iterator[list[Any]]:
    """Give the elements of a JSON file that holds a list, in their order, many at a time.

    Raises:
        ValueError: no list in JSON and UTF-8.
        OSError: the file cannot be read.
    """
    with path.open(encoding="utf-8-sig") as file:
        text = _Text(file)
        yield from text.batches()
        text.end()


def read_object(path: Path, streamed: Container[str]) -> Iterator[tuple[str, Any]]:
    """Give (key, value) of a JSON file that holds an object, and of some lists (key, element) for each element.

    Args:
        path: the file.
        streamed: the keys of lists that are given by their elements, an empty one not at all.

    Raises:
        ValueError: no object in JSON and UTF-8, or one with a key that comes twice.
        OSError: the file cannot be read.
    """
    with path.open(encoding="utf-8-sig") as file:
        text = _Text(file)
        first = text.peek()
        if first != "{":
            raise ValueError("neither a list nor an object" if first else "the file is empty")
        yield from text.members(streamed)
        text.end()


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

    def batches(self) -> Iterator[list[Any]]:
        """Give the elements of the list that begins here, many at a time."""
        self._take("[")
        if self.peek() == "]":
            self._take("]")
            return
        failed = 0
        while True:
            if failed < _TRIES:
                batch = self._batch()
                failed += batch is None
                if batch:
                    yield batch
            yield [self._value()]
            comma = _COMMA.match(self._text, self._at)
            if comma and comma.end() < len(self._text):
                self._at = comma.end()
            elif self._take(",", "]") == "]":
                return

    def end(self) -> None:
        """Check that nothing comes after what was read."""
        if self.peek():
            raise self.error("more text after the end")

    def start(self) -> str:
        """Return the next two characters that are no blanks, and take the first."""
        first = self.peek()
        self._at += 1
        return first + self.peek()

    def members(self, streamed: Container[str]) -> Iterator[tuple[str, Any]]:
        """Give the members of the object that begins here, lists of some keys by their elements."""
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
            is_list = self.peek() == "["
            if is_list and key in streamed:
                yield from ((key, element) for batch in self.batches() for element in batch)
            elif is_list and _OBJECTS.match(self._text, self._at):
                yield key, [element for batch in self.batches() for element in batch]
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

    def _batch(self) -> list[Any] | None:
        """Take the elements up to the last "}," of the text at hand, all at once; None if it does not end an element.

        Elements that are whole as a list of their own are the next ones of this list: JSON reads in one way only.
        """
        end = self._text.rfind("},", self._at) + 1
        if not end:
            return []
        try:
            elements = _decode_list(f"[{self._text[self._at : end]}]")
        except (ValueError, RecursionError):
            return None
        self._at = end + 1
        self.peek()
        return elements

    def _more(self, size: int) -> bool:
        chunk = self._file.read(size)
        self._passed += self._at
        self._text, self._at = self._text[self._at :] + chunk, 0
        return bool(chunk)
