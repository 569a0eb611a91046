"""`Sample`, one augmented text or picture with its parents, and how blocks of samples lie on the disk."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree
from typing import Any

from PIL import Image

from crossguard.augment.base import Made, Request, Side, Source, TextSource
from crossguard.data import OneToManyPairs, Picture
from crossguard.runs import atomic_folder

_ROWS = "samples.jsonl"


@dataclass(frozen=True)
class Sample:
    """One augmented text or picture.

    Args:
        source: the name of its source.
        item: index of the original text or image that it was made from.
        draw: its number among the samples of the item.
        images: the original images that it stands for or was made for.
        texts: the original texts that it stands for or was made for.
        text: the text, or None for a picture.
        picture: the picture, or None for a text.
    """

    source: str
    item: int
    draw: int
    images: tuple[int, ...]
    texts: tuple[int, ...]
    text: str | None = None
    picture: Picture | None = None

    @property
    def gives(self) -> Side:
        """Whether it is of the images or of the texts."""
        return "texts" if self.picture is None else "images"


@dataclass(frozen=True)
class Blocks:
    """The samples of one source in a folder, made block by block; a block is whole or not there.

    Args:
        folder: the blocks' folder.
        source: what makes the samples.
        pairs: the originals.
    """

    folder: Path
    source: Source
    pairs: OneToManyPairs

    @property
    def items(self) -> int:
        """How many items there are in all."""
        return len(self.pairs.images if self.source.per == "images" else self.pairs.texts)

    def numbers(self) -> range:
        """Return the numbers of all blocks."""
        return range(-(-self.items // self.source.block))

    def items_of(self, number: int) -> range:
        """Return the items of a block."""
        return range(number * self.source.block, min((number + 1) * self.source.block, self.items))

    def is_whole(self, number: int) -> bool:
        """Whether a block is there with all its files; a damaged one is removed."""
        home = self._home(number)
        if not home.is_dir():
            return False
        try:
            rows = list(_read_rows(home / _ROWS))
            whole = all("bytes" not in row or (home / row["file"]).stat().st_size == row["bytes"] for row in rows)
        except (OSError, ValueError):
            whole = False
        if not whole:
            rmtree(home)
        return whole

    def make(self, number: int, request: Request) -> None:
        """Make a block and store it.

        Raises:
            OSError: it cannot be written; nothing of it is left.
            ValueError: the source gave a blank text, too many samples, or not one answer per item.
        """
        items = list(self.items_of(number))
        made: list[list[Made[Any]]]
        if isinstance(self.source, TextSource):
            made = [list(found) for found in self.source.make_texts(self.pairs, items, request)]
        else:
            made = [list(found) for found in self.source.make_images(self.pairs, items, request)]
        if len(made) != len(items) or any(len(found) > request.count for found in made):
            raise ValueError(
                f"Expected source {self.source.name!r} to give one list of at most {request.count} samples for each of "
                f"{len(items)} items, but got {[len(found) for found in made][:8]}."
            )
        with atomic_folder(self._home(number)) as draft:
            rows = [
                self._store(one, item, draw, draft)
                for item, found in zip(items, made, strict=True)
                for draw, one in enumerate(found)
            ]
            lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            (draft / _ROWS).write_text("".join(lines), encoding="utf-8")

    def read(self) -> Iterator[Sample]:
        """Return the samples of all blocks, item by item."""
        for number in self.numbers():
            home = self._home(number)
            for row in _read_rows(home / _ROWS):
                yield self._sample(row, home)

    def _home(self, number: int) -> Path:
        items = self.items_of(number)
        return self.folder / f"{items.start:07d}-{items.stop - 1:07d}"

    def _store(self, made: Made[Any], item: int, draw: int, draft: Path) -> dict[str, Any]:
        row = {"item": item, "draw": draw, "images": list(made.images), "texts": list(made.texts)}
        if isinstance(made.content, str):
            if not made.content.strip():
                raise ValueError(f"Expected texts that are not blank from source {self.source.name!r}, but got one.")
            return {**row, "text": made.content}
        if isinstance(made.content, Picture):
            shard = {} if made.content.offset is None else {"offset": made.content.offset, "size": made.content.size}
            return {**row, "key": made.content.key, "path": str(made.content.path.resolve()), **shard}
        name = f"{item}-{draw}.png"
        image: Image.Image = made.content
        image.save(draft / name)
        return {**row, "file": name, "bytes": (draft / name).stat().st_size}

    def _sample(self, row: dict[str, Any], home: Path) -> Sample:
        name, item = self.source.name, row["item"]
        picture = None
        if "key" in row:
            picture = Picture(row["key"], Path(row["path"]), name, row.get("offset"), row.get("size"))
        elif "file" in row:
            origin = self.pairs.images[item].key if self.source.per == "images" else f"text-{item}"
            picture = Picture(f"{name}/{origin}/{row['draw']}", home / row["file"], name)
        return Sample(
            source=name,
            item=item,
            draw=row["draw"],
            images=tuple(row["images"]),
            texts=tuple(row["texts"]),
            text=row.get("text"),
            picture=picture,
        )


def check_parents(sample: Sample, pairs: OneToManyPairs) -> None:
    """Refuse a sample whose parents are not in the originals.

    Raises:
        ValueError: saying which source gave it.
    """
    for parents, size, what in ((sample.images, len(pairs.images), "image"), (sample.texts, len(pairs.texts), "text")):
        if any(not 0 <= parent < size for parent in parents):
            raise ValueError(
                f"Expected {what} indices in [0, {size}) from source {sample.source!r}, but got {sorted(parents)}."
            )


def _read_rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)
