"""Keeping what an evaluation's attack found as an adversarial set that can be taken to other models."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from crossguard.attacks import load_adversarial, save_adversarial
from crossguard.attacks.saved_set import refuse_taken
from crossguard.data import OneToManyPairs, PairBatch
from crossguard.evaluate.batches import pair_batch
from crossguard.evaluate.store import Store
from crossguard.evaluate.stored_batch import StoredBatch
from crossguard.models import VisionLanguageModel
from crossguard.runs import as_read_back
from crossguard.threat import ThreatModel


def check_target(folder: Path, settings: Mapping[str, Any] | None = None) -> bool:
    """Return whether a folder already holds the set of the very same evaluation.

    Args:
        folder: where the set is to be written.
        settings: the evaluation's settings; None: only see whether the folder may be written at all, or holds a set.

    Raises:
        ValueError: the folder holds something else.
    """
    if not (folder / "manifest.json").is_file():
        refuse_taken(folder)
        return False
    held = load_adversarial(folder).made["settings"]
    if settings is not None and held != as_read_back(settings):
        raise ValueError(f"Expected a new folder for an adversarial set, but {folder} holds that of another attack.")
    return True


def save_found(
    folder: Path,
    store: Store,
    groups: Sequence[Int64[np.ndarray, " images"]],
    *,
    model: VisionLanguageModel,
    pairs: OneToManyPairs,
    threat: ThreatModel,
    settings: Mapping[str, Any],
) -> None:
    """Write the stored batches of a finished evaluation as an adversarial set; a set that stands there is left.

    Raises:
        ValueError: the folder holds something else.
    """
    if check_target(folder, settings):
        return

    def batches() -> Iterator[tuple[PairBatch, StoredBatch]]:
        for number, image_ids in enumerate(groups):
            yield pair_batch(model, pairs, image_ids), StoredBatch.of_arrays(store.expect(number, image_ids))

    save_adversarial(
        folder,
        batches(),
        pairs=pairs,
        threat=threat,
        model=model.name,
        attack=settings["attack"],
        seed=settings["seed"],
        settings=settings,
    )
