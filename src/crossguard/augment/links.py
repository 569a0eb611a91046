"""Putting samples beside the originals: equal texts become one, and every true link is there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64
from scipy.sparse import csr_array, eye_array, vstack

from crossguard.augment.base import Side
from crossguard.augment.samples import Sample
from crossguard.data import OneToManyPairs, Picture
from crossguard.data.augmented import AugmentedPairs


@dataclass(frozen=True)
class Placed:
    """Augmented pairs, and where each sample went.

    Args:
        pairs: originals first, samples after them.
        index: int64 [samples], the text or image index of each sample; that of an original if it repeats one.
    """

    pairs: AugmentedPairs
    index: Int64[np.ndarray, " samples"]


def place(
    pairs: OneToManyPairs,
    samples: Sequence[Sample],
    *,
    name: str,
    pool: OneToManyPairs | None = None,
    folder: Path | None = None,
) -> Placed:
    """Append samples to pairs.

    A text that repeats an original, or a picture whose key does, adds nothing: originals keep their indices and the
    links among them. Samples that are equal become one with the parents of all. Links of a sample follow its parents
    (see `augment.base.Made`): with A the links of the originals, S (samples and originals) x (originals of the same
    side they stand for) and C x (originals of the other side they were made for), these links are
    S_img A S_txt' + S_img C_txt' + C_img S_txt'. Samples that the pool holds too, such as its own further captions and
    pictures, are moreover linked as the pool links them, to each other above all.

    Args:
        pairs: the originals.
        samples: what was made from them.
        name: name of the augmented data set.
        pool: the whole data set, of which `pairs` are a part.
        folder: where the augmentation lies.
    """
    images, image_at, image_rows = _merge(samples, "images", [p.key for p in pairs.images])
    texts, text_at, text_rows = _merge(samples, "texts", pairs.texts)
    n_images, n_texts = len(pairs.images), len(pairs.texts)
    same_images = _parents(image_rows, "images", csr_array(eye_array(n_images)))
    made_for_texts = _parents(image_rows, "texts", csr_array((n_images, n_texts)))
    same_texts = _parents(text_rows, "texts", csr_array(eye_array(n_texts)))
    made_for_images = _parents(text_rows, "images", csr_array((n_texts, n_images)))
    ends = (pairs.links[:, 0], pairs.links[:, 1])
    true = csr_array((np.ones(len(pairs.links)), ends), shape=(n_images, n_texts))
    every = (
        same_images @ true @ same_texts.T + same_images @ made_for_images.T + made_for_texts @ same_texts.T
    ).tocoo()
    links = np.stack([every.row, every.col], axis=1).astype(np.int64)
    if pool is not None:
        known = _known(pool, image_at, text_at)
        with_new = (known[:, 0] >= n_images) | (known[:, 1] >= n_texts)  # those among originals stay as they are
        links = np.unique(np.concatenate([links, known[with_new]]), axis=0)
    placed = AugmentedPairs(
        name=name,
        split=pairs.split,
        images=(*pairs.images, *(s.picture for s in images if s.picture is not None)),
        texts=(*pairs.texts, *(s.text for s in texts if s.text is not None)),
        links=links,
        text_kinds=(*(pairs.text_kinds or ("original",) * len(pairs.texts)), *(s.source for s in texts)),
        notes=pairs.notes,
        original_name=pairs.name,
        original_images=len(pairs.images),
        original_texts=len(pairs.texts),
        folder=folder,
    )
    index = np.array(
        [image_at[_name(s)] if s.gives == "images" else text_at[_name(s)] for s in samples], dtype=np.int64
    )
    return Placed(placed, index)


def _merge(
    samples: Sequence[Sample], side: Side, originals: Sequence[str]
) -> tuple[list[Sample], dict[str, int], list[list[Sample]]]:
    """Return the new samples of a side, the index of every text or key, and the samples merged into each new one."""
    at = {original: index for index, original in enumerate(originals)}
    new: list[Sample] = []
    merged: list[list[Sample]] = []
    for sample in samples:
        if sample.gives != side:
            continue
        index = at.setdefault(_name(sample), len(originals) + len(new))
        if index == len(originals) + len(new):
            new.append(sample)
            merged.append([])
        if index >= len(originals):
            merged[index - len(originals)].append(sample)
    return new, at, merged


def _known(
    pool: OneToManyPairs, image_at: Mapping[str, int], text_at: Mapping[str, int]
) -> Int64[np.ndarray, "links 2"]:
    """Return the pool's links among the images and texts that are there, by their index here."""
    images = np.array([image_at.get(picture.key, -1) for picture in pool.images], dtype=np.int64)
    texts = np.array([text_at.get(text, -1) for text in pool.texts], dtype=np.int64)
    links = np.stack([images[pool.links[:, 0]], texts[pool.links[:, 1]]], axis=1)
    return links[(links >= 0).all(1)]


def _name(sample: Sample) -> str:
    picture: Picture | None = sample.picture
    return picture.key if picture is not None else str(sample.text)


def _parents(merged: Sequence[Sequence[Sample]], side: Side, first: csr_array) -> csr_array:
    """Return [originals + new samples, parents on `side`]: `first`, then 1 where a sample has that parent."""
    ends = [
        (row, parent)
        for row, group in enumerate(merged)
        for parent in {p for sample in group for p in (sample.images if side == "images" else sample.texts)}
    ]
    rows, columns = np.array(ends, dtype=np.int64).reshape(-1, 2).T
    below = csr_array((np.ones(len(rows)), (rows, columns)), shape=(len(merged), first.shape[1]))
    return csr_array(vstack([first, below]))
