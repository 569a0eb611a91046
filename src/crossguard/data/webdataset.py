"""Tar shards as webdataset and img2dataset write them, read in place and in any order."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from crossguard.checks import check_choice
from crossguard.data.gather import Gathering
from crossguard.data.pairs import OneToManyPairs
from crossguard.data.pictures import Picture
from crossguard.data.shards import expand, read_shard
from crossguard.progress import Reporter, Silent


def load_webdataset(
    *,
    shards: str | Path | Sequence[str | Path],
    split: str = "train",
    captions: Literal["txt", "json"] = "txt",
    field: str = "caption",
    skip_bad: bool = False,
    verify: bool = False,
    workers: int | None = None,
    progress: Reporter | None = None,
) -> OneToManyPairs:
    """Load image-caption pairs from tar shards, such as CC3M's or LAION's.

    Only the tars' headers and the captions are read; images stay in the shards and are decoded when asked for, in any
    order, so that training draws from all shards alike. The index is kept in the cache and read back while a shard's
    size and date stay as they are.

    Args:
        shards: a path, a list of them, or a pattern: `cc3m/{00000..00331}.tar`, `cc3m/*.tar`. Uncompressed.
        split: name of the split.
        captions: which member of a sample holds the caption: `key.txt`, or `key.json`.
        field: the key of the caption, or list of captions, in `key.json`.
        skip_bad: leave out samples without image or caption, images that do not decode, and what a cut-off shard
            lacks; the pairs' `notes` tell of them.
        verify: decode every image once, now.
        workers: threads that do so; default: one per core.
        progress: where that is shown.

    Raises:
        ValueError: missing shards, shards that are cut off or no tars, samples without image or caption, images that
            do not decode, each counted and named.
    """
    check_choice(captions, ("txt", "json"), "captions")
    paths = expand(shards)
    names, root = _names(paths)
    rows = Gathering(f"{len(paths)} shards", skip_bad=skip_bad)
    pictures: list[Picture] = []
    with (progress or Silent()).task("Read shards", total=len(paths)) as task:
        for path, name in zip(paths, names, strict=True):
            samples, cut = read_shard(path, captions=captions, field=field)
            if cut:
                rows.refuse(f"an early end ({cut})", name)
            for sample in samples:
                key = f"{name}/{sample.key}"
                before = len(rows)
                rows.add(key if sample.offset >= 0 else None, sample.captions, where=key)
                if len(rows) > before:
                    pictures.append(Picture(key, path, "", sample.offset, sample.size))
            task.advance()
    return rows.build(
        name=root.name or "webdataset",
        split=split,
        root=root,
        pictures=pictures,
        verify=verify,
        workers=workers,
        progress=progress,
    )


def _names(paths: Sequence[Path]) -> tuple[list[str], Path]:
    """Return the shards' paths within the innermost folder that holds all of them, and that folder.

    Shards of different folders often have the same file names; their samples must not be taken for one another.
    """
    whole = [Path(os.path.abspath(path)) for path in paths]
    root = Path(os.path.commonpath([path.parent for path in whole]))
    return [path.relative_to(root).as_posix() for path in whole], root
