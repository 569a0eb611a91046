"""What an attack on retrieval knows of a whole gallery, and where it keeps what it found."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np
from jaxtyping import Float, Float32, Int64, UInt8
from torch import Tensor

from crossguard.attacks.ascent import Pixels
from crossguard.attacks.budget import Budgets
from crossguard.data import PairBatch
from crossguard.models import VisionLanguageModel
from crossguard.threat import ThreatModel

SetName = Literal["tr", "ir", "shared"]
SETS: tuple[SetName, ...] = ("tr", "ir", "shared")
"""The sets that an attack on a gallery makes: worst for images asking for texts, for texts asking, and for both."""


@dataclass(frozen=True)
class Gallery:
    """The other images and texts of a data set, clean or as an attack left them: the negatives of one batch.

    None of them belongs to an image or a text of the batch.

    Args:
        images: float [images, dim], embeddings of any length but zero.
        texts: float [texts, dim].
        links: int64 [links, 2] of (position in `images`, position in `texts`), the true pairs among them; items without
            any are negatives alone.
        strings: the texts themselves; only a fusion model, which matches them, asks for them.
        pixels: gives the pixels of some of the images; only a fusion model asks for them.
    """

    images: Float[Tensor, "images dim"]
    texts: Float[Tensor, "texts dim"]
    links: Int64[Tensor, "links 2"]
    strings: tuple[str, ...] = ()
    pixels: Callable[[Int64[np.ndarray, " some"]], Pixels] | None = None

    def __post_init__(self) -> None:
        links = self.links
        if self.images.shape[1] != self.texts.shape[1]:
            raise ValueError(
                f"Expected images and texts of a gallery in one space, but got {self.images.shape[1]} and "
                f"{self.texts.shape[1]} dimensions."
            )
        for column, (what, size) in enumerate((("images", len(self.images)), ("texts", len(self.texts)))):
            if len(links) and not 0 <= int(links[:, column].min()) <= int(links[:, column].max()) < size:
                raise ValueError(f"Expected `links` among the gallery's {size} {what}, but got {links[:, column]}.")
        if self.strings and len(self.strings) != len(self.texts):
            raise ValueError(f"Expected {len(self.texts)} `strings` of a gallery, but got {len(self.strings)}.")


@dataclass(frozen=True)
class Whole:
    """A whole gallery under attack, batch by batch.

    Args:
        images: float [images, dim], clean embeddings.
        texts: float [texts, dim].
        strings: the clean texts.
        links: int64 [links, 2], all true pairs.
        read_pixels: gives the clean pixels of some images.
        batches: per batch, which images and which texts it holds; no link leaves a batch. What is in none is never
            changed.
        load: gives a batch.
    """

    images: Float[Tensor, "images dim"]
    texts: Float[Tensor, "texts dim"]
    strings: Sequence[str]
    links: Int64[Tensor, "links 2"]
    read_pixels: Callable[[Int64[np.ndarray, " some"]], Pixels]
    batches: Sequence[tuple[Int64[Tensor, " _"], Int64[Tensor, " _"]]]
    load: Callable[[int], PairBatch]


@dataclass(frozen=True)
class Found:
    """Candidates that one stage of an attack found for one batch.

    Args:
        image_owners: whose they are, in the gallery.
        image_tags: int64 [candidates, 2] of (run of steps, restart) that they come from.
        grey: uint8, their pixels.
        images: their embeddings.
        text_owners: whose the texts are.
        text_ranks: int64 [candidates], how bad among its text's variants, from 0, by any of the goals.
        strings: the texts.
        texts: their embeddings.
    """

    image_owners: Int64[np.ndarray, " image_candidates"]
    image_tags: Int64[np.ndarray, "image_candidates 2"]
    grey: UInt8[np.ndarray, "image_candidates 3 height width"]
    images: Float32[np.ndarray, "image_candidates dim"]
    text_owners: Int64[np.ndarray, " text_candidates"]
    text_ranks: Int64[np.ndarray, "text_candidates goals"]
    strings: tuple[str, ...]
    texts: Float32[np.ndarray, "text_candidates dim"]

    def arrays(self) -> dict[str, np.ndarray]:
        """Return all of it as plain arrays, to be stored."""
        strings = np.frombuffer(json.dumps(self.strings).encode(), dtype=np.uint8)
        return {**vars(self), "strings": strings}

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "Found":
        """Return what `arrays` gave."""
        strings = tuple(json.loads(arrays["strings"].tobytes()))
        return cls(**{**arrays, "strings": strings})  # type: ignore[arg-type]


@runtime_checkable
class Keep(Protocol):
    """Where an attack on a gallery keeps what it found, so that it goes on where it stopped."""

    def read(self, stage: str, number: int) -> Found | None:
        """Return what a stage found for a batch; None where it is not there."""
        ...

    def write(self, stage: str, number: int, found: Found) -> None:
        """Keep what a stage found for a batch."""
        ...

    def share(self, stage: str, numbers: Sequence[int], search: Callable[[int], Found]) -> None:
        """Let each of several processes search its part of a stage's batches, and keep what it finds; where there are
        no others, nothing is done: whoever finds nothing kept searches itself."""
        ...


class InMemory:
    """Keeps it as long as the process lives."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, int], Found] = {}

    def read(self, stage: str, number: int) -> Found | None:
        """Return what a stage found for a batch."""
        return self._found.get((stage, number))

    def write(self, stage: str, number: int, found: Found) -> None:
        """Keep it."""
        self._found[stage, number] = found

    def share(self, stage: str, numbers: Sequence[int], search: Callable[[int], Found]) -> None:
        """Do nothing: there are no others."""


Texts: TypeAlias = tuple[str, ...]
ReadSet: TypeAlias = Callable[[SetName, int], tuple[Pixels, Texts]]
"""Gives the pixels and texts of a batch in one of the sets that an attack on a gallery made."""


@runtime_checkable
class GalleryAttack(Protocol):
    """An attack that looks at a whole gallery, batch after batch, and makes a set for each direction of retrieval."""

    def search(
        self,
        model: VisionLanguageModel,
        whole: Whole,
        *,
        budget: Budgets,
        seed: int,
        keep: Keep | None = None,
        advance: Callable[[int], None] = lambda count: None,
    ) -> ReadSet:
        """Attack a whole gallery; the model is frozen.

        Args:
            model: the victim.
            whole: the gallery, in batches.
            budget: within what.
            seed: of the starts.
            keep: where findings are kept, so that an interrupted search goes on where it stopped.
            advance: told how many images a stage has finished.
        """
        ...

    def stages(self, budget: Budgets) -> int:
        """Return how often a search goes through all batches."""
        ...

    def budgets(self, threat: ThreatModel) -> Budgets:
        """Return the budgets of a threat model."""
        ...
