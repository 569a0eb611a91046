"""Where every sample of a tar shard lies, so that any of them can be read without unpacking."""

import json
import re
import tarfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from itertools import product
from pathlib import Path
from typing import Any

from crossguard.data.cache import cache_folder
from crossguard.runs import write_atomically

IMAGES = frozenset({"jpg", "jpeg", "png", "webp", "ppm", "gif", "bmp"})
_SCHEMA = 1


@dataclass(frozen=True, slots=True)
class ShardSample:
    """One sample of a shard: members of the same name up to the first dot.

    Args:
        key: that name.
        offset: where the image's bytes begin in the shard; -1 without image.
        size: how many bytes it has.
        captions: the captions; empty without any.
    """

    key: str
    offset: int
    size: int
    captions: tuple[str, ...]


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
            found += matches or [path]  # a pattern without any match is missing, as a file is
    missing = [str(path) for path in found if not path.is_file()]
    if missing or not found:
        named = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        lacking = f"{len(missing)} of {len(found)} are missing: {named}" if found else "none are named"
        raise ValueError(f"Expected shards at {shards}, but {lacking}")
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


def read_shard(path: Path, *, captions: str, field: str) -> tuple[list[ShardSample], str]:
    """Return the samples of a shard, from the cache when the shard is as it was.

    Args:
        path: an uncompressed tar.
        captions: extension of the members that hold captions: "txt" (one caption), or "json".
        field: key of the caption or captions in a json member.

    Returns:
        The samples, and why the shard ends early ("" when it is whole).

    Raises:
        ValueError: no tar, or a compressed one.
    """
    state = path.stat()
    identity = f"{path.resolve()} {state.st_size} {state.st_mtime_ns} {captions} {field} {_SCHEMA}"
    name = f"{blake2b(identity.encode(), digest_size=16).hexdigest()}.json"
    try:
        content = json.loads((cache_folder() / "shards" / name).read_text(encoding="utf-8"))
        return [ShardSample(k, o, s, tuple(c)) for k, o, s, c in content["samples"]], content["cut"]
    except (OSError, ValueError, KeyError, TypeError):
        samples, cut = _scan(path, captions=captions, field=field)
    rows = [[s.key, s.offset, s.size, list(s.captions)] for s in samples]
    with suppress(OSError):  # a full or read-only cache costs the next run its time, nothing else
        write_atomically(
            cache_folder() / "shards" / name, json.dumps({"samples": rows, "cut": cut}, ensure_ascii=False)
        )
    return samples, cut


def _scan(path: Path, *, captions: str, field: str) -> tuple[list[ShardSample], str]:
    images: dict[str, tuple[int, int]] = {}
    texts: dict[str, tuple[str, ...]] = {}
    keys: dict[str, None] = {}
    size, cut = path.stat().st_size, ""
    try:
        with path.open("rb") as raw, tarfile.open(fileobj=raw, mode="r:") as shard:
            while True:
                try:
                    member = shard.next()
                except tarfile.ReadError as error:
                    cut = str(error)
                    break
                if member is None:
                    break
                if not member.isfile():
                    continue
                if member.offset_data + member.size > size:
                    cut = f"it ends inside {member.name}"
                    break
                folder, slash, name = member.name.rpartition("/")
                stem, _, extension = name.partition(".")
                key, extension = f"{folder}{slash}{stem}", extension.lower()
                if extension in IMAGES and key not in images:
                    images[key] = (member.offset_data, member.size)
                elif extension == captions:
                    content = shard.extractfile(member)
                    texts[key] = _captions(content.read() if content else b"", extension, field)
                else:
                    continue
                keys[key] = None
    except (OSError, tarfile.TarError) as error:
        raise ValueError(f"Expected an uncompressed tar at {path}, but it could not be read: {error}") from error
    return [ShardSample(key, *images.get(key, (-1, 0)), texts.get(key, ())) for key in keys], cut


def _captions(content: bytes, extension: str, field: str) -> tuple[str, ...]:
    """Return the captions of a member; what is no text is none, and the row is then reported."""
    try:
        text = content.decode("utf-8")
        if extension == "txt":
            return (" ".join(text.split()),) if text.strip() else ()
        value: Any = json.loads(text)
        value = value.get(field) if isinstance(value, dict) else None
    except ValueError:
        return ()
    given = [value] if isinstance(value, str) else value if isinstance(value, list) else []
    return tuple(text for text in given if isinstance(text, str))
