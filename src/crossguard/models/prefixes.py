"""Encoding many texts that begin alike: a causal transformer computes every different beginning once.

In a causal text tower a token's state depends on the tokens before it alone. Variants of one caption (a word hidden or
replaced) share all states before the change, so that states are computed per *beginning* (a node of the tokens' prefix
tree), not per token; padding costs nothing, and the last layer is computed for the pooled token alone.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from crossguard.models.base import Tokens


@dataclass(frozen=True)
class Beginnings:
    """The different beginnings of some token rows.

    Args:
        node: int64 [texts, length], which beginning ends at a token; 0 after the end of a text.
        first: int64 [beginnings], where each is seen first, as an index into the flattened rows.
        tokens: int64 [beginnings], the last token of each.
        depth: int64 [beginnings], its position.
        end: int64 [texts], the position of every text's last token.
    """

    node: Int64[np.ndarray, "texts length"]
    first: Int64[np.ndarray, " beginnings"]
    tokens: Int64[np.ndarray, " beginnings"]
    depth: Int64[np.ndarray, " beginnings"]
    end: Int64[np.ndarray, " texts"]


def beginnings(ids: Int64[np.ndarray, "texts length"], end: Int64[np.ndarray, " texts"]) -> Beginnings:
    """Number the different beginnings of token rows, up to each row's `end` (included).

    Example:
        >>> found = beginnings(np.array([[5, 6, 7], [5, 6, 8], [5, 9, 0]]), np.array([2, 2, 1]))
        >>> len(found.first), found.node.tolist()
        (5, [[0, 1, 3], [0, 1, 4], [0, 2, 0]])
    """
    texts, length = ids.shape
    node = np.zeros((texts, length), dtype=np.int64)
    parent = np.zeros(texts, dtype=np.int64)
    first, tokens, depth = [], [], []
    known = 0
    for position in range(length):
        rows = np.flatnonzero(end >= position)
        if not len(rows):
            break
        keys = parent[rows] * (1 + int(ids.max())) + ids[rows, position]
        _, seen, which = np.unique(keys, return_index=True, return_inverse=True)
        node[rows, position] = parent[rows] = known + which.ravel()
        first.append(rows[seen] * length + position)
        tokens.append(ids[rows[seen], position])
        depth.append(np.full(len(seen), position))
        known += len(seen)
    return Beginnings(node, np.concatenate(first), np.concatenate(tokens), np.concatenate(depth), end)


@torch.no_grad()
def pool_by_beginnings(
    text_model: Any, tokens: Tokens, *, tokens_at_once: int | None = None
) -> Float[Tensor, "texts width"] | None:
    """Return what Transformers' `CLIPTextModel` pools, to rounding, without gradients.

    Args:
        text_model: the text tower, in evaluation mode.
        tokens: rows padded at their right; most are variants of each other where this is to be of use.
        tokens_at_once: the most tokens, padding included, whose attention is computed at a time; default: by the
            device (little on a CPU, so that activations stay in a core's cache).

    Returns:
        float [texts, width], or None where rows are not padded at their right.
    """
    if tokens_at_once is None:
        tokens_at_once = 2048 if text_model.device.type == "cpu" else 2**16
    mask = tokens.mask.cpu().numpy()
    if not _right_padded(mask):
        return None
    ids = tokens.ids.cpu().numpy()
    early = text_model.eos_token_id == 2 and text_model.config.model_type == "clip_text_model"
    end = _pooled_position(ids, eos=text_model.eos_token_id, early=early)
    # Rows that begin alike come together, so that a slice holds few different beginnings.
    order = np.lexsort(ids.T[::-1])
    parts = []
    longest = end[order] + 1
    start = 0
    while start < len(order):
        stop, most = start + 1, int(longest[start])
        while stop < len(order) and max(most, int(longest[stop])) * (stop + 1 - start) <= tokens_at_once:
            most = max(most, int(longest[stop]))
            stop += 1
        rows = order[start:stop]
        parts.append(_pool(text_model, beginnings(ids[rows, :most], end[rows])))
        start = stop
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    pooled = torch.cat(parts)
    return pooled[torch.from_numpy(rank).to(pooled.device)]


def _pool(text_model: Any, tree: Beginnings) -> Float[Tensor, "texts width"]:
    embeddings = text_model.embeddings
    device = embeddings.token_embedding.weight.device
    node, first, ids, depth, end = (
        torch.from_numpy(values).to(device) for values in (tree.node, tree.first, tree.tokens, tree.depth, tree.end)
    )
    texts, length = node.shape
    last = node[torch.arange(texts, device=device), end]
    until = (torch.arange(length, device=device) <= end[:, None])[:, None, None, :]
    states = embeddings.token_embedding(ids) + embeddings.position_embedding(depth)
    *layers, top = text_model.encoder.layers
    for layer in layers:
        normal = layer.layer_norm1(states)
        heard = _attend(layer.self_attn, normal, normal, node, node, None)
        states = states + layer.self_attn.out_proj(heard.flatten(0, 1)[first])
        states = states + layer.mlp(layer.layer_norm2(states))
    normal = top.layer_norm1(states)
    heard = _attend(top.self_attn, normal[last], normal, torch.arange(texts, device=device)[:, None], node, until)
    pooled = states[last] + top.self_attn.out_proj(heard.flatten(0, 1))
    pooled = pooled + top.mlp(top.layer_norm2(pooled))
    result: Tensor = text_model.final_layer_norm(pooled)
    return result


def _attend(
    attention: Any,
    asking: Float[Tensor, "queries width"],
    states: Float[Tensor, "beginnings width"],
    query_of: Int64[Tensor, "texts asked"],
    node: Int64[Tensor, "texts length"],
    mask: Bool[Tensor, "texts 1 1 length"] | None,
) -> Float[Tensor, "texts asked width"]:
    """Attention of rows whose queries, keys and values are computed once per beginning; causal without a mask."""

    def heads(values: Float[Tensor, "some width"], where: Int64[Tensor, "texts places"]) -> Tensor:
        return values[where].unflatten(-1, (attention.num_heads, attention.head_dim)).transpose(1, 2)

    heard = scaled_dot_product_attention(
        heads(attention.q_proj(asking), query_of),
        heads(attention.k_proj(states), node),
        heads(attention.v_proj(states), node),
        attn_mask=mask,
        is_causal=mask is None,
        scale=attention.scale,
    )
    return heard.transpose(1, 2).flatten(2)


def _right_padded(mask: Bool[np.ndarray, "texts length"]) -> bool:
    return bool((mask[:, :-1] >= mask[:, 1:]).all() and mask[:, 0].all())


def _pooled_position(ids: Int64[np.ndarray, "texts length"], *, eos: int, early: bool) -> Int64[np.ndarray, " texts"]:
    """Where `CLIPTextModel` pools: the first end of text, or the highest id for checkpoints of its early days."""
    return np.asarray(ids.argmax(axis=1) if early else (ids == eos).argmax(axis=1))
