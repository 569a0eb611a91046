"""Pairs as a choice among a fixed gallery: a picture with its caption asks for its concept, patch by patch and word by
word."""

from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch.nn.functional import normalize

from crossguard.attacks import Storage
from crossguard.attacks.budget import patch_grid
from crossguard.attacks.encode import encode_images, encode_unit_texts
from crossguard.data import MultiModalSamples, OneToManyPairs
from crossguard.evaluate.batches import load_pixels
from crossguard.models import VisionLanguageModel
from crossguard.models.base import PatchModel
from crossguard.models.gallery_choice import MODALITIES, GalleryChoice
from crossguard.models.patches import to_patches
from crossguard.models.unseen import linked_as_read


@dataclass(frozen=True)
class GalleryTask:
    """A classifier over patches and words, the samples it is asked about, and how their values are stored."""

    model: GalleryChoice
    samples: MultiModalSamples
    storage: dict[str, Storage]

    @property
    def patch(self) -> int:
        """Side of a patch in pixels, the longer one where it is no square."""
        return int(max(self.samples.modalities["image"].shape[-2:]))


def gallery_task(
    model: VisionLanguageModel,
    pairs: OneToManyPairs,
    *,
    classes: int = 100,
    modalities: tuple[str, ...] = MODALITIES,
    batch_size: int = 64,
) -> GalleryTask:
    """Turn pairs into a choice among a fixed gallery.

    A concept is what links hold together: pictures and texts reached from each other. Its first picture and that
    picture's first text are asked; its other pictures and texts are the gallery's entry (their mean unit embedding).
    Concepts without others are left out, and the first `classes` of the rest are taken. Texts that the model cannot
    tell apart hold concepts together, too.

    Args:
        model: a model that can leave out patches, in evaluation mode where it is.
        pairs: with several pictures or several texts per concept.
        classes: entries of the gallery, and samples.
        modalities: what is asked with: "image", "text" or both.
        batch_size: pictures encoded together.

    Returns:
        Samples: "image" float32 [samples, patches, 3, patch_height, patch_width] in [0, 1], "text" int32
        [samples, slots, 1] codes of words, 0 for none; as many slots as the longest text asked has words. A certificate
        counts empty slots as elements, so that it also bounds attackers who fill them.

    Raises:
        ValueError: fewer than two concepts with others, or a model without a patch grid.
    """
    grid, pairs = patch_grid(model), linked_as_read(model, pairs)
    chosen = _concepts(pairs)[:classes]
    if len(chosen) < 2:
        raise ValueError(
            f"Expected two concepts or more with further pictures or texts in {pairs.name} ({pairs.split}), but got "
            f"{len(chosen)}."
        )
    device = model.logit_scale.device
    asked_texts = [pairs.texts[texts[0]] for _, texts in chosen]
    gallery = []
    with torch.no_grad():
        for images, texts in chosen:
            entry = []
            if len(images) > 1:
                pixels = load_pixels(model, pairs, np.array(images[1:], dtype=np.int64)).to(device)
                entry.append(normalize(encode_images(model, pixels), dim=-1))
            if len(texts) > 1:
                entry.append(encode_unit_texts(model, [pairs.texts[j] for j in texts[1:]]))
            gallery.append(torch.cat(entry).mean(dim=0))
    vocabulary = sorted({word for text in pairs.texts for word in text.split()})
    choice = GalleryChoice(
        cast(PatchModel, model),
        torch.stack(gallery),
        [pairs.images[images[0]].key for images, _ in chosen],
        vocabulary=vocabulary,
        modalities=modalities,
    ).eval()
    values: dict[str, np.ndarray] = {}
    storage: dict[str, Storage] = {}
    if "image" in modalities:
        first = np.array([images[0] for images, _ in chosen], dtype=np.int64)
        pixels = torch.cat(
            [load_pixels(model, pairs, ids) for ids in np.split(first, range(batch_size, len(first), batch_size))]
        )
        values["image"], storage["image"] = to_patches(pixels, grid).contiguous().numpy(), Storage.pixels()
    if "text" in modalities:
        slots = max(len(text.split()) for text in asked_texts)
        values["text"] = choice.codes(asked_texts, slots=slots).to(torch.int32).unsqueeze(2).numpy()
        storage["text"] = Storage(0.0, float(len(vocabulary)), 1.0, symbols=True)
    samples = MultiModalSamples(
        name=pairs.name,
        split=pairs.split,
        modalities=values,
        labels=np.arange(len(chosen)),
        classes=choice.classes,
        groups=np.arange(len(chosen)),
    )
    return GalleryTask(choice, samples, storage)


def _concepts(pairs: OneToManyPairs) -> list[tuple[list[int], list[int]]]:
    """Return (pictures, texts) of each connected group that has more than the one of each that is asked.

    The first text is one of the first picture's own.
    """
    seen: set[int] = set()
    found = []
    for start in range(len(pairs.images)):
        if start in seen:
            continue
        images, texts, open_ = [start], [], [start]
        seen.add(start)
        while open_:
            for text in pairs.texts_of(open_.pop(0)):
                if int(text) in texts:
                    continue
                texts.append(int(text))
                for image in pairs.images_of(int(text)):
                    if int(image) not in seen:
                        seen.add(int(image))
                        images.append(int(image))
                        open_.append(int(image))
        if texts and len(images) + len(texts) > 2:
            found.append((images, texts))
    return found
