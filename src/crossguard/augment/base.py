"""What an augmentation source is: it makes texts or pictures from the items of a data set."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Generic, Literal, Protocol, TypeAlias, TypeVar, runtime_checkable

import torch
from jaxtyping import Int64
from PIL import Image
from torch import Tensor

from crossguard.checks import expanded
from crossguard.data import OneToManyPairs, Picture

Side = Literal["images", "texts"]
Content = TypeVar("Content")


@dataclass(frozen=True)
class Made(Generic[Content]):
    """One augmented text or picture and the originals it stands for.

    It inherits every true partner of its parents: a text that keeps the meaning of original text j (`texts=(j,)`) is
    true of all pictures of j, augmented ones too; one that describes picture i (`images=(i,)`) is true of i and of
    all variations of i. The same holds for pictures, the other way round.

    Args:
        content: the text; or the picture, as an image to be stored or as a `Picture` that already has a file.
        images: indices of the original images it stands for or was made for.
        texts: indices of the original texts it stands for or was made for.

    Raises:
        ValueError: no parent at all.
    """

    content: Content
    images: tuple[int, ...] = ()
    texts: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.images and not self.texts:
            raise ValueError("Expected an original image or text that the sample is true of, but got none.")


MadeText: TypeAlias = Made[str]
MadePicture: TypeAlias = Made[Image.Image | Picture]


@dataclass(frozen=True)
class Request:
    """How much is wanted, and what a source needs to make it.

    Args:
        count: the most samples per item.
        seed: the only randomness; a sample belongs to (seed, source, item's content, its number), so that neither the
            batch nor the other items nor `count` change it.
        batch_size: samples per forward.
        device: where models and pixels go.
        pool: all pairs of the data set, of which the augmented ones may be a part.
    """

    count: int
    seed: int
    batch_size: int
    device: torch.device
    pool: OneToManyPairs


class _Described(Protocol):
    """What texts' and images' sources have in common.

    Attributes:
        name: its name in the table; the kind or style of what it makes.
        per: what one item is, an image or a text of the originals.
        block: items made and stored at once; a crash loses at most so many.
        options: everything that decides what it makes, as JSON values.
    """

    name: str
    per: Side
    block: int
    options: Mapping[str, Any]


@runtime_checkable
class TextSource(_Described, Protocol):
    """A source of texts: besides `make_texts` it has the members `name`, `per`, `block` and `options`."""

    def make_texts(self, pairs: OneToManyPairs, items: Sequence[int], request: Request) -> list[list[MadeText]]:
        """Return, per item, at most `request.count` texts, none of them blank."""
        ...


@runtime_checkable
class ImageSource(_Described, Protocol):
    """A source of pictures: besides `make_images` it has the members `name`, `per`, `block` and `options`."""

    def make_images(self, pairs: OneToManyPairs, items: Sequence[int], request: Request) -> list[list[MadePicture]]:
        """Return, per item, at most `request.count` pictures."""
        ...


Source: TypeAlias = TextSource | ImageSource


def gives(source: Source) -> Side:
    """Return whether a source makes images or texts."""
    return "texts" if isinstance(source, TextSource) else "images"


def contents(*sources: Path | str | None) -> dict[str, str]:
    """Return, as an option, digits that change with any file of the models that lie on this disk; nothing of others.

    A folder's name alone does not say what was made with it: a model that is tuned on has the same name.
    """
    digest = hashlib.blake2b(digest_size=8)
    files = [file for source in sources if source is not None for file in _files(expanded(source))]
    for name, path in files:
        with path.open("rb") as file:
            digest.update(f"{name} {hashlib.file_digest(file, 'blake2b').hexdigest()};".encode())
    return {"weights": digest.hexdigest()} if files else {}


def _files(source: Path) -> list[tuple[str, Path]]:
    if source.is_file():
        return [(source.name, source)]
    found = sorted(path for path in source.rglob("*") if path.is_file()) if source.is_dir() else []
    return [(path.relative_to(source).as_posix(), path) for path in found]


def sample_id(*parts: object) -> int:
    """Return a number in [0, 2^63) that belongs to `parts` alone, on every machine.

    Example:
        >>> sample_id("eda", "a cat", 0) == sample_id("eda", "a cat", 0) != sample_id("eda", "a cat", 1)
        True
    """
    digest = hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def sample_ids(source: str, keys: Sequence[str], count: int) -> Int64[Tensor, " samples"]:
    """Return the ids of `count` samples of every key, key by key."""
    return torch.tensor([sample_id(source, key, draw) for key in keys for draw in range(count)], dtype=torch.int64)


def dice(seed: int, *parts: object) -> Random:
    """Return a random generator that belongs to the seed and `parts` alone."""
    return Random(sample_id(seed, *parts))
