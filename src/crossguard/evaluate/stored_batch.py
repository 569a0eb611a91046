"""Adversarial pictures and texts of one batch, exactly as they are judged."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64, UInt8
from torch import Tensor

from crossguard.attacks.base import Adversarial
from crossguard.attacks.budget import beyond_budget, patch_grid
from crossguard.data import PairBatch
from crossguard.evaluate.store import Store
from crossguard.models import Captioner, VisionLanguageModel
from crossguard.threat import Elements, ThreatModel


@dataclass(frozen=True)
class StoredBatch:
    """What an attack found for a batch of images and texts.

    Args:
        image_ids: int64 [images], indices in the data set.
        text_ids: int64 [texts], indices in the data set.
        grey: uint8 [pictures, 3, height, width], those of the images, or none where they lie in a file already.
        texts: one per `text_ids`.
        linf: float32 [images], largest change of a pixel, in [0, 1].
        words: int64 [texts], words edited.
    """

    image_ids: Int64[np.ndarray, " images"]
    text_ids: Int64[np.ndarray, " texts"]
    grey: UInt8[np.ndarray, "pictures 3 height width"]
    texts: tuple[str, ...]
    linf: Float32[np.ndarray, " images"]
    words: Int64[np.ndarray, " texts"]

    @classmethod
    def from_attack(cls, batch: PairBatch, found: Adversarial) -> "StoredBatch":
        """Take over what an attack found.

        Raises:
            ValueError: it gave other numbers of images or texts, or pixels off the 8-bit grid.
        """
        if found.pixels.shape != batch.pixels.shape or len(found.texts) != len(batch.texts):
            raise ValueError(
                f"Expected {list(batch.pixels.shape)} adversarial pixels and {len(batch.texts)} texts, but got "
                f"{list(found.pixels.shape)} and {len(found.texts)}."
            )
        return cls.of(batch, found.pixels, found.texts, linf=found.linf, words=found.words)

    @classmethod
    def of(
        cls,
        batch: PairBatch,
        pixels: Float[Tensor, "images 3 height width"],
        texts: tuple[str, ...],
        *,
        linf: Float[Tensor, " images"],
        words: Int64[Tensor, " texts"],
    ) -> "StoredBatch":
        """Take over adversarial pixels and texts, and how far they are from the batch's.

        Raises:
            ValueError: pixels off the 8-bit grid.
        """
        return cls(
            image_ids=batch.image_ids.cpu().numpy(),
            text_ids=batch.text_ids.cpu().numpy(),
            grey=_as_grey(pixels),
            texts=tuple(texts),
            linf=linf.detach().cpu().numpy().astype(np.float32),
            words=words.cpu().numpy(),
        )

    @classmethod
    def from_pixels(cls, batch: PairBatch, pixels: Float[Tensor, "images 3 height width"]) -> "StoredBatch":
        """Take over adversarial pixels; the texts are the batch's own.

        Raises:
            ValueError: pixels off the 8-bit grid.
        """
        linf = (pixels - batch.pixels).abs().amax(dim=(1, 2, 3))
        return cls.of(batch, pixels, batch.texts, linf=linf, words=torch.zeros(len(batch.texts), dtype=torch.int64))

    @property
    def pixels(self) -> Float[Tensor, "images 3 height width"]:
        """The pictures as float32 in [0, 1]."""
        return torch.from_numpy(self.grey).float() / 255

    def beyond_budget(self, model: VisionLanguageModel | Captioner, batch: PairBatch, threat: ThreatModel) -> str:
        """Return how this leaves a threat, seen from the clean batch; "" if it does not."""
        grid = patch_grid(model) if isinstance(threat.get("image"), Elements) else None
        return beyond_budget(batch.pixels.cpu(), self.pixels, batch.texts, self.texts, threat, grid=grid)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return all of it as plain arrays, to be stored."""
        return {**vars(self), "texts": np.frombuffer(json.dumps(self.texts).encode(), dtype=np.uint8)}

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "StoredBatch":
        """Return what `arrays` gave."""
        texts = tuple(json.loads(arrays["texts"].tobytes()))
        return cls(**{**arrays, "texts": texts})  # type: ignore[arg-type]


def _as_grey(pixels: Float[Tensor, "images 3 height width"]) -> UInt8[np.ndarray, "images 3 height width"]:
    grey = pixels.detach().cpu() * 255
    if not bool(((grey - grey.round()).abs() < 1e-3).all()):
        raise ValueError("Expected adversarial pixels in whole multiples of 1/255, but got other values.")
    found: np.ndarray = grey.round().to(torch.uint8).numpy()
    return found


def stored_pixels(
    store: Store, groups: Sequence[Int64[np.ndarray, " _"]]
) -> Callable[[Int64[np.ndarray, " images"]], Float[Tensor, "images 3 height width"]]:
    """Return a function that gives the stored pictures of some images of the data set.

    Args:
        store: holds every batch.
        groups: the image indices of every batch, ascending.
    """
    batch_of = np.empty(sum(map(len, groups)), dtype=np.int64)
    for number, ids in enumerate(groups):
        batch_of[ids] = number

    @lru_cache(maxsize=2)  # whoever reads image after image asks for a batch several times
    def read(number: int) -> StoredBatch:
        return StoredBatch.of_arrays(store.expect(number, groups[number]))

    def pixels(images: Int64[np.ndarray, " images"]) -> Float[Tensor, "images 3 height width"]:
        parts = {int(n): read(int(n)) for n in np.unique(batch_of[images])}
        found = [parts[int(batch_of[i])] for i in images]
        grey = np.stack([b.grey[np.searchsorted(b.image_ids, i)] for b, i in zip(found, images, strict=True)])
        return torch.from_numpy(grey).float() / 255

    return pixels
