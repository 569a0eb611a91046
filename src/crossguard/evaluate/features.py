"""Embeddings of a whole data set, clean and attacked, in evaluation mode and without gradients."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import cast

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from crossguard.checks import WrongKind
from crossguard.data import OneToManyPairs
from crossguard.evaluate.batches import KeptPixels, ahead, load_pixels
from crossguard.evaluate.ranking import Side
from crossguard.models import VisionLanguageModel
from crossguard.models.unseen import same_tokens
from crossguard.progress import Reporter
from crossguard.world import ALONE, World

_MEMBERS = (
    "name",
    "image_size",
    "context_length",
    "mask_token",
    "preprocess",
    "tokenize",
    "encode_image",
    "encode_text",
    "logit_scale",
)


def check_model(model: object) -> nn.Module:
    """Return the model as a module.

    Raises:
        WrongKind: it is no `torch.nn.Module`, or lacks members of the `VisionLanguageModel` protocol (named).
    """
    missing = [member for member in _MEMBERS if not hasattr(model, member)]
    if missing or not isinstance(model, nn.Module):
        lacks = [*(() if isinstance(model, nn.Module) else ["torch.nn.Module as a base class"]), *missing]
        raise WrongKind(
            f"Expected a VisionLanguageModel (see crossguard.models), but {type(model).__name__} lacks: "
            f"{', '.join(lacks)}."
        )
    return model


def device_of(module: nn.Module) -> torch.device:
    """Return the device of a module's first parameter or buffer; the CPU when it has none."""
    for tensor in (*module.parameters(), *module.buffers()):
        return tensor.device
    return torch.device("cpu")


@contextmanager
def on_device(module: nn.Module, device: torch.device | str | None) -> Iterator[torch.device]:
    """Move a module for the time of the block, and back after it; None leaves it where it is."""
    home = device_of(module)
    target = home if device is None else torch.device(device)
    try:
        module.to(target)
        yield target
    finally:
        module.to(home)


@torch.no_grad()
def encode_images(
    model: VisionLanguageModel, pixels: Float[Tensor, "images 3 height width"], *, batch_size: int, device: torch.device
) -> Float[Tensor, "images dim"]:
    """Embed pixels, `batch_size` at a time.

    Raises:
        ValueError: the model gives another number of embeddings than it got images.
    """
    parts = [model.encode_image(part.to(device)) for part in pixels.split(batch_size)]
    return _checked(torch.cat(parts), len(pixels), "encode_image")


@torch.no_grad()
def encode_texts(
    model: VisionLanguageModel, texts: Sequence[str], *, batch_size: int, world: World = ALONE
) -> Float[Tensor, "texts dim"]:
    """Embed texts, `batch_size` at a time; those that the model cannot tell apart once, so that they tie exactly.

    Several processes share the batches, and all get all.

    Raises:
        ValueError: the model gives another number of embeddings than it got texts.
    """
    first, place = np.unique(same_tokens(model, texts), return_inverse=True)
    different = [texts[int(i)] for i in first]
    starts = range(0, len(different), batch_size)
    device = device_of(cast(nn.Module, model))

    def encode(start: int) -> Tensor:
        part = model.encode_text(different[start : start + batch_size])
        return part if world.size == 1 else part.cpu()

    parts = [part.to(device) if world.size > 1 else part for part in world.each(starts, encode)]
    return _checked(torch.cat(parts), len(different), "encode_text")[torch.from_numpy(place)]


def clean_side(
    model: VisionLanguageModel,
    pairs: OneToManyPairs,
    groups: Sequence[Int64[np.ndarray, " _"]],
    *,
    batch_size: int,
    device: torch.device,
    progress: Reporter,
    world: World = ALONE,
    kept: KeptPixels | None = None,
) -> Side:
    """Embed all images and texts as they are; several processes share the groups, and all get all."""
    load = partial(load_pixels, model, pairs) if kept is None else kept
    images: Tensor | None = None
    mine = groups[world.rank :: world.size]
    with progress.task(f"Embed {pairs.name}", total=sum(map(len, mine))) as task:
        for ids, pixels in zip(mine, ahead(load, mine), strict=True):
            part = encode_images(model, pixels, batch_size=batch_size, device=device)
            if images is None:
                images = part.new_empty(len(pairs.images), part.shape[1])
            images[torch.from_numpy(ids).to(device)] = part
            task.advance(len(ids))
    if world.size > 1:
        images = _of_all(world, images, groups)
    texts = encode_texts(model, pairs.texts, batch_size=4 * batch_size, world=world)
    if images is None:
        raise ValueError(f"Expected images to embed, but {pairs.name} has none.")
    if images.shape[1] != texts.shape[1]:
        raise ValueError(
            f"Expected images and texts in one space, but {model.name} gives {images.shape[1]} and "
            f"{texts.shape[1]} dimensions."
        )
    return Side(images, texts, load, pairs.texts)


def _of_all(
    world: World, own: Float[Tensor, "images dim"] | None, groups: Sequence[Int64[np.ndarray, " _"]]
) -> Float[Tensor, "images dim"] | None:
    """Return the rows of all processes, each of which has those of its groups; one with none of them has None."""
    ids = [np.concatenate([np.empty(0, np.int64), *groups[rank :: world.size]]) for rank in range(world.size)]
    parts = world.every(None if own is None else own[torch.from_numpy(ids[world.rank]).to(own.device)].cpu())
    some = next((part for part in parts if part is not None), None)
    if some is None:
        return None
    device = own.device if own is not None else torch.device("cpu")
    found = some.new_empty(sum(map(len, ids)), some.shape[1])
    for rows, part in zip(ids, parts, strict=True):
        if part is not None:
            found[torch.from_numpy(rows)] = part
    return found.to(device)


def attacked_texts(
    model: VisionLanguageModel,
    clean: Float[Tensor, "texts dim"],
    source: Sequence[str],
    texts: Sequence[str],
    *,
    batch_size: int,
    world: World = ALONE,
) -> Float[Tensor, "texts dim"]:
    """Embed adversarial texts, each that the model reads differently once.

    Texts that it cannot tell apart share one embedding, so that their scores tie exactly; one that it reads as some
    clean text takes that text's embedding.

    Args:
        model: the model.
        clean: embeddings of the clean texts.
        source: the clean texts.
        texts: the adversarial texts, one per clean text.
        batch_size: texts at a time.
        world: the processes that share the batches.
    """
    strings = [*source, *texts]
    same = same_tokens(model, strings)
    new = np.setdiff1d(same, np.arange(len(source)))
    known = clean
    if len(new):
        known = torch.cat([clean, encode_texts(model, [strings[i] for i in new], batch_size=batch_size, world=world)])
    place = np.where(same < len(source), same, len(source) + np.searchsorted(new, same))
    return known[torch.from_numpy(place[len(source) :]).to(known.device)]


def _checked(embeddings: Tensor, expected: int, method: str) -> Tensor:
    if embeddings.ndim != 2 or len(embeddings) != expected:
        raise ValueError(f"Expected `{method}` to give [{expected}, dim] embeddings, but got {list(embeddings.shape)}.")
    return embeddings
