"""Two-tower models as a choice among a fixed gallery, patch by patch and word by word: concepts, classes, pictures or
texts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn.functional import normalize

from crossguard.attacks import Storage
from crossguard.attacks.budget import patch_grid
from crossguard.attacks.encode import encode_images, encode_unit_texts
from crossguard.data import LabelledImages, MultiModalSamples, OneToManyPairs
from crossguard.evaluate.batches import load_pixels, preprocessed
from crossguard.models import VisionLanguageModel
from crossguard.models.base import PatchModel
from crossguard.models.gallery_choice import MODALITIES, GalleryChoice
from crossguard.models.patches import to_patches
from crossguard.models.unseen import linked_as_read

UNITS = {"image": "patch", "text": "word"}
PASS = 64
"""Pictures, or texts, that are encoded together."""


@dataclass(frozen=True)
class GalleryTask:
    """A classifier over patches and words, the samples it is asked about, and how their values are stored.

    Args:
        model: chooses among the gallery.
        samples: "image" float32 [samples, patches, 3, patch_height, patch_width] in [0, 1], "text" int32
            [samples, slots, 1] codes of words, 0 for none; as many slots as the longest text asked has words. A
            certificate counts empty slots as elements, so that it also bounds attackers who fill them. Labels are the
            first right entry of the gallery.
        storage: of each modality.
        truth: bool [samples, entries], which entries of the gallery are right.
    """

    model: GalleryChoice
    samples: MultiModalSamples
    storage: dict[str, Storage]
    truth: Bool[np.ndarray, "samples entries"]

    @property
    def patch(self) -> int:
        """Side of a patch in pixels, the longer one where it is no square."""
        return int(max(self.samples.modalities["image"].shape[-2:]))

    def head(self, count: int) -> "GalleryTask":
        """Return the task of the first samples."""
        return GalleryTask(self.model, self.samples.head(count), self.storage, self.truth[:count])


@dataclass(frozen=True)
class _Gallery:
    """What is chosen from: embeddings, their names, and the words that texts are made of."""

    entries: Float[Tensor, "entries dim"]
    names: Sequence[str]
    vocabulary: Sequence[str] = ()

    def ask(
        self,
        model: VisionLanguageModel,
        data: OneToManyPairs | LabelledImages,
        truth: Bool[np.ndarray, "samples entries"],
        groups: Int64[np.ndarray, " samples"],
        *,
        pixels: Float[Tensor, "samples 3 height width"] | None = None,
        texts: Sequence[str] | None = None,
    ) -> GalleryTask:
        """Return the task of pictures, texts, or pictures with their texts."""
        modalities = tuple(m for m, asked in zip(MODALITIES, (pixels, texts), strict=True) if asked is not None)
        towers, words = cast(PatchModel, model), self.vocabulary
        choice = GalleryChoice(towers, self.entries, self.names, vocabulary=words, modalities=modalities).eval()
        values: dict[str, np.ndarray] = {}
        storage: dict[str, Storage] = {}
        if pixels is not None:
            values["image"], storage["image"] = (
                to_patches(pixels, patch_grid(model)).contiguous().numpy(),
                Storage.pixels(),
            )
        if texts is not None:
            slots = max(len(text.split()) for text in texts)
            values["text"] = choice.codes(texts, slots=slots).to(torch.int32).unsqueeze(2).numpy()
            storage["text"] = Storage(0.0, float(len(words)), 1.0, symbols=True)
        samples = MultiModalSamples(data.name, data.split, values, truth.argmax(axis=1), choice.classes, groups)
        return GalleryTask(choice, samples, storage, truth)


def gallery_task(
    model: VisionLanguageModel,
    pairs: OneToManyPairs,
    *,
    classes: int = 100,
    modalities: tuple[str, ...] = MODALITIES,
) -> GalleryTask:
    """Turn pairs into a choice among a fixed gallery of concepts.

    A concept is what links hold together: pictures and texts reached from each other. Its first picture and that
    picture's first text are asked; its other pictures and texts are the gallery's entry (their mean unit embedding).
    Concepts without others are left out, and the first `classes` of the rest are taken. Texts that the model cannot
    tell apart hold concepts together, too.

    Args:
        model: a model that can leave out patches, in evaluation mode where it is.
        pairs: with several pictures or several texts per concept.
        classes: entries of the gallery, and samples.
        modalities: what is asked with: "image", "text" or both.

    Raises:
        ValueError: fewer than two concepts with others, or a model without a patch grid.
    """
    patch_grid(model)
    pairs = linked_as_read(model, pairs)
    chosen = _concepts(pairs)[:classes]
    if len(chosen) < 2:
        raise ValueError(
            f"Expected two concepts or more with further pictures or texts in {pairs.name} ({pairs.split}), but got "
            f"{len(chosen)}."
        )
    entries = []
    for images, texts in chosen:
        entry = [*([_images(model, pairs, images[1:])] if len(images) > 1 else [])]
        entry += [_texts(model, [pairs.texts[j] for j in texts[1:]])] if len(texts) > 1 else []
        entries.append(torch.cat(entry).mean(dim=0))
    names = [pairs.images[images[0]].key for images, _ in chosen]
    return _Gallery(torch.stack(entries), names, _words(pairs)).ask(
        model,
        pairs,
        np.eye(len(chosen), dtype=bool),
        np.arange(len(chosen)),
        pixels=_pixels(model, pairs, [images[0] for images, _ in chosen]) if "image" in modalities else None,
        texts=[pairs.texts[texts[0]] for _, texts in chosen] if "text" in modalities else None,
    )


def zero_shot_task(model: VisionLanguageModel, images: LabelledImages) -> GalleryTask:
    """Turn labelled pictures into a choice among the names of their classes, patch by patch.

    An entry of the gallery is the mean unit embedding of a class's prompts.

    Args:
        model: a model that can leave out patches, in evaluation mode where it is.
        images: pictures, classes and prompts.

    Raises:
        ValueError: a model without a patch grid.
    """
    entries = [_texts(model, list(images.prompts(name))).mean(dim=0) for name in images.classes]
    pixels = torch.cat([preprocessed(model, [images.image(i) for i in ids]) for ids in _parts(range(len(images)))])
    truth = images.labels[:, None] == np.arange(len(images.classes))
    return _Gallery(torch.stack(entries), images.classes).ask(model, images, truth, images.groups, pixels=pixels)


def retrieval_task(
    model: VisionLanguageModel,
    pairs: OneToManyPairs,
    *,
    ask: Literal["image", "text"] = "text",
    queries: int | None = None,
) -> GalleryTask:
    """Turn pairs into retrieval among a fixed gallery: all pictures for texts that ask, all texts for pictures.

    Args:
        model: a model that can leave out patches (where pictures ask), in evaluation mode where it is.
        pairs: what is linked is right; texts that the model cannot tell apart share their links.
        ask: what is asked with.
        queries: the first so many texts or pictures ask; None: all.

    Raises:
        ValueError: fewer than two entries, or a model without a patch grid where pictures ask.
    """
    pairs = linked_as_read(model, pairs)
    pictures, texts = range(len(pairs.images)), range(len(pairs.texts))
    linked = np.zeros((len(pictures), len(texts)), dtype=bool)
    linked[pairs.links[:, 0], pairs.links[:, 1]] = True
    if ask == "text":
        chosen = np.flatnonzero(linked.any(axis=0))[:queries]
        gallery = _Gallery(_images(model, pairs, pictures), [image.key for image in pairs.images], _words(pairs))
        asked = [pairs.texts[j] for j in chosen]
        first = linked[:, chosen].argmax(axis=0)  # texts of one picture belong together
        return gallery.ask(model, pairs, linked[:, chosen].T, first, texts=asked)
    chosen = np.flatnonzero(linked.any(axis=1))[:queries]
    gallery = _Gallery(_texts(model, list(pairs.texts)), pairs.texts)
    return gallery.ask(model, pairs, linked[chosen], chosen, pixels=_pixels(model, pairs, chosen.tolist()))


@torch.no_grad()
def _images(model: VisionLanguageModel, pairs: OneToManyPairs, ids: Sequence[int]) -> Float[Tensor, "pictures dim"]:
    """Return unit embeddings of pictures."""
    device = model.logit_scale.device
    parts = (load_pixels(model, pairs, np.array(part, dtype=np.int64)).to(device) for part in _parts(ids))
    return torch.cat([normalize(encode_images(model, pixels), dim=-1) for pixels in parts])


@torch.no_grad()
def _texts(model: VisionLanguageModel, texts: Sequence[str]) -> Float[Tensor, "texts dim"]:
    """Return unit embeddings of texts."""
    return torch.cat([encode_unit_texts(model, [texts[i] for i in part]) for part in _parts(range(len(texts)))])


def _pixels(
    model: VisionLanguageModel, pairs: OneToManyPairs, ids: Sequence[int]
) -> Float[Tensor, "pictures 3 height width"]:
    return torch.cat([load_pixels(model, pairs, np.array(part, dtype=np.int64)) for part in _parts(ids)])


def _words(pairs: OneToManyPairs) -> list[str]:
    return sorted({word for text in pairs.texts for word in text.split()})


def _parts(ids: Sequence[int]) -> list[Sequence[int]]:
    return [ids[start : start + PASS] for start in range(0, len(ids), PASS)]


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
