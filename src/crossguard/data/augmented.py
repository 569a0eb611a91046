"""Pairs with augmented pictures and texts beside the originals, and how they lie on the disk."""

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from jaxtyping import Int64

from crossguard.checks import expanded
from crossguard.data.pairs import Links, OneToManyPairs, evenly
from crossguard.data.pictures import Picture
from crossguard.runs import atomic_folder

SCHEMA = 1
"""Version of the files; a reader refuses what is newer than itself."""

_FOLDER = "pairs"


@dataclass(frozen=True)
class AugmentedPairs(OneToManyPairs):
    """Original pairs first, with their indices and the links among them unchanged, then what was made from them.

    The kind of an augmented text and the style of an augmented picture are the name of the source that made it.

    Args:
        original_name: name of the data set that was augmented.
        original_images: how many of the first images are originals.
        original_texts: how many of the first texts are originals.
        folder: where the augmentation lies on the disk.

    Raises:
        ValueError: more originals than images or texts.
    """

    original_name: str = ""
    original_images: int = 0
    original_texts: int = 0
    folder: Path | None = None

    def _check(self) -> None:
        super()._check()
        for what, originals, size in (
            ("images", self.original_images, len(self.images)),
            ("texts", self.original_texts, len(self.texts)),
        ):
            if not 0 <= originals <= size:
                raise ValueError(f"Expected `original_{what}` in 0..{size}, but got {originals}.")

    def originals(self) -> OneToManyPairs:
        """Return the pairs as they were before the augmentation."""
        among = (self.links[:, 0] < self.original_images) & (self.links[:, 1] < self.original_texts)
        # Of a selection, an original may have lost all original partners: it is left out.
        linked = super()._linked(self.links[among])
        return OneToManyPairs(name=self.original_name, split=self.split, notes=self.notes, **linked)

    def head(self, max_images: int) -> "AugmentedPairs":
        """Return the first `max_images` original images with what was made from them."""
        return self._with_augmentation(np.arange(min(max_images, self.original_images)))

    def spread(self, max_images: int) -> "AugmentedPairs":
        """Return `max_images` original images, spread from the first to the last, with what was made from them."""
        return self._with_augmentation(evenly(max_images, self.original_images))

    def _with_augmentation(self, originals: Int64[np.ndarray, " kept"]) -> "AugmentedPairs":
        """Return some original images, all their texts, and the augmented images of their original texts."""
        of_kept = np.isin(self.links[:, 0], originals)
        texts = np.unique(self.links[of_kept, 1])
        own = texts[texts < self.original_texts]
        made = self.links[(self.links[:, 0] >= self.original_images) & np.isin(self.links[:, 1], own), 0]
        found = self.select(images=np.concatenate([originals, np.unique(made)]).tolist(), texts=texts.tolist())
        return cast(AugmentedPairs, found)

    def _linked(self, links: Links) -> dict[str, Any]:
        images, texts = np.unique(links[:, 0]), np.unique(links[:, 1])
        return super()._linked(links) | {
            "original_images": int((images < self.original_images).sum()),
            "original_texts": int((texts < self.original_texts).sum()),
        }


def save_augmented(folder: Path | str, pairs: AugmentedPairs) -> None:
    """Write augmented pairs so that `load_augmented(folder)` reads them back, whole or not at all.

    Pictures inside `folder` are noted by their place in it, so that it can be moved; others by their full path.

    Raises:
        OSError: the disk is full or the folder not writable; what stood there before still stands.
    """
    home = expanded(folder).resolve()
    content = {
        "schema": SCHEMA,
        "name": pairs.name,
        "split": pairs.split,
        "original_name": pairs.original_name,
        "original_images": pairs.original_images,
        "original_texts": pairs.original_texts,
        "images": [_written(picture, home) for picture in pairs.images],
        "texts": list(pairs.texts),
        "text_kinds": list(pairs.text_kinds),
        "notes": list(pairs.notes),
    }
    links = io.BytesIO()
    np.save(links, pairs.links, allow_pickle=False)
    with atomic_folder(home / _FOLDER) as draft:
        (draft / "pairs.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
        (draft / "links.npy").write_bytes(links.getvalue())


def load_augmented(folder: Path | str, *, split: str | None = None) -> AugmentedPairs:
    """Load what `crossguard.augment.augment` or `crossguard augment` made; nothing is computed again.

    Args:
        folder: the folder of the augmentation.
        split: the split that is expected there; None takes any.

    Raises:
        ValueError: no finished augmentation there, a broken file, one of a newer version, another split, missing
            image files (counted and named).
    """
    home = expanded(folder).resolve()
    if not (home / _FOLDER / "pairs.json").is_file():
        raise ValueError(
            f"Expected a finished augmentation in {folder}, but there is none: run `crossguard augment` to its end."
        )
    content, links = _read(home / _FOLDER)
    if split is not None and split != content["split"]:
        raise ValueError(f"Expected split {split!r} in {folder}, but it holds {content['split']!r}.")
    images = tuple(Picture(key, home / path, *rest) for key, path, *rest in content["images"])
    missing = [str(picture.path) for picture in images if not picture.path.is_file()]
    if missing:
        named = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        raise ValueError(f"Expected {len(images)} image files of {folder}, but {len(missing)} are missing: {named}")
    return AugmentedPairs(
        name=content["name"],
        split=content["split"],
        images=images,
        texts=content["texts"],
        links=links,
        text_kinds=content["text_kinds"],
        notes=content.get("notes", ()),
        original_name=content["original_name"],
        original_images=content["original_images"],
        original_texts=content["original_texts"],
        folder=home,
    )


def _read(folder: Path) -> tuple[dict[str, Any], Any]:
    keys = {"name", "split", "original_name", "original_images", "original_texts", "images", "texts", "text_kinds"}
    try:
        content = json.loads((folder / "pairs.json").read_text(encoding="utf-8"))
        links = np.load(folder / "links.npy", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"Expected the pairs of an augmentation in {folder}, but got: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("schema"), int):
        raise ValueError(f"Expected an object with a `schema` number in {folder}/pairs.json.")
    if content["schema"] > SCHEMA:
        raise ValueError(f"Expected schema {SCHEMA} or older in {folder}, but got {content['schema']}: a newer one.")
    if missing := keys - content.keys():
        raise ValueError(f"Expected {sorted(missing)} in {folder}/pairs.json, but they are missing.")
    if links.dtype != np.int64 or links.ndim != 2 or links.shape[1] != 2:
        raise ValueError(f"Expected int64 [links, 2] in {folder}/links.npy, but got {links.dtype} {links.shape}.")
    return content, links


def _written(picture: Picture, home: Path) -> list[Any]:
    row = [picture.key, _inside(picture.path.resolve(), home), picture.style]
    return row if picture.offset is None else [*row, picture.offset, picture.size]


def _inside(path: Path, home: Path) -> str:
    return path.relative_to(home).as_posix() if path.is_relative_to(home) else str(path)
