"""Encoding without gradients: equal token sequences once, sorted by length, a few large forwards; images."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from crossguard.models import Tokens, VisionLanguageModel

_TOKENS_PER_FORWARD = {"cpu": 1536}
"""Small enough for activations to stay in a core's cache; other devices want large forwards."""
_ON_ACCELERATORS = 2**16


def encode_unit_texts(
    model: VisionLanguageModel, texts: Sequence[str], *, tokens_per_forward: int | None = None
) -> Float[Tensor, "texts dim"]:
    """Return embeddings of texts as of `encode_texts`, scaled to length one."""
    return normalize(encode_texts(model, texts, tokens_per_forward=tokens_per_forward), dim=-1)


@runtime_checkable
class EncodesVariants(Protocol):
    """A model that embeds texts which mostly begin alike faster than one by one."""

    def encode_variants(self, tokens: Tokens) -> Float[Tensor, "texts dim"]:
        """Embed tokens as `encode_text` does, to rounding, without gradients."""
        ...


@torch.no_grad()
def encode_texts(
    model: VisionLanguageModel, texts: Sequence[str], *, tokens_per_forward: int | None = None
) -> Float[Tensor, "texts dim"]:
    """Return embeddings of texts, without gradients, as float32.

    Texts that are the same to the model (equal tokens) are encoded once and get the very same embedding, so that they
    tie exactly. Sequences of like length go together, so that little is spent on padding.

    Args:
        model: the text encoder; call it in evaluation mode.
        texts: at least one text.
        tokens_per_forward: the most tokens, padding included, of one forward; default: by the device. A model that
            `EncodesVariants` decides itself.
    """
    if tokens_per_forward is None:
        device = model.logit_scale.device.type
        tokens_per_forward = _TOKENS_PER_FORWARD.get(device, _ON_ACCELERATORS)
    different = list(dict.fromkeys(texts))
    tokens = model.tokenize(different)
    ids, masks, inverse = _distinct_rows(tokens)
    position = dict(zip(different, inverse.tolist(), strict=True))
    # Full precision also under autocast: candidates differ by less than bfloat16 resolves.
    with torch.autocast(model.logit_scale.device.type, enabled=False):
        if isinstance(model, EncodesVariants):
            encoded = model.encode_variants(Tokens(torch.from_numpy(ids), torch.from_numpy(masks))).float()
        else:
            encoded = _encode_by_length(model, ids, masks, tokens_per_forward)
    return encoded[torch.tensor([position[text] for text in texts], device=encoded.device)]


def _encode_by_length(
    model: VisionLanguageModel,
    ids: "np.ndarray[tuple[int, int], np.dtype[np.int64]]",
    masks: "np.ndarray[tuple[int, int], np.dtype[np.bool_]]",
    tokens_per_forward: int,
) -> Float[Tensor, "texts dim"]:
    lengths = masks.sum(axis=1)
    order = np.argsort(lengths, kind="stable")
    parts, start = [], 0
    while start < len(order):
        # The last sequence of a forward is its longest: take as many as fit.
        stop = start + 1
        while stop < len(order) and int(lengths[order[stop]]) * (stop + 1 - start) <= tokens_per_forward:
            stop += 1
        rows = order[start:stop]
        used = masks[rows].any(axis=0)
        chunk = Tokens(torch.from_numpy(ids[rows][:, used]), torch.from_numpy(masks[rows][:, used]))
        parts.append(model.encode_text(chunk).float())
        start = stop
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    encoded = torch.cat(parts)
    return encoded[torch.from_numpy(rank).to(encoded.device)]


@torch.no_grad()
def encode_images(
    model: VisionLanguageModel, pixels: Float[Tensor, "images 3 height width"]
) -> Float[Tensor, "images dim"]:
    """Return embeddings of images, without gradients, in float32 also under autocast."""
    with torch.autocast(pixels.device.type, enabled=False):
        return model.encode_image(pixels).float()


def _distinct_rows(
    tokens: Tokens,
) -> tuple[
    "np.ndarray[tuple[int, int], np.dtype[np.int64]]",
    "np.ndarray[tuple[int, int], np.dtype[np.bool_]]",
    "np.ndarray[tuple[int], np.dtype[np.intp]]",
]:
    """Return the different token rows, their masks, and for every text the index of its row."""
    masks = tokens.mask.numpy()
    ids = tokens.ids.numpy()
    # What padding holds does not matter; 0 tells it from every token. Bytes, high ones first, sort as the numbers do.
    keys = np.where(masks, ids + 1, 0).astype(">u4")
    rows = keys.view(f"S{4 * keys.shape[1]}").ravel()
    _, first, inverse = np.unique(rows, return_index=True, return_inverse=True)
    return ids[first], masks[first], inverse.ravel()
