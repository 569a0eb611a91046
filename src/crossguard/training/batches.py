"""Batches for training: pictures decoded once when they fit into memory, and a data set whose items are whole steps."""

import os
import pickle
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_start_method

import numpy as np
import torch
from jaxtyping import Bool, Int64, UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from crossguard.data import OneToManyPairs, PairBatch
from crossguard.models import Captioner, VisionLanguageModel
from crossguard.progress import Reporter, Silent
from crossguard.training.composition import Composition, draw_step
from crossguard.world import ALONE, World

_CHUNK = 64


@dataclass(frozen=True)
class TrainingBatch:
    """One step's images and texts, and what the loss takes of their pairs.

    In several processes each has its own images in `batch`, and all texts; "images" below are those of all processes.

    Args:
        batch: pixels, texts and every true link among them.
        targets: bool [images, texts], the positives of the loss.
        ignored: bool [images, texts], neither target nor negative.
        others: what a process knows of everyone's images; None where they are all its own.
    """

    batch: PairBatch
    targets: Bool[Tensor, "images texts"]
    ignored: Bool[Tensor, "images texts"]
    others: "Everyone | None" = None

    @property
    def true(self) -> Bool[Tensor, "images texts"]:
        """Every true pair, whether the loss knows it or not."""
        return self.batch.positives if self.others is None else self.others.true

    @property
    def image_ids(self) -> Int64[Tensor, " images"]:
        """Indices of the images in their data set."""
        return self.batch.image_ids if self.others is None else self.others.image_ids

    def to(self, device: torch.device | str) -> "TrainingBatch":
        """Return the batch with its tensors on `device`."""
        return TrainingBatch(
            self.batch.to(device),
            self.targets.to(device),
            self.ignored.to(device),
            None if self.others is None else self.others.to(device),
        )


@dataclass(frozen=True)
class Everyone:
    """The images of all processes in one step.

    Args:
        image_ids: int64 [images], indices of the data set.
        true: bool [images, texts], every true pair.
    """

    image_ids: Int64[Tensor, " images"]
    true: Bool[Tensor, "images texts"]

    def to(self, device: torch.device | str) -> "Everyone":
        """Return the same on `device`."""
        return Everyone(self.image_ids.to(device), self.true.to(device))


class Pictures:
    """The pixels of a data set's pictures as a model's `preprocess` makes them.

    Decoded once into one uint8 tensor when that takes at most `memory_limit` bytes; otherwise whenever asked for. The
    pixels are the same either way, as `preprocess` gives whole multiples of 1/255.

    Args:
        model: its `preprocess` is used.
        pairs: the pictures.
        memory_limit: in bytes.
        progress: shows the decoding.

    Raises:
        ValueError: a picture is missing or does not decode.
    """

    def __init__(
        self,
        model: VisionLanguageModel | Captioner,
        pairs: OneToManyPairs,
        *,
        memory_limit: int = 2 * 2**30,
        progress: Reporter | None = None,
    ) -> None:
        self._pairs, self._preprocess = pairs, model.preprocess
        shape = (len(pairs.images), 3, *model.image_size)
        self._kept: UInt8[Tensor, "pictures 3 height width"] | None = None
        if int(np.prod(shape)) <= memory_limit:
            self._kept = self._decode_all(shape, progress or Silent())

    @property
    def in_memory(self) -> bool:
        """Whether all pictures are decoded already."""
        return self._kept is not None

    def check_show(self, pairs: OneToManyPairs) -> None:
        """Refuse pairs whose images are not the first of these, in the same order.

        Raises:
            ValueError: naming the first image that differs.
        """
        have = [(p.key, p.file) for p in self._pairs.images[: len(pairs.images)]]
        for index, picture in enumerate(pairs.images):
            if index >= len(have) or have[index] != (picture.key, picture.file):
                raise ValueError(
                    f"Expected `pictures` of {pairs.name!r} ({pairs.split}), but image {index} ({picture.key!r}) is "
                    f"not at its place in those of {self._pairs.name!r} ({self._pairs.split})."
                )

    def __getitem__(self, ids: Int64[np.ndarray, " images"]) -> UInt8[Tensor, "images 3 height width"]:
        """Return the pictures of the given indices as 8-bit pixels."""
        if self._kept is not None:
            return self._kept[torch.from_numpy(ids)]
        return self._decode(ids.tolist())

    def _decode(self, ids: Sequence[int]) -> UInt8[Tensor, "images 3 height width"]:
        pixels = self._preprocess([self._pairs.image(i) for i in ids])
        return (pixels * 255).round().to(torch.uint8)

    def _decode_all(self, shape: tuple[int, ...], progress: Reporter) -> UInt8[Tensor, "pictures 3 height width"]:
        kept = torch.empty(shape, dtype=torch.uint8)
        chunks = [range(start, min(start + _CHUNK, shape[0])) for start in range(0, shape[0], _CHUNK)]
        with (
            progress.task("read pictures", total=shape[0]) as task,
            ThreadPoolExecutor(os.cpu_count()) as pool,
        ):
            for ids, pixels in zip(chunks, pool.map(self._decode, chunks), strict=True):
                kept[ids.start : ids.stop] = pixels
                task.advance(len(ids))
        return kept


class StepBatches(Dataset[TrainingBatch]):
    """A data set whose item `step` is the whole batch of that step, or a process's part of it.

    Args:
        pairs: the training pairs.
        pictures: their pixels.
        composition: what a step of all processes is made of.
        seed: of the whole training.
        world: the processes.
    """

    def __init__(
        self,
        pairs: OneToManyPairs,
        pictures: Pictures,
        composition: Composition,
        *,
        seed: int,
        world: World = ALONE,
    ) -> None:
        self.pairs, self.pictures, self.composition, self.seed, self.world = pairs, pictures, composition, seed, world

    def __getitem__(self, step: int) -> TrainingBatch:
        """Make the batch of a step; its pixels are float in [0, 1]."""
        draw = draw_step(self.pairs, self.composition, seed=self.seed, step=step)
        own = self.world.share(len(draw.image_ids))
        mine = (draw.links[:, 0] >= own.start) & (draw.links[:, 0] < own.stop)
        batch = PairBatch(
            pixels=self.pictures[draw.image_ids[own]].float() / 255,
            texts=tuple(self.pairs.texts[j] for j in draw.text_ids),
            links=torch.from_numpy(draw.links[mine] - np.array([own.start, 0])),
            image_ids=torch.from_numpy(draw.image_ids[own]),
            text_ids=torch.from_numpy(draw.text_ids),
        )
        others = None
        if self.world.size > 1:
            true = torch.zeros(draw.targets.shape, dtype=torch.bool)
            true[tuple(torch.from_numpy(draw.links).T)] = True
            others = Everyone(torch.from_numpy(draw.image_ids), true)
        return TrainingBatch(batch, torch.from_numpy(draw.targets), torch.from_numpy(draw.ignored), others)


def iterate(
    steps: StepBatches, *, start: int, stop: int, workers: int, device: torch.device
) -> Iterator[TrainingBatch]:
    """Yield the batches of steps `start` to `stop - 1` on `device`.

    Args:
        steps: the batches.
        start: first step.
        stop: one past the last step.
        workers: processes that make batches ahead; 0 makes them here, right where pictures are in memory.
        device: where the tensors go.
    """
    loader = DataLoader(steps, sampler=range(start, stop), batch_size=None, num_workers=workers)
    try:
        batches = iter(loader)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ValueError(
            "Expected a model whose `preprocess` can be sent to other processes, which multiprocessing's start method "
            f"{get_start_method()!r} asks for, but got: {error}. Define its class in a module, or set workers=0."
        ) from error
    for batch in batches:
        yield batch.to(device)
