"""Driving an attack that looks at a whole gallery: its stages and its sets, stored batch by batch."""

import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from crossguard.attacks.base import changes
from crossguard.attacks.budget import beyond_budget, patch_grid
from crossguard.attacks.gallery import SETS, Found, GalleryAttack, SetName, Whole
from crossguard.data import OneToManyPairs, PairBatch
from crossguard.evaluate.batches import KeptPixels, pair_batch
from crossguard.evaluate.ranking import Side
from crossguard.evaluate.store import Store
from crossguard.evaluate.stored_batch import StoredBatch
from crossguard.models import VisionLanguageModel
from crossguard.progress import Reporter
from crossguard.runs import DAMAGED, npz_bytes, read_npz, write_atomically
from crossguard.threat import Elements, ThreatModel
from crossguard.world import ALONE, World


class StoredStages:
    """What the stages of an attack found, a file per stage and batch.

    Args:
        folder: the folder; made when missing.
        keeps: whether what was read keeps the budget, by the number of its batch.
        world: the processes that fill it.
    """

    def __init__(
        self, folder: Path, keeps: Callable[[int, Found], bool] = lambda number, found: True, *, world: World = ALONE
    ) -> None:
        self.folder, self._keeps, self._world = folder, keeps, world
        self._written: set[Path] = set()

    def share(self, stage: str, numbers: Sequence[int], search: Callable[[int], Found]) -> None:
        """Let each of several processes search its part of the batches; a single one does so one by one."""
        if self._world.size > 1:
            for number in self._world.deal(numbers):
                if self.read(stage, number) is None:
                    self.write(stage, number, search(number))

    def read(self, stage: str, number: int) -> Found | None:
        """Return what a stage found for a batch, or None when it is not there, damaged or beyond the budget (then it is
        made again)."""
        path = self._path(stage, number)
        try:
            values: dict[str, Any] = read_npz(path)
            found = Found.of_arrays(values)
            if path not in self._written and not self._keeps(number, found):
                return None
        except (FileNotFoundError, *DAMAGED, IndexError):
            return None
        self._written.add(path)
        return found

    def write(self, stage: str, number: int, found: Found) -> None:
        """Keep what a stage found for a batch; the file is whole or not there."""
        path = self._path(stage, number)
        write_atomically(path, npz_bytes(**found.arrays()))
        self._written.add(path)

    def _path(self, stage: str, number: int) -> Path:
        return self.folder / stage / f"batch-{number:05d}.npz"


def set_stores(store: Store) -> dict[SetName, Store]:
    """Return where each set of an attack on a gallery is kept: the shared one in the store itself."""
    return {name: store if name == "shared" else store.beside(name) for name in SETS}


def attack_gallery(
    model: VisionLanguageModel,
    pairs: OneToManyPairs,
    attack: GalleryAttack,
    threat: ThreatModel,
    store: Store,
    groups: Sequence[np.ndarray],
    clean: Side,
    *,
    seed: int,
    progress: Reporter,
    title: str,
    kept_pixels: KeptPixels,
    world: World = ALONE,
) -> None:
    """Fill the stores of the three sets; an interrupted attack goes on at the first batch of a stage that is missing.

    Args:
        model: the victim.
        pairs: the data.
        attack: how.
        threat: within what; stored sets that leave it are made again.
        store: of the evaluation.
        groups: the image indices of every batch, ascending.
        clean: the data.
        seed: of the attack.
        progress: where it is shown.
        title: of the progress.
        kept_pixels: gives the pictures.
        world: the processes that share the batches of each stage.
    """
    stores = set_stores(store)
    budget = attack.budgets(threat)

    def load(number: int) -> PairBatch:
        return pair_batch(model, pairs, groups[number], kept=kept_pixels)

    if world.agree(
        world.main
        and all(_whole(load, model, threat, stores.values(), number, ids) for number, ids in enumerate(groups))
    ):
        return

    def keeps(number: int, found: Found) -> bool:
        return not _beyond(model, load(number), found, threat)

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
        load=load,
    )
    stages = StoredStages(store.folder / "stages", keeps, world=world)
    with progress.task(title, total=attack.stages(budget) * len(pairs.images)) as task:
        read = attack.search(
            model, whole, budget=budget, seed=seed, keep=stages, advance=lambda count: task.advance(count)
        )
        for number, ids in world.deal(list(enumerate(groups))):
            batch = load(number)
            for name, kept in stores.items():
                pixels, texts = read(name, number)
                linf, words = changes(model, batch, pixels.cpu(), texts, budget)
                kept.write(number, ids, StoredBatch.of(batch, pixels, texts, linf=linf, words=words).arrays())
    if world.main:
        shutil.rmtree(stages.folder, ignore_errors=True)


def _whole(
    load: Callable[[int], PairBatch],
    model: VisionLanguageModel,
    threat: ThreatModel,
    stores: Iterable[Store],
    number: int,
    ids: np.ndarray,
) -> bool:
    """Return whether all sets have a batch, within its budget."""
    batch: PairBatch | None = None
    for store in stores:
        stored = store.read(number, ids)
        if stored is None:
            return False
        batch = load(number) if batch is None else batch
        if StoredBatch.of_arrays(stored).beyond_budget(model, batch, threat):
            return False
    return True


def _beyond(model: VisionLanguageModel, batch: PairBatch, found: Found, threat: ThreatModel) -> str:
    """Return how candidates of a batch leave a threat; "" if they do not."""
    images, texts = (
        [places[owner] for owner in owners.tolist()]
        for places, owners in (
            ({int(i): place for place, i in enumerate(batch.image_ids)}, found.image_owners),
            ({int(j): place for place, j in enumerate(batch.text_ids)}, found.text_owners),
        )
    )
    return beyond_budget(
        batch.pixels[images] if images else batch.pixels,
        torch.from_numpy(found.grey).float() / 255 if images else batch.pixels,
        [batch.texts[place] for place in texts],
        found.strings,
        threat,
        grid=patch_grid(model) if isinstance(threat.get("image"), Elements) else None,
    )
