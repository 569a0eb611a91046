"""What an attack found, kept batch by batch, so that an interrupted evaluation goes on where it stopped."""

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64, UInt8
from torch import Tensor

from crossguard.attacks.base import Adversarial
from crossguard.data import PairBatch
from crossguard.evaluate.kept import refuse_differences
from crossguard.runs import DAMAGED, RunFolder, as_read_back, npz_bytes, read_npz, write_atomically, write_json


@dataclass(frozen=True)
class StoredBatch:
    """Adversarial pictures and texts of one batch, exactly as they are judged.

    Args:
        image_ids: int64 [images], indices in the data set.
        text_ids: int64 [texts], indices in the data set.
        grey: uint8 [images, 3, height, width].
        texts: one per `text_ids`.
        linf: float32 [images], largest change of a pixel, in [0, 1].
        words: int64 [texts], words edited.
    """

    image_ids: Int64[np.ndarray, " images"]
    text_ids: Int64[np.ndarray, " texts"]
    grey: UInt8[np.ndarray, "images 3 height width"]
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

    def to_bytes(self) -> bytes:
        """Return a compressed npz without pickles."""
        texts = np.frombuffer(json.dumps(self.texts).encode(), dtype=np.uint8)
        return npz_bytes(
            image_ids=self.image_ids,
            text_ids=self.text_ids,
            grey=self.grey,
            texts=texts,
            linf=self.linf,
            words=self.words,
        )

    @classmethod
    def from_file(cls, path: Path) -> "StoredBatch":
        """Read what `to_bytes` gave.

        Raises:
            ValueError: the file is damaged.
        """
        try:
            values: dict[str, Any] = read_npz(path)
            texts = tuple(json.loads(values.pop("texts").tobytes()))
            return cls(texts=texts, **values)
        except DAMAGED as error:
            raise ValueError(f"Expected a stored batch at {path}, but it is damaged: {error}") from error


def _as_grey(pixels: Float[Tensor, "images 3 height width"]) -> UInt8[np.ndarray, "images 3 height width"]:
    grey = pixels.detach().cpu() * 255
    if not bool(((grey - grey.round()).abs() < 1e-3).all()):
        raise ValueError("Expected adversarial pixels in whole multiples of 1/255, but got other values.")
    found: np.ndarray = grey.round().to(torch.uint8).numpy()
    return found


class AdversarialStore:
    """The stored batches of one evaluation, in one folder that belongs to its settings.

    Args:
        folder: the folder; made when missing.
        settings: everything that decides what the attack finds, as JSON values.

    Raises:
        ValueError: the folder belongs to other settings; each difference is named.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.folder, self._settings = folder, settings
        manifest = folder / "settings.json"
        wanted = as_read_back(settings)
        if manifest.exists():
            refuse_differences(json.loads(manifest.read_text()), wanted, where=folder)
        else:
            write_json(manifest, wanted)

    def beside(self, name: str) -> "AdversarialStore":
        """Return another store of the same evaluation, in a folder within this one."""
        return AdversarialStore(self.folder / name, self._settings)

    def holds(self, number: int, image_ids: Int64[np.ndarray, " images"]) -> bool:
        """Return whether batch `number` is there, whole, and of these images."""
        stored = self.read(number)
        return stored is not None and np.array_equal(stored.image_ids, image_ids)

    def expect(self, number: int) -> StoredBatch:
        """Return batch `number`.

        Raises:
            ValueError: it is not there, or damaged.
        """
        stored = self.read(number)
        if stored is None:
            raise ValueError(f"Expected batch {number} in {self.folder}, but it is missing or damaged: run again.")
        return stored

    def read(self, number: int) -> StoredBatch | None:
        """Return batch `number`, or None when it is not there or damaged (then it is attacked again)."""
        path = self._path(number)
        if not path.exists():
            return None
        try:
            return StoredBatch.from_file(path)
        except ValueError:
            path.unlink()
            return None

    def write(self, number: int, batch: StoredBatch) -> None:
        """Keep batch `number`; the file is whole or not there."""
        write_atomically(self._path(number), batch.to_bytes())

    def _path(self, number: int) -> Path:
        return self.folder / f"batch-{number:05d}.npz"


@contextmanager
def open_store(run: RunFolder | None, *names: str, settings: Mapping[str, Any]) -> Iterator[AdversarialStore]:
    """Open the store of one evaluation in its run, or a temporary one where there is no run.

    Args:
        run: the run; None: nothing is kept.
        names: what tells this evaluation from others of the run.
        settings: everything that decides what the attack finds.

    Raises:
        ValueError: the run holds this evaluation with other settings.
    """
    if run is not None:
        yield AdversarialStore(run.file("adversarial", *names), settings)
    else:
        with tempfile.TemporaryDirectory(prefix="crossguard-") as folder:
            yield AdversarialStore(Path(folder), settings)


def stored_pixels(
    store: AdversarialStore, groups: Sequence[Int64[np.ndarray, " _"]]
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
        return store.expect(number)

    def pixels(images: Int64[np.ndarray, " images"]) -> Float[Tensor, "images 3 height width"]:
        parts = {int(n): read(int(n)) for n in np.unique(batch_of[images])}
        found = [parts[int(batch_of[i])] for i in images]
        grey = np.stack([b.grey[np.searchsorted(b.image_ids, i)] for b, i in zip(found, images, strict=True)])
        return torch.from_numpy(grey).float() / 255

    return pixels
