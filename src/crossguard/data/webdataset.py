"""Tar shards as webdataset and img2dataset write them, read in place and in any order."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from crossguard.checks import visible
from crossguard.data.gather import Gathering
from crossguard.data.pairs import OneToManyPairs
from crossguard.data.pictures import Picture
from crossguard.data.reading import Reading, same_split, split_of_file, split_said, uncollected
from crossguard.data.shards import ShardSample, expand, read_shard
from crossguard.progress import shown


@uncollected()
def load_webdataset(
    *,
    shards: str | Path | Sequence[str | Path],
    split: str | None = None,
    image: str | None = None,
    captions: str = "txt",
    field: str = "caption",
    lines: bool | None = None,
    reading: Reading | None = None,
) -> OneToManyPairs:
    """Load image-caption pairs from tar shards, such as CC3M's or LAION's.

    Only the tars' headers and the captions are read; images stay in the shards and are decoded when asked for, in any
    order, so that training draws from all shards alike. The index is kept in the cache and read back while a shard
    stays as it is. A sample is the members of one name up to its first dot; where several dotted names (`a.1.jpg`,
    `a.1.txt`, `a.2.jpg`, ...) each have an image and a caption, each is a sample.

    Args:
        shards: a path, a list of them, or a pattern: `cc3m/{00000..00331}.tar`, `cc3m/*.tar`. Uncompressed.
        split: name of the split, or which samples, where their JSON has a `split`; default: what the shards' names or
            their folder tell, else "train".
        image: which member of a sample is the image, where it has several: `input.jpg` of `key.input.jpg`.
        captions: which member holds the caption: "txt" of `key.txt`, "json" of `key.json`, or a dotted one.
        field: the key of the caption, or list of captions, in a member that ends in json; default: "caption", or
            another usual one.
        lines: each line of a text is a caption, as clip_benchmark writes them; else all lines are one caption. Has to
            be said where most texts have several lines.
        reading: how strictly; `skip_bad` leaves out what a cut-off shard lacks, too.

    Raises:
        ValueError: missing shards, shards that are cut off or no tars, samples without image or caption or with
            several, keys that come twice, images that do not decode, each counted and named; shards of another split;
            most texts have several lines, and `lines` is not given.
    """
    if captions.rpartition(".")[2] not in ("txt", "text", "json"):
        raise ValueError(f"Expected `captions` to end in txt, text or json, but got {captions!r}.")
    reading = reading or Reading()
    paths = expand(shards)
    split = _split(paths, split)
    names, root = _names(paths)
    rows = Gathering(f"{len(paths)} shards", reading, unit="sample")
    pictures: list[Picture | str] = []
    again = len(set(names)) < len(names)
    texts = captions.rpartition(".")[2] != "json"
    long = 0
    with shown(reading.progress).task("Read shards", total=len(paths)) as task:
        for path, name in zip(paths, names, strict=True):
            samples, cut = read_shard(path, image=image, captions=captions, field=field)
            if cut:
                rows.complain(f"an early end ({cut})", name)
            if texts and not lines:
                long += sum(len(sample.captions) > 1 for sample in samples)
                samples = [s._replace(captions=(" ".join(s.captions),)) if len(s.captions) > 1 else s for s in samples]
            pictures += _add(rows, os.fspath(path), name, samples, split, again=again)
            task.advance()
    if lines is None and 2 * long > len(rows):
        raise ValueError(
            f"Expected a caption in each text of {len(paths)} shards, but {long:,} of {len(rows):,} have several "
            "lines: lines=True takes each line as a caption, lines=False all lines as one."
        )
    pairs = rows.build(name=root.name or "webdataset", split=split, root=root, pictures=pictures)
    note = f"{long:,} captions have several lines, which are read as one (lines=True takes each as a caption)"
    return replace(pairs, notes=(*pairs.notes, note)) if long and lines is None else pairs


def _add(
    rows: Gathering, path: str, name: str, samples: Sequence[ShardSample], split: str, *, again: bool
) -> list[Picture]:
    """Take the samples of a shard, all at once where nothing is wrong with any, and return its new pictures.

    Args:
        rows: where they go.
        path: of the shard.
        name: what its samples' names begin with.
        samples: its samples.
        split: the split asked for.
        again: some shards are read more than once.
    """
    keys = [f"{name}/{sample.key}" for sample in samples]
    found = [Picture(k, path, "", s.offset, s.size) for k, s in zip(keys, samples, strict=True)]
    plain = all(s.offset >= 0 and len(s.captions) == 1 and not s.problem and not s.split for s in samples)
    if plain and samples and not again and rows.add_plain(keys, [s.captions[0] for s in samples], all_new=True):
        rows.without_split(keys[0])
        return found
    new = []
    for key, sample, picture in zip(keys, samples, found, strict=True):
        before = len(rows)
        if sample.problem:
            rows.refuse(sample.problem, key)
            continue
        if not sample.split:
            rows.without_split(key)
        if not sample.split or rows.is_of(sample.split, split, key):
            texts = sample.captions
            rows.add(key if sample.offset >= 0 else None, texts[0] if len(texts) == 1 else texts, key)
        if len(rows) > before:
            new.append(picture)
    return new


def _split(paths: Sequence[Path], split: str | None) -> str:
    """Return the split asked for, unless the shards tell another: by their names, or by a folder named after it."""
    said = {split_said(path.name) or same_split(path.absolute().parent.name) for path in paths}
    told = said.pop() if len(said) == 1 else ""
    if told in ("train", "val", "test"):
        return split_of_file(paths[0] if split_said(paths[0].name) else paths[0].absolute().parent, split)
    return split or "train"


def _names(paths: Sequence[Path]) -> tuple[list[str], Path]:
    """Return the shards' paths within the innermost folder that holds all of them, and that folder.

    Shards of different folders often have the same file names; their samples must not be taken for one another.
    """
    whole = [Path(os.path.abspath(path)) for path in paths]
    root = Path(os.path.commonpath([path.parent for path in whole]))
    return [visible(path.relative_to(root).as_posix()) for path in whole], root
