"""`OneToManyPairs`: images, texts and the many-to-many links between them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Int64
from PIL import Image
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from crossguard.data.pictures import Picture
from crossguard.notebook import Shown

Links = Int64[np.ndarray, "links 2"]


def repeated(texts: Sequence[str]) -> int:
    """Return how many texts repeat an earlier one; different hashes tell it without a set, which takes much room."""
    hashes = np.sort(np.fromiter(map(hash, texts), np.int64, len(texts)))
    return len(texts) - len(set(texts)) if (hashes[1:] == hashes[:-1]).any() else 0


def evenly(count: int, of: int) -> Int64[np.ndarray, " chosen"]:
    """Return `count` indices (all, if there are fewer), evenly spread from the first to the last of `of`."""
    return np.linspace(0, of - 1, min(count, of)).round().astype(np.int64)


def linked(
    links: Links, *, images: int, texts: int
) -> tuple[Int64[np.ndarray, " images"], Int64[np.ndarray, " texts"]]:
    """Return, per image and per text, the number of the component that links join it to, directly or through others.

    Components are numbered by their first image.
    """
    size = images + texts
    graph = coo_matrix((np.ones(len(links)), (links[:, 0], images + links[:, 1])), shape=(size, size))
    found = connected_components(graph, directed=False)[1]
    _, first, inverse = np.unique(found, return_index=True, return_inverse=True)
    numbers = np.argsort(np.argsort(first))[inverse].astype(np.int64)
    return numbers[:images], numbers[images:]


@dataclass(frozen=True, repr=False)
class OneToManyPairs(Shown):
    """Images and texts with every true link between them.

    One image may have many texts and one text many images; a link is a true pair, so that training on these pairs
    never takes a true pair for a negative and evaluation counts every true partner as right.

    Args:
        name: name of the data set.
        split: name of the split.
        images: the pictures; their position is the image index.
        texts: the texts, all different and not blank; their position is the text index.
        links: int64 [links, 2] of (image index, text index), without duplicates.
        text_kinds: one kind per text ("caption", "name", "alias", ...), or empty.
        notes: what the loader saw and a reader of the results should know (repeated rows, what was left out).
        own_links: of data whose further links were judged afterwards, those of each image and the texts written for it:
            they alone say which samples belong together (see `groups`). None: all links do.

    Raises:
        ValueError: blank or repeated texts, links out of range or repeated, own links that are no links, an image or
            text without a link.

    Example:
        >>> pair = OneToManyPairs("toy", "test", (Picture("a", Path("a.png")),), ("a cat", "a pet"), [[0, 0], [0, 1]])
        >>> pair.texts_of(0)
        array([0, 1])
    """

    name: str
    split: str
    images: Sequence[Picture]
    texts: Sequence[str]
    links: Links
    text_kinds: Sequence[str] = ()
    notes: Sequence[str] = ()
    own_links: Int64[np.ndarray, "own 2"] | None = None

    def told(self) -> str:
        """Return its name and size."""
        return (
            f"{self.name!r}, split={self.split!r}, {len(self.images):,} images, {len(self.texts):,} texts, "
            f"{len(self.links):,} links"
        )

    def __post_init__(self) -> None:
        object.__setattr__(self, "images", tuple(self.images))
        object.__setattr__(self, "texts", tuple(self.texts))
        object.__setattr__(self, "text_kinds", tuple(self.text_kinds))
        object.__setattr__(self, "notes", tuple(self.notes))
        object.__setattr__(self, "links", _in_order(self.links))
        if self.own_links is not None:
            object.__setattr__(self, "own_links", _in_order(self.own_links))
        self._check()

    def _check(self) -> None:
        if not all(map(str.strip, self.texts)):
            blank = [i for i, text in enumerate(self.texts) if not text.strip()]
            raise ValueError(f"Expected texts that are not blank, but {len(blank)} are (first: text {blank[0]}).")
        if again := repeated(self.texts):
            raise ValueError(
                f"Expected different texts (link a shared text to all its images), but {again} repeat an earlier one."
            )
        if self.text_kinds and len(self.text_kinds) != len(self.texts):
            raise ValueError(f"Expected {len(self.texts)} `text_kinds`, but got {len(self.text_kinds)}.")
        for column, (what, size) in enumerate((("image", len(self.images)), ("text", len(self.texts)))):
            ends = self.links[:, column]
            if len(ends) and (ends.min() < 0 or ends.max() >= size):
                raise ValueError(
                    f"Expected {what} indices of `links` in [0, {size}), but got {ends.min()}..{ends.max()}."
                )
            unlinked = size - int(np.count_nonzero(np.bincount(ends, minlength=size)))
            if unlinked:
                raise ValueError(f"Expected every {what} to have a link, but {unlinked} of {size} have none.")
        if (self.links[1:] == self.links[:-1]).all(axis=1).any():  # they are in order
            raise ValueError("Expected different `links`, but some are repeated.")
        if self.own_links is not None:
            strangers = len(np.unique(np.concatenate([self.links, self.own_links]), axis=0)) - len(self.links)
            if strangers:
                raise ValueError(f"Expected `own_links` among `links`, but {strangers} are not.")

    @cached_property
    def groups(self) -> tuple[Int64[np.ndarray, " images"], Int64[np.ndarray, " texts"]]:
        """Per image and per text, the number of its group: what links (`own_links`, where there are some) join.

        The samples of a group are not independent of each other; intervals and splits never take them for it.
        """
        links = self.links if self.own_links is None else self.own_links
        return linked(links, images=len(self.images), texts=len(self.texts))

    def image(self, index: int) -> Image.Image:
        """Decode image `index` to an upright RGB `PIL.Image`."""
        return self.images[index].load()

    @cached_property
    def texts_by_image(self) -> tuple[Int64[np.ndarray, " links"], Int64[np.ndarray, " bounds"]]:
        """All texts image by image, and where those of each image begin, with the end of the last."""
        return self.links[:, 1], np.searchsorted(self.links[:, 0], np.arange(len(self.images) + 1))

    @cached_property
    def _by_text(self) -> tuple[Int64[np.ndarray, " links"], Int64[np.ndarray, " bounds"]]:
        order = np.lexsort((self.links[:, 0], self.links[:, 1]))
        return self.links[order, 0], np.searchsorted(self.links[order, 1], np.arange(len(self.texts) + 1))

    def texts_of(self, image: int) -> Int64[np.ndarray, " texts"]:
        """Return the indices of the texts linked to an image, ascending."""
        ends, bounds = self.texts_by_image
        return ends[bounds[image] : bounds[image + 1]]

    def images_of(self, text: int) -> Int64[np.ndarray, " images"]:
        """Return the indices of the images linked to a text, ascending."""
        ends, bounds = self._by_text
        return ends[bounds[text] : bounds[text + 1]]

    def select(self, *, images: Sequence[int] | None = None, texts: Sequence[int] | None = None) -> "OneToManyPairs":
        """Return the pairs among the given images and texts; partners left without any link are dropped.

        Args:
            images: indices of the images to keep; None keeps all.
            texts: indices of the texts to keep; None keeps all.
        """
        keep = np.ones(len(self.links), dtype=bool)
        if images is not None:
            keep &= np.isin(self.links[:, 0], images)
        if texts is not None:
            keep &= np.isin(self.links[:, 1], texts)
        return replace(self, **self._linked(self.links[keep]))

    def _linked(self, links: Links) -> dict[str, Any]:
        """Return the fields of pairs with some of the links, and the images and texts that these link."""
        image_ids, image_ends = np.unique(links[:, 0], return_inverse=True)
        text_ids, text_ends = np.unique(links[:, 1], return_inverse=True)
        own = self.own_links
        if own is not None:
            own = own[np.isin(own[:, 0], image_ids) & np.isin(own[:, 1], text_ids)]
            own = np.stack([np.searchsorted(image_ids, own[:, 0]), np.searchsorted(text_ids, own[:, 1])], axis=1)
        return {
            "images": tuple(self.images[i] for i in image_ids),
            "texts": tuple(self.texts[j] for j in text_ids),
            "links": np.stack([image_ends, text_ends], axis=1),
            "text_kinds": tuple(self.text_kinds[j] for j in text_ids) if self.text_kinds else (),
            "own_links": own,
        }

    def head(self, max_images: int) -> "OneToManyPairs":
        """Return the first `max_images` images with their texts."""
        return self.select(images=range(min(max_images, len(self.images))))

    def spread(self, max_images: int) -> "OneToManyPairs":
        """Return `max_images` images, evenly spread from the first to the last, with their texts.

        Where the images are in an order, by part or by kind, each part is met, unlike by `head`.
        """
        return self.select(images=evenly(max_images, len(self.images)).tolist())


def _in_order(links: Links) -> Links:
    """Return links by image, then by text, as values that cannot be changed."""
    found = np.asarray(links, dtype=np.int64).reshape(-1, 2)
    found = found[np.lexsort((found[:, 1], found[:, 0]))]
    found.setflags(write=False)
    return found
