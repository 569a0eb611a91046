"""Where every sample of a tar shard lies, so that any of them can be read without unpacking."""

import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import product
from pathlib import Path
from typing import NamedTuple, TypeVar
from zlib import adler32

from crossguard.checks import some, visible
from crossguard.data.cache import cache_folder
from crossguard.data.gather import listed
from crossguard.data.json_stream import Repeated, decode
from crossguard.data.pictures import SUFFIXES
from crossguard.data.rows_of import CAPTION, named, splits_of
from crossguard.runs import write_atomically

_T = TypeVar("_T")
_SCHEMA = 3
_BLOCK = 512
_PRIME = 65521
"""Adler's."""
_ENDS = (b"\0 ", b" \0")
_LARGEST_TEXT = 2**24
"""Bytes of the largest caption (16 MB)."""
_LEAST_AHEAD, _MOST_AHEAD = 2**12, 2**18
"""Bytes that are read at once."""


class ShardSample(NamedTuple):
    """One sample of a shard: members of the same name up to the first dot.

    Args:
        key: that name.
        offset: where the image's bytes begin in the shard; -1 without image.
        size: how many bytes it has.
        captions: the captions, of a text each line that is not blank; empty without any.
        problem: what is wrong with it; "" for most.
        split: what its JSON says; "" for most.
    """

    key: str
    offset: int
    size: int
    captions: tuple[str, ...]
    problem: str = ""
    split: str = ""


class Said(NamedTuple):
    """What a member says: its captions, and a split."""

    captions: tuple[str, ...] = ()
    split: str = ""


class Member(NamedTuple):
    """One file in a shard: its name, where its bytes begin, and how many there are."""

    name: str
    offset: int
    size: int


def expand(shards: str | Path | Sequence[str | Path]) -> list[Path]:
    """Return the shard files that a pattern means, in order.

    Args:
        shards: a path, a list of them, with braces as webdataset writes them (`train-{0000..0099}.tar`, `{a,b}.tar`),
            or with `*`, `?`.

    Raises:
        ValueError: no such files; missing ones are counted and named.

    Example:
        >>> [path.name for path in expand_braces("cc3m-{08..10}.tar")]
        ['cc3m-08.tar', 'cc3m-09.tar', 'cc3m-10.tar']
    """
    given = [shards] if isinstance(shards, str | Path) else list(shards)
    found: list[Path] = []
    for pattern in given:
        for path in expand_braces(str(pattern)):
            starred = set("*?[") & set(path.name)
            matches = sorted(path.parent.glob(path.name)) if starred else []
            if not path.name.startswith("."):
                matches = [match for match in matches if not match.name.startswith(".")]
            found += matches or [path]  # a pattern without any match is missing, as a file is
    missing = [str(path) for path in found if not path.is_file()]
    if missing or not found:
        lacking = f"{len(missing)} of {len(found)} are missing: {some(missing)}" if found else "none are named"
        raise ValueError(f"Expected shards at {visible(shards)}, but {lacking}")
    return found


def expand_braces(pattern: str) -> list[Path]:
    """Return every path that a pattern with `{a,b}` and `{000..123}` stands for."""
    parts = re.split(r"\{([^{}]*)\}", pattern)
    choices: list[list[str]] = []
    for place, part in enumerate(parts):
        span = re.fullmatch(r"(\d+)\.\.(\d+)", part) if place % 2 else None
        if span:
            width = len(span[1])
            choices.append([f"{number:0{width}}" for number in range(int(span[1]), int(span[2]) + 1)])
        else:
            choices.append(part.split(",") if place % 2 else [part])
    return [Path("".join(chosen)) for chosen in product(*choices)]


def read_shard(path: Path, *, image: str | None, captions: str, field: str) -> tuple[list[ShardSample], str]:
    """Return the samples of a shard, from the cache when the shard is as it was.

    Args:
        path: an uncompressed tar.
        image: extension of the members that hold images, such as "jpg" or "input.jpg"; None: any image's, if a sample
            has one of them alone.
        captions: extension of the members that hold captions: "txt", or "json"; also a dotted one.
        field: key of the caption or captions in a json member; for "caption" the other usual ones are taken, too.

    Returns:
        The samples, and why the shard ends early ("" when it is whole).

    Raises:
        ValueError: no tar, or a compressed one.
    """
    state = path.stat()
    identity = (
        *(path.resolve(), state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino),
        *(image, captions, field, _SCHEMA),
    )
    name = f"{blake2b(repr(identity).encode(), digest_size=16).hexdigest()}.json"
    try:
        content = json.loads((cache_folder() / "shards" / name).read_text(encoding="utf-8"))
        return [ShardSample(k, o, s, tuple(c), *more) for k, o, s, c, *more in content["samples"]], content["cut"]
    except (OSError, ValueError, KeyError, TypeError):
        samples, cut = _scan(path, image=image, captions=captions, key=field)
    with suppress(OSError):  # a full or read-only cache costs the next run its time, nothing else
        write_atomically(cache_folder() / "shards" / name, json.dumps({"samples": samples, "cut": cut}))
    return samples, cut


@dataclass
class _Sample:
    """What a shard holds under one name, by extension."""

    images: dict[str, Member] = field(default_factory=dict)
    captions: dict[str, Said] = field(default_factory=dict)
    again: int = 0


def _scan(path: Path, *, image: str | None, captions: str, key: str) -> tuple[list[ShardSample], str]:
    samples: dict[str, _Sample] = {}
    seen: dict[str, tuple[str, str, bool, bool]] = {}
    cut = ""
    handle = os.open(path, os.O_RDONLY)
    try:
        ahead = ReadAhead(handle)
        members = read_members(ahead, path)
        while True:
            try:
                member = next(members, None)
            except EOFError as error:
                cut = str(error)
                break
            if member is None:
                break
            folder, slash, name = member.name.rpartition("/")
            stem, _, extension = name.partition(".")
            if not stem or ("." in folder and any(part.strip(".") and part[0] == "." for part in folder.split("/"))):
                continue  # hidden, as what macOS writes beside files
            known = seen.get(extension) or seen.setdefault(extension, _kind(extension, captions))
            extension, last, is_caption, is_read = known
            if not is_read:
                continue
            own = f"{folder}{slash}{stem}"
            sample = samples.get(own) or samples.setdefault(own, _Sample())
            held: dict[str, object] = sample.captions if is_caption else sample.images  # type: ignore[assignment]
            if extension in held:
                sample.again += not is_caption
            elif is_caption:
                readable = member.size <= _LARGEST_TEXT
                content = ahead.read(member.offset, member.size) if readable else b""
                sample.captions[extension] = _said(content, last, key)
            else:
                sample.images[extension] = member
    except OSError as error:
        raise ValueError(f"Expected an uncompressed tar at {visible(path)}, but got: {error}") from error
    finally:
        os.close(handle)
    return [row for key, sample in samples.items() for row in _rows(key, sample, image, captions)], cut


def _kind(extension: str, captions: str) -> tuple[str, str, bool, bool]:
    """Return an extension in small letters, what comes after its last dot, whether it is a caption's, and is read."""
    small = extension.lower()
    last = small.rpartition(".")[2]
    is_caption = small == captions or small.endswith(f".{captions}")
    return small, last, is_caption, is_caption or last in SUFFIXES


def _rows(key: str, sample: _Sample, image: str | None, captions: str) -> Iterator[ShardSample]:
    """Give what a name stands for: one sample, or one per dotted name where each has its own image and caption."""
    if sample.again:
        yield from [ShardSample(key, -1, 0, (), "a key that comes again in its shard")] * (sample.again + 1)
        return
    found = _one(sample.images, image)
    texts = _one(sample.captions, captions)
    if found is not None and texts is not None:
        yield ShardSample(key, found.offset, found.size, texts.captions, "", texts.split)
    elif not sample.images or not sample.captions or (image is not None and found is None):
        yield ShardSample(key, -1, 0, ())
    else:
        pictures = {name.rpartition(".")[0]: member for name, member in sample.images.items()}
        told = {name.rpartition(".")[0]: text for name, text in sample.captions.items()}
        if image is None and pictures.keys() == told.keys() and len(pictures) == len(sample.images) == len(told):
            for name, member in pictures.items():
                own = f"{key}.{name}" if name else key
                yield ShardSample(own, member.offset, member.size, told[name].captions, "", told[name].split)
        else:
            several = "images" if found is None else "captions"
            option = "image" if found is None else "captions"
            yield ShardSample(key, -1, 0, (), f"several {several} under one key (choose with {option}=)")


def _one(members: dict[str, _T], wanted: str | None) -> _T | None:
    """Return the one that is meant: of the extension asked for, else the only one, first among those without a dot."""
    if wanted in members:
        return members[wanted]
    if wanted is None and len(members) == 1:
        return next(iter(members.values()))
    if wanted is not None:
        members = {name: member for name, member in members.items() if name.endswith(f".{wanted}")}
    plain = {name: member for name, member in members.items() if "." not in name} or members
    return next(iter(plain.values())) if len(plain) == 1 else None


class ReadAhead:
    """Reads a file here and there: little where it is skipped through, much at once where one piece follows another.

    Args:
        handle: of the file.
    """

    def __init__(self, handle: int) -> None:
        self.size = os.fstat(handle).st_size
        self._handle, self._start, self._held, self._next = handle, 0, b"", _LEAST_AHEAD

    def read(self, at: int, size: int) -> bytes:
        """Return bytes of the file; fewer at its end."""
        begin = at - self._start
        end = begin + size
        if begin < 0 or end > len(self._held):
            follows = 0 <= begin <= len(self._held)
            self._next = min(2 * self._next, _MOST_AHEAD) if follows else _LEAST_AHEAD
            self._held, self._start = os.pread(self._handle, max(size, self._next), at), at
            begin, end = 0, size
        return self._held[begin:end]


def read_members(file: ReadAhead, path: Path) -> Iterator[Member]:
    """Give the files of an uncompressed tar (ustar, GNU or pax); only its headers are read, and what lies close by.

    Raises:
        ValueError: no tar.
        EOFError: it ends early, or goes on with something else; what was given until then is whole.
    """
    whole = file.size
    at, long_name, pax = 0, "", dict[str, str]()
    while at + _BLOCK <= whole:
        block = file.read(at, _BLOCK)
        if not block[:1].strip(b"\0") and not block.strip(b"\0"):
            return
        size = _size(block)
        if size is None:
            break
        kind, begin = block[156:157], at + _BLOCK
        size = int(pax.get("size", size)) if kind in b"0\0" else size
        name = long_name or pax.get("path") or _name(block)
        if begin + size > whole:
            raise EOFError(f"it ends inside {visible(name)}")
        at = begin + (size + _BLOCK - 1) // _BLOCK * _BLOCK
        if kind == b"L":
            long_name = _text(file.read(begin, min(size, _LARGEST_TEXT)).rstrip(b"\0"))
        elif kind == b"x":
            pax = _pax(file.read(begin, min(size, _LARGEST_TEXT)))
        elif kind != b"g":
            if kind in b"0\0007":
                yield Member(name, begin, size)
            long_name, pax = "", {}
    if at == 0:
        raise ValueError(f"Expected an uncompressed tar at {visible(path)}, but it is none.")
    if at < whole:
        raise EOFError(f"no header at byte {at:,}")


def _size(block: bytes) -> int | None:
    """Return the size of a member; None of what is no header."""
    if block[154:156] in _ENDS and block[135] in b"\0 ":  # as nearly all are written
        field = block[148:156]
        try:
            told, size = int(block[148:154], 8), int(block[124:135], 8)
        except ValueError:
            pass
        else:
            if (told - (adler32(block) & 0xFFFF) + (adler32(field) & 0xFFFF) - 8 * ord(" ")) % _PRIME == 0:
                return size
    return _number(block[124:136]) if _is_header(block) else None


def _is_header(block: bytes) -> bool:
    """Compare the checksum: the sum of all bytes, its own counted as blanks; some write it of signed bytes."""
    told = _number(block[148:156])
    if told is None:
        return False
    if (told - _sum(block) + _sum(block[148:156]) - 8 * ord(" ")) % _PRIME == 0:
        return True
    signed = sum(byte - 256 if byte > 127 else byte for byte in block[:148] + block[156:]) + 8 * ord(" ")
    return told == signed


def _sum(some: bytes) -> int:
    """Return the sum of bytes up to multiples of a prime: the lower half of Adler's checksum, less one."""
    return (adler32(some) & 0xFFFF) - 1


def _number(field: bytes) -> int | None:
    """Return a number in octal digits, or in GNU's bytes where its first bit is set."""
    if field[0] & 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0")
    try:
        return int(digits, 8) if digits else 0
    except ValueError:
        return None


def _name(block: bytes) -> str:
    name = block[:100].split(b"\0", 1)[0]
    prefix = block[345:500].split(b"\0", 1)[0] if block[257:263] == b"ustar\0" else b""
    return _text(prefix + b"/" + name if prefix else name)


def _text(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")


def _pax(content: bytes) -> dict[str, str]:
    """Return the records of a pax header: "LENGTH key=value", with a line feed."""
    records = {}
    while content:
        length, _, _ = content.partition(b" ")
        if not length.isdigit() or not len(length) < int(length) <= len(content):
            break
        key, _, value = content[len(length) + 1 : int(length) - 1].partition(b"=")
        records[_text(key)] = _text(value)
        content = content[int(length) :]
    if not records.get("size", "0").isdecimal():
        del records["size"]
    return records


def _said(content: bytes, kind: str, key: str) -> Said:
    """Return what a member says; what is no text is none, and the row is then reported."""
    try:
        text = content.decode("utf-8-sig")
        if kind != "json":
            return Said(tuple(" ".join(line.split()) for line in text.splitlines() if line.strip()))
        value = decode(text)
    except (ValueError, RecursionError):
        return Said()
    if not isinstance(value, dict) or isinstance(value, Repeated):
        return Said()
    name = named([own for own in value if value[own] is not None], (key, *(CAPTION if key == "caption" else ())))
    given = None if name is None else listed(value[name])
    found = [given] if isinstance(given, str) else given if isinstance(given, list) else []
    parts = [value[name] for name in splits_of(value)]
    if len(parts) > 1 or not all(isinstance(part, str) for part in parts):
        return Said()
    return Said(tuple(text for text in found if isinstance(text, str)), *parts)
