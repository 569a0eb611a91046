"""Driving an attack that looks at a whole gallery: its stages and its sets, stored batch by batch."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from crossguard.attacks.base import Budgets, changes
from crossguard.attacks.gallery import SETS, Found, GalleryAttack, SetName, Whole
from crossguard.data import OneToManyPairs
from crossguard.evaluate.batches import pair_batch
from crossguard.evaluate.ranking import Side
from crossguard.evaluate.store import Store
from crossguard.evaluate.stored_batch import StoredBatch
from crossguard.models import VisionLanguageModel
from crossguard.progress import Reporter
from crossguard.runs import DAMAGED, npz_bytes, read_npz, write_atomically


class StoredStages:
    """What the stages of an attack found, a file per stage and batch.

    Args:
        folder: the folder; made when missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, stage: str, number: int) -> Found | None:
        """Return what a stage found for a batch, or None when it is not there or damaged (then it is made again)."""
        try:
            values: dict[str, Any] = read_npz(self._path(stage, number))
            return Found.of_arrays(values)
        except (FileNotFoundError, *DAMAGED):
            return None

    def write(self, stage: str, number: int, found: Found) -> None:
        """Keep what a stage found for a batch; the file is whole or not there."""
        write_atomically(self._path(stage, number), npz_bytes(**found.arrays()))

    def _path(self, stage: str, number: int) -> Path:
        return self.folder / stage / f"batch-{number:05d}.npz"


def set_stores(store: Store) -> dict[SetName, Store]:
    """Return where each set of an attack on a gallery is kept: the shared one in the store itself."""
    return {name: store if name == "shared" else store.beside(name) for name in SETS}


def attack_gallery(
    model: VisionLanguageModel,
    pairs: OneToManyPairs,
    attack: GalleryAttack,
    budget: Budgets,
    store: Store,
    groups: Sequence[np.ndarray],
    clean: Side,
    *,
    seed: int,
    progress: Reporter,
    title: str,
) -> None:
    """Fill the stores of the three sets; an interrupted attack goes on at the first batch of a stage that is missing.

    Args:
        model: the victim.
        pairs: the data.
        attack: how.
        budget: within what.
        store: of the evaluation.
        groups: the image indices of every batch, ascending.
        clean: the data.
        seed: of the attack.
        progress: where it is shown.
        title: of the progress.
    """
    stores = set_stores(store)
    if all(kept.read(number, ids) is not None for kept in stores.values() for number, ids in enumerate(groups)):
        return
    device = clean.images.device
    links = pairs.links
    places = [(ids, np.unique(links[np.isin(links[:, 0], ids), 1])) for ids in groups]
    whole = Whole(
        images=clean.images,
        texts=clean.texts,
        strings=clean.strings,
        links=torch.tensor(links, device=device),
        read_pixels=clean.read_pixels,
        batches=[tuple(torch.from_numpy(ids).to(device) for ids in pair) for pair in places],  # type: ignore[misc]
        load=lambda number: pair_batch(model, pairs, groups[number]),
    )
    stages = StoredStages(store.folder / "stages")
    with progress.task(title, total=attack.stages(budget) * len(pairs.images)) as task:
        read = attack.search(
            model, whole, budget=budget, seed=seed, keep=stages, advance=lambda count: task.advance(count)
        )
        for number, ids in enumerate(groups):
            batch = pair_batch(model, pairs, ids)
            for name, kept in stores.items():
                pixels, texts = read(name, number)
                linf, words = changes(model, batch, pixels.cpu(), texts, budget)
                kept.write(number, ids, StoredBatch.of(batch, pixels, texts, linf=linf, words=words).arrays())
    shutil.rmtree(stages.folder, ignore_errors=True)
