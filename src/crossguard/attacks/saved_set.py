"""Adversarial sets on the disk: pictures as 8-bit PNG, texts, where they come from and what they may differ by."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from PIL import Image
from torch import Tensor

from crossguard.attacks.budget import within_words
from crossguard.checks import expanded
from crossguard.data import OneToManyPairs, PairBatch
from crossguard.runs import atomic_folder
from crossguard.threat import LInf, ThreatModel, WordEdits

SCHEMA = 1
"""Version of the layout; a reader refuses what is newer than itself."""
_SLACK = 1e-4  # grey levels


@runtime_checkable
class Found(Protocol):
    """Adversarial pixels and texts of one batch, as `Adversarial` has them."""

    @property
    def pixels(self) -> Float[Tensor, "images 3 height width"]:
        """Whole multiples of 1/255 in [0, 1]."""
        ...

    @property
    def texts(self) -> tuple[str, ...]:
        """One per text of the batch."""
        ...


@dataclass(frozen=True)
class AdversarialSet:
    """A set that `save_adversarial` wrote; pictures are read when they are asked for.

    Args:
        folder: where it lies.
        made: its manifest: `model`, `attack`, `attack_options`, `seed`, `data`, `split`, `images`, `texts`,
            `image_size` ([height, width], or None without attacked pictures), ...
        threat: the budgets that it keeps.
        image_ids: int64 [images], indices in its data set; empty without attacked pictures.
        keys: the images' names.
        texts: the adversarial text of every source text.
    """

    folder: Path
    made: Mapping[str, Any]
    threat: ThreatModel
    image_ids: Int64[np.ndarray, " images"]
    keys: tuple[str, ...]
    texts: Mapping[str, str]

    def pictures(
        self, image_ids: Sequence[int]
    ) -> tuple[UInt8[np.ndarray, "images 3 height width"], UInt8[np.ndarray, "images 3 height width"]]:
        """Read the clean and the adversarial pictures of some images.

        Raises:
            ValueError: the set has no such image, or a file is missing, damaged, or out of budget.
        """
        known = set(self.image_ids.tolist())
        strange = [i for i in image_ids if i not in known]
        if strange:
            raise ValueError(
                f"Expected images that the set in {self.folder} holds ({len(known)} of {self.made['data']}), but got "
                f"image {strange[0]}."
            )
        clean, adversarial = (
            np.stack([_read_picture(self.folder / kind / _file(i), self.made["image_size"]) for i in image_ids])
            for kind in ("clean", "adversarial")
        )
        budget = self.threat["image"]
        assert isinstance(budget, LInf)
        moved = np.abs(adversarial.astype(np.int16) - clean).max(axis=(1, 2, 3))
        over = np.flatnonzero(moved > 255 * budget.eps + _SLACK)
        if len(over):
            raise ValueError(
                f"Expected pictures within {budget} of their sources in {self.folder}, but image "
                f"{image_ids[int(over[0])]} is {moved[over[0]]} grey levels away."
            )
        return clean, adversarial


def save_adversarial(
    folder: Path | str,
    batches: Iterable[tuple[PairBatch, Found]],
    *,
    pairs: OneToManyPairs,
    threat: ThreatModel,
    model: str,
    attack: str,
    seed: int,
    settings: Mapping[str, Any] | None = None,
) -> Path:
    """Write what an attack found, so that it can be looked at, and tried on another model with the attack `saved`.

    The folder holds `manifest.json`, `texts.jsonl` (source and adversarial text) and, if pictures were attacked,
    `images.jsonl` with `clean/` and `adversarial/`: both as 8-bit PNG at the size that the model takes, so that the
    set shows by itself that it keeps its budget.

    Args:
        folder: a new or empty folder; written whole or not at all.
        batches: batches of `pairs` with what was found, one at a time.
        pairs: the data.
        threat: the budgets that the attack had.
        model: name of the model that was attacked.
        attack: name of the attack.
        seed: its seed.
        settings: anything else worth keeping, as JSON values.

    Raises:
        ValueError: the folder holds something, a budget is of another kind than L-inf and word edits, or a batch is out
            of budget, off the 8-bit grid, or of other data.

    Returns:
        The folder.
    """
    folder = expanded(folder)
    check_savable(threat)
    refuse_taken(folder)
    with atomic_folder(folder) as target:
        texts: dict[str, str] = {}
        images: list[dict[str, Any]] = []
        size: list[int] | None = None
        for batch, found in batches:
            if "image" in threat:
                size = _write_pictures(target, batch, found, images, pairs)
            for source, text, index in zip(batch.texts, found.texts, batch.text_ids.tolist(), strict=True):
                if pairs.texts[index] != source:
                    raise ValueError(f"Expected text {pairs.texts[index]!r} of {pairs.name}, but got {source!r}.")
                texts[source] = text
        made = {
            "schema": SCHEMA,
            "model": model,
            "attack": attack,
            "seed": seed,
            "threat": threat.to_dict(),
            "data": pairs.name,
            "split": pairs.split,
            "images": len(images),
            "texts": len(texts),
            "image_size": size,
            "settings": dict(settings or {}),
        }
        rows = [{"source": source, "adversarial": text} for source, text in texts.items()]
        _write_lines(target / "texts.jsonl", rows)
        _write_lines(target / "images.jsonl", images)
        (target / "manifest.json").write_text(json.dumps(made, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        whole = load_adversarial(target)
        for at in range(0, len(whole.image_ids), 64):
            whole.pictures(whole.image_ids[at : at + 64].tolist())
    return folder


def check_savable(threat: ThreatModel) -> None:
    """Refuse budgets that a set could not show to be kept: pictures are compared by L-inf, texts by words.

    Raises:
        ValueError: naming the first of another kind.
    """
    for modality, kind in (("image", LInf), ("text", WordEdits)):
        budget = threat.get(modality)
        if budget is not None and not isinstance(budget, kind):
            raise ValueError(
                f"Expected a budget of {modality!r} that an adversarial set can keep, {kind.__name__}, but got "
                f"{budget!r}."
            )


def refuse_taken(folder: Path) -> None:
    """Refuse a folder that holds something, or a file in its place.

    Raises:
        ValueError: saying so.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"Expected a new or empty folder for an adversarial set, but {folder} holds something.")


def load_adversarial(folder: Path | str) -> AdversarialSet:
    """Read a set that `save_adversarial` wrote, and check that every text keeps its budget.

    Pictures are checked when they are read (`AdversarialSet.pictures`).

    Raises:
        ValueError: no set, one of a newer layout, damaged, or with a text out of budget.
    """
    folder = expanded(folder)
    try:
        made = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        if made["schema"] > SCHEMA:
            raise ValueError(f"it is of layout {made['schema']}, newer than this version reads ({SCHEMA})")
        threat = ThreatModel.from_dict(made["threat"])
        check_savable(threat)
        texts = {row["source"]: row["adversarial"] for row in _read_lines(folder / "texts.jsonl")}
        images = _read_lines(folder / "images.jsonl")
        ids = np.array([row["id"] for row in images], dtype=np.int64)
        keys = tuple(row["key"] for row in images)
        if (len(texts), len(images)) != (made["texts"], made["images"]):
            raise ValueError(
                f"its manifest tells of {made['texts']} texts and {made['images']} images, but it has {len(texts)} and "
                f"{len(images)}"
            )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"Expected an adversarial set in {folder}, but got: {error}") from error
    budget = threat.get("text", WordEdits(words=0))
    assert isinstance(budget, WordEdits)
    for source, text in texts.items():
        if not text.strip() or not within_words(source, text, budget):
            raise ValueError(
                f"Expected texts within {budget} of their sources in {folder}, but {source!r} has {text!r}."
            )
    return AdversarialSet(folder, made, threat, ids, keys, texts)


def _write_pictures(
    target: Path, batch: PairBatch, found: Found, images: list[dict[str, Any]], pairs: OneToManyPairs
) -> list[int]:
    for kind, pixels in (("clean", batch.pixels), ("adversarial", found.pixels)):
        grey = pixels.detach().cpu() * 255
        if grey.shape != batch.pixels.shape or not bool(((grey - grey.round()).abs() < 1e-3).all()):
            raise ValueError(f"Expected {kind} pixels {list(batch.pixels.shape)} in whole multiples of 1/255.")
        (target / kind).mkdir(exist_ok=True)
        for index, picture in zip(batch.image_ids.tolist(), grey.round().to(torch.uint8).numpy(), strict=True):
            Image.fromarray(np.ascontiguousarray(picture.transpose(1, 2, 0))).save(target / kind / _file(index))
    images += [{"id": i, "key": pairs.images[i].key, "file": _file(i)} for i in batch.image_ids.tolist()]
    return list(batch.pixels.shape[2:])


def _read_picture(path: Path, size: Sequence[int] | None) -> UInt8[np.ndarray, "3 height width"]:
    try:
        with Image.open(path, formats=("PNG",)) as picture:
            if picture.mode != "RGB" or size is None or (picture.height, picture.width) != tuple(size):
                raise ValueError(f"it is {picture.mode} {picture.height} x {picture.width}, not RGB {size}")
            return np.asarray(picture).transpose(2, 0, 1)
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"Expected a picture of an adversarial set at {path}, but got: {error}") from error


def _file(index: int) -> str:
    return f"{index:06d}.png"


def _write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
