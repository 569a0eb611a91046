"""Cutting pairs into batches that keep every image together with all of its texts, and every text with its images."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int64
from PIL.Image import Image
from torch import Tensor

from crossguard.data import OneToManyPairs, PairBatch
from crossguard.data.pairs import linked
from crossguard.models import Captioner, VisionLanguageModel

Ids = Int64[np.ndarray, " _"]
Item = TypeVar("Item")
Made = TypeVar("Made")


def linked_groups(pairs: OneToManyPairs, *, batch_size: int) -> list[Int64[np.ndarray, " images"]]:
    """Split the images into batches that no link crosses.

    Images that share a text, directly or through others, stay together, so that an attack sees a text once and under
    all of its images. Such clusters are packed in order, up to `batch_size` images per batch; a cluster that is
    larger than `batch_size` is a batch of its own. A last batch of less than half of `batch_size` shares the images of
    the one before it: attacks that set samples against each other could do little in a batch of a few.

    Args:
        pairs: the data.
        batch_size: images per batch, at least 1.

    Returns:
        Image indices of every batch, ascending; together all images once.

    Raises:
        ValueError: `batch_size` below 1.
    """
    if batch_size < 1:
        raise ValueError(f"Expected `batch_size` >= 1, but got {batch_size}.")
    cluster, _ = linked(pairs.links, images=len(pairs.images), texts=len(pairs.texts))
    order = np.argsort(cluster, kind="stable")  # clusters by their first image, images ascending within
    return _packed(np.split(order, np.flatnonzero(np.diff(cluster[order])) + 1), batch_size=batch_size)


def in_order(images: int, *, batch_size: int) -> list[Int64[np.ndarray, " images"]]:
    """Split the images into consecutive batches, for tasks in which no sample spans several images.

    A last batch of less than half of `batch_size` shares the images of the one before it, as in `linked_groups`.
    """
    return _packed(np.arange(images)[:, None], batch_size=batch_size)


def _packed(clusters: Iterable[Ids], *, batch_size: int) -> list[Ids]:
    """Pack clusters in order into batches, see `linked_groups`; the indices of a batch ascend."""
    batches: list[list[Ids]] = [[]]
    for members in clusters:
        if batches[-1] and _images(batches[-1]) + len(members) > batch_size:
            batches.append([])
        batches[-1].append(members)
    if len(batches) > 1 and 2 * _images(batches[-1]) < batch_size:
        _even(*batches[-2:])
    return [np.sort(np.concatenate(batch)) for batch in batches if batch]


def _images(batch: Sequence[Ids]) -> int:
    return sum(map(len, batch))


def _even(full: list[Ids], rest: list[Ids]) -> None:
    """Move clusters from the end of one batch to the next one, as long as the smaller of the two grows."""
    while min(_images(full) - len(full[-1]), _images(rest) + len(full[-1])) > _images(rest):
        rest.insert(0, full.pop())


def load_pixels(
    model: VisionLanguageModel, pairs: OneToManyPairs, image_ids: Int64[np.ndarray, " images"]
) -> Float[Tensor, "images 3 height width"]:
    """Decode and preprocess images for a model.

    Raises:
        ValueError: an image does not decode, or the model's `preprocess` gives other than finite whole multiples of
            1/255 in [0, 1].
    """
    return preprocessed(model, [pairs.image(int(i)) for i in image_ids])


class KeptPixels:
    """The pictures of a data set, prepared for a model; each is opened once, as far as memory allows.

    What was read is kept in 8 bits where that gives the very same numbers back.

    Args:
        model: whose `preprocess` prepares them.
        pairs: the data.
        most: bytes that may be kept, of the first pictures.
    """

    def __init__(self, model: VisionLanguageModel, pairs: OneToManyPairs, *, most: int = 2**29) -> None:
        self._model, self._pairs = model, pairs
        shape = (3, *model.image_size)
        room = min(len(pairs.images), most // int(np.prod(shape)))
        self._kept = np.empty((room, *shape), dtype=np.uint8)  # taken from the system as it is filled
        self._there = np.zeros(len(pairs.images), dtype=bool)

    def __call__(self, image_ids: Int64[np.ndarray, " images"]) -> Float[Tensor, "images 3 height width"]:
        """Return pictures by their indices; may be called in several threads.

        Raises:
            ValueError: as `load_pixels`.
        """
        known = self._there[image_ids]
        if known.all():
            return torch.from_numpy(self._kept[image_ids]).float() / 255
        read = load_pixels(self._model, self._pairs, image_ids[~known])
        self._keep(image_ids[~known], read)
        if not known.any():
            return read
        found = read.new_empty(len(image_ids), *read.shape[1:])
        found[torch.from_numpy(known)] = torch.from_numpy(self._kept[image_ids[known]]).to(read.dtype) / 255
        found[torch.from_numpy(~known)] = read
        return found

    def _keep(self, image_ids: Int64[np.ndarray, " images"], pixels: Float[Tensor, "images 3 height width"]) -> None:
        inside = image_ids < len(self._kept)
        if not inside.any() or pixels.shape[1:] != self._kept.shape[1:] or pixels.dtype != torch.float32:
            return
        grey = (pixels * 255).round().to(torch.uint8)
        if bool((grey.float() / 255 == pixels).all()):
            self._kept[image_ids[inside]] = grey.numpy()[inside]
            self._there[image_ids[inside]] = True


def preprocessed(
    model: VisionLanguageModel | Captioner, images: Sequence[Image]
) -> Float[Tensor, "images 3 height width"]:
    """Preprocess decoded images for a model, and check what it gives.

    Raises:
        ValueError: the model's `preprocess` gives other than finite whole multiples of 1/255 in [0, 1].
    """
    pixels = model.preprocess(images)
    grey = pixels * 255
    if not bool(((grey - grey.round()).abs() < 1e-3).all()):  # NaN fails too
        raise ValueError(
            "Expected `preprocess` to give whole multiples of 1/255 (round after resizing), so that adversarial "
            "pictures can be stored with 8 bits and stay within budget, but it gave other values."
        )
    if pixels.min() < 0 or pixels.max() > 1:
        raise ValueError(
            f"Expected `preprocess` to give pixels in [0, 1], before normalisation, but got "
            f"{pixels.min():.3g}..{pixels.max():.3g}."
        )
    return pixels


def pair_batch(
    model: VisionLanguageModel,
    pairs: OneToManyPairs,
    image_ids: Int64[np.ndarray, " images"],
    *,
    kept: KeptPixels | None = None,
) -> PairBatch:
    """Build the batch of some images and all of their texts, on the CPU; `kept` has pictures that were read before."""
    member = np.isin(pairs.links[:, 0], image_ids)
    links = pairs.links[member]
    text_ids = np.unique(links[:, 1])
    positions = np.stack([np.searchsorted(image_ids, links[:, 0]), np.searchsorted(text_ids, links[:, 1])], axis=1)
    return PairBatch(
        pixels=load_pixels(model, pairs, image_ids) if kept is None else kept(image_ids),
        texts=tuple(pairs.texts[int(j)] for j in text_ids),
        links=torch.from_numpy(positions),
        image_ids=torch.from_numpy(image_ids),
        text_ids=torch.from_numpy(text_ids),
    )


def ahead(make: Callable[[Item], Made], items: Sequence[Item], *, workers: int | None = None) -> Iterator[Made]:
    """Yield `make(item)` for every item, in order, made in threads while the caller works on earlier ones.

    Pillow and PyTorch let go of Python's lock, so that decoding and resizing keep several cores busy.

    Args:
        make: called in other threads.
        items: its arguments.
        workers: threads, and how many results are made ahead at most; default: one per core, up to four.
    """
    count = workers or min(4, os.cpu_count() or 1)
    with ThreadPoolExecutor(count) as pool:
        waiting: deque[Future[Made]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(make, item))
                if len(waiting) > count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
