"""Saved: pictures and texts that an attack found earlier, tried on another model (a transfer attack)."""

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from crossguard.attacks.base import Attack
from crossguard.attacks.budget import Budgets
from crossguard.attacks.saved_set import load_adversarial
from crossguard.data import OneToManyPairs, PairBatch
from crossguard.models import VisionLanguageModel
from crossguard.threat import LInf, ThreatModel, WordEdits

_OTHER_PICTURE = 0.08
"""Mean absolute difference of pixels in [0, 1] above which two pictures are taken for different ones."""


class Saved(Attack):
    """Take a set that `save_adversarial` wrote (`evaluate(..., save_to=FOLDER)`) to another model.

    The model's own clean pictures must be those that the set was made from. A model that takes another size, or
    prepares pictures differently, needs `resize`: the *change* of every picture is resized (bicubic) and added to the
    model's own clean picture, within the budget; where the two models cut pictures differently it is refused.

    Args:
        folder: the set.
        resize: carry changes over to another size.

    Raises:
        ValueError: no set in the folder, or one that is damaged or out of its budget; in `check` and at the call, a
            threat that the set was not made for, other data, or another size without `resize`.
    """

    name = "saved"
    uses = frozenset({"image", "text"})

    def __init__(self, *, folder: Path | str, resize: bool = False) -> None:
        self._set = load_adversarial(folder)
        self.folder, self.resize = str(folder), resize
        self.made: dict[str, Any] = dict(self._set.made)

    @property
    def threat(self) -> ThreatModel:
        """The budgets that the set was made within."""
        return self._set.threat

    def check(self, model: VisionLanguageModel, pairs: OneToManyPairs, threat: ThreatModel) -> None:
        """Refuse what cannot work, before any work is done.

        Raises:
            ValueError: another budget than the set's, texts or images that it does not hold, or another size.
        """
        for modality in threat:
            self._check_budget(modality, threat[modality])
        if "image" in threat:
            wanted, size = tuple(model.image_size), tuple(self.made["image_size"])
            if wanted != size and not self.resize:
                raise ValueError(
                    f"Expected an adversarial set of {wanted[0]} x {wanted[1]} pixels for {model.name}, but the one in "
                    f"{self.folder} has {size[0]} x {size[1]}: set `resize` to carry the changes over."
                )
            known = dict(zip(self._set.image_ids.tolist(), self._set.keys, strict=True))
            strange = [picture.key for i, picture in enumerate(pairs.images) if known.get(i) != picture.key]
            if strange:
                raise ValueError(self._other_data("picture", strange[0]))
        if "text" in threat:
            for text in pairs.texts:
                self._adversarial(text)

    def run(
        self, model: VisionLanguageModel, batch: PairBatch, *, budget: Budgets, seed: int
    ) -> tuple[Float[Tensor, "images 3 height width"], tuple[str, ...]]:
        """Look the batch's pictures and texts up."""
        pixels, texts = batch.pixels, batch.texts
        if budget.moves_images:
            self._check_budget("image", budget.image)
            pixels = self._pixels(batch)
        if budget.words:
            self._check_budget("text", WordEdits(words=budget.words, kinds=budget.kinds))
            texts = tuple(self._adversarial(text) for text in texts)
        return pixels, texts

    def _check_budget(self, modality: str, wanted: object) -> None:
        held = self.threat.get(modality)
        if held is None or (wanted != held and not _nothing(wanted)):
            raise ValueError(
                f"Expected the threat model that the set in {self.folder} was made for ({self.threat}), but got "
                f"{modality}: {wanted}."
            )

    def _adversarial(self, text: str) -> str:
        if text not in self._set.texts:
            raise ValueError(self._other_data("text", text))
        return self._set.texts[text]

    def _other_data(self, what: str, value: str) -> str:
        return (
            f"Expected the data that the set in {self.folder} was made for ({self.made['data']}, "
            f"{self.made['split']}: {self.made['images']} images, {self.made['texts']} texts), but {what} {value!r} is "
            "not in it."
        )

    def _pixels(self, batch: PairBatch) -> Float[Tensor, "images 3 height width"]:
        clean, found = (
            torch.from_numpy(grey).to(batch.pixels.device).float() / 255
            for grey in self._set.pictures(batch.image_ids.tolist())
        )
        same_size = clean.shape == batch.pixels.shape
        if same_size and bool(((clean - batch.pixels).abs() < 1e-4).all()):
            return found
        if not self.resize:
            raise ValueError(
                f"Expected the clean pictures that the set in {self.folder} was made from, but this model prepares "
                "other pixels from them, or the data differ: set `resize` to carry the changes over."
            )
        self._check_same_pictures(clean, batch.pixels, batch)
        return batch.pixels + _resized(found - clean, batch.pixels)

    def _check_same_pictures(
        self,
        clean: Float[Tensor, "images 3 saved_height saved_width"],
        pixels: Float[Tensor, "images 3 height width"],
        batch: PairBatch,
    ) -> None:
        small, large = sorted((clean, pixels), key=lambda images: images.shape[-1] * images.shape[-2])
        difference = (_resized(large, small) - small).abs().mean(dim=(1, 2, 3))
        worst = int(difference.argmax())
        if difference[worst] > _OTHER_PICTURE:
            raise ValueError(
                f"Expected the pictures that the set in {self.folder} was made from, but image "
                f"{int(batch.image_ids[worst])} differs by {float(difference[worst]):.2f} on average (pixels in "
                "[0, 1]): the data differ, or the two models cut pictures differently."
            )


def _resized(
    images: Float[Tensor, "images 3 old_height old_width"], like: Float[Tensor, "images 3 height width"]
) -> Float[Tensor, "images 3 height width"]:
    return interpolate(images, size=like.shape[-2:], mode="bicubic", antialias=True, align_corners=False)


def _nothing(budget: object) -> bool:
    return (isinstance(budget, LInf) and budget.eps == 0) or (isinstance(budget, WordEdits) and budget.words == 0)
