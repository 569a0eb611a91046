"""`ReferringExpressions`: photos, what is said of single things in them, where these are, and boxes to choose from."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64
from PIL import Image

from crossguard.data.pairs import OneToManyPairs
from crossguard.data.pictures import Picture

SLACK = 1.0
"""How far a box may reach beyond its image, in pixels, before it counts as wrong: files hold rounded corners."""


@dataclass(frozen=True)
class ReferringExpressions:
    """Texts that each point at one thing in one image, for visual grounding.

    Boxes are (left, top, width, height) in pixels of the image file; the origin is the upper left corner.

    Args:
        name: name of the data set.
        split: name of the split.
        images: the pictures; their position is the image index.
        sizes: int64 [images, 2], height and width of every picture in pixels.
        proposals: per image, float64 [boxes, 4], the boxes that an answer is chosen from; at least one.
        texts: the expressions, not blank; the same words may come again.
        image_of: int64 [expressions], the image that each expression is about.
        boxes: float64 [expressions, 4], where the thing is.
        keys: one per expression, its number in the annotation file.

    Raises:
        ValueError: lengths that differ, indices out of range, blank texts, an image without expression or proposal, or
            boxes that are empty or leave their image (counted and named).
    """

    name: str
    split: str
    images: Sequence[Picture]
    sizes: Int64[np.ndarray, "images 2"]
    proposals: Sequence[Float64[np.ndarray, "_ 4"]]
    texts: Sequence[str]
    image_of: Int64[np.ndarray, " expressions"]
    boxes: Float64[np.ndarray, "expressions 4"]
    keys: Sequence[str]

    def __post_init__(self) -> None:
        for name in ("images", "texts", "keys"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        object.__setattr__(self, "proposals", tuple(_frozen(boxes) for boxes in self.proposals))
        for name in ("sizes", "image_of", "boxes"):
            object.__setattr__(self, name, _frozen(getattr(self, name)))
        self._check()

    def _check(self) -> None:
        images, texts = len(self.images), len(self.texts)
        if len(self.sizes) != images or len(self.proposals) != images:
            raise ValueError(
                f"Expected a size and proposals of {images} images, but got {len(self.sizes)} sizes and proposals of "
                f"{len(self.proposals)}."
            )
        if {len(self.image_of), len(self.boxes), len(self.keys)} != {texts}:
            raise ValueError(
                f"Expected an image, a box and a key for each of {texts} expressions, but got {len(self.image_of)}, "
                f"{len(self.boxes)} and {len(self.keys)}."
            )
        if texts and (self.image_of.min() < 0 or self.image_of.max() >= images):
            raise ValueError(
                f"Expected image indices in [0, {images}), but got {self.image_of.min()}..{self.image_of.max()}."
            )
        idle = np.setdiff1d(np.arange(images), self.image_of)
        refuse([self.images[i].key for i in idle], "an expression about every image", "none about")
        blank = [self.keys[j] for j, text in enumerate(self.texts) if not text.strip()]
        refuse(blank, "expressions that are not blank", "these are")
        refuse(
            [picture.key for picture, boxes in zip(self.images, self.proposals, strict=True) if not len(boxes)],
            "at least one proposal per image",
            "none for",
        )
        wrong = outside(self.boxes, self.sizes[self.image_of]) if texts else np.zeros(0, bool)
        refuse([self.keys[j] for j in np.flatnonzero(wrong).tolist()], "boxes inside their images", "not those of")
        refuse(
            [
                f"{picture.key} {np.round(boxes[row], 1).tolist()}"
                for picture, boxes, size in zip(self.images, self.proposals, self.sizes, strict=True)
                for row in np.flatnonzero(outside(boxes, np.broadcast_to(size, (len(boxes), 2))))
            ],
            "proposals inside their images",
            "not",
        )

    def __len__(self) -> int:
        return len(self.texts)

    def image(self, index: int) -> Image.Image:
        """Decode image `index` to an upright RGB `PIL.Image`."""
        return self.images[index].load()

    def pairs(self) -> OneToManyPairs:
        """Return images and expressions as pairs, for training and retrieval; equal expressions are one text."""
        texts: dict[str, int] = {}
        columns = [texts.setdefault(text.strip(), len(texts)) for text in self.texts]
        links = np.unique(np.stack([self.image_of, np.array(columns, dtype=np.int64)], axis=1), axis=0)
        return OneToManyPairs(
            name=self.name,
            split=self.split,
            images=self.images,
            texts=tuple(texts),
            links=links,
            text_kinds=("expression",) * len(texts),
        )

    def about(self, image: int) -> Int64[np.ndarray, " expressions"]:
        """Return the indices of the expressions about an image, ascending."""
        return np.flatnonzero(self.image_of == image)

    def head(self, max_images: int) -> "ReferringExpressions":
        """Return the first `max_images` images with all that is said of them."""
        kept = np.flatnonzero(self.image_of < max_images).tolist()
        return ReferringExpressions(
            name=self.name,
            split=self.split,
            images=self.images[:max_images],
            sizes=self.sizes[:max_images],
            proposals=self.proposals[:max_images],
            texts=[self.texts[j] for j in kept],
            image_of=self.image_of[kept],
            boxes=self.boxes[kept],
            keys=[self.keys[j] for j in kept],
        )


def outside(boxes: Float64[np.ndarray, "boxes 4"], sizes: Int64[np.ndarray, "boxes 2"]) -> np.ndarray:
    """Return which boxes are not finite, are empty, or leave an image of that (height, width) by more than `SLACK`."""
    left, top, width, height = boxes.T
    inside = (
        (width > 0)
        & (height > 0)
        & (left >= -SLACK)
        & (top >= -SLACK)
        & (left + width <= sizes[:, 1] + SLACK)
        & (top + height <= sizes[:, 0] + SLACK)
    )
    return ~inside  # NaN fails every comparison


def refuse(names: Sequence[object], expected: str, but: str, *, shown: int = 5) -> None:
    """Raise an error that counts and names what is wrong, if anything is.

    Raises:
        ValueError: `names` is not empty.
    """
    if names:
        listed = ", ".join(str(name) for name in names[:shown]) + (", ..." if len(names) > shown else "")
        raise ValueError(f"Expected {expected}, but {but} {len(names)}: {listed}")


def _frozen(values: np.ndarray) -> np.ndarray:
    kept = np.array(values)
    kept.setflags(write=False)
    return kept
