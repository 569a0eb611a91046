"""Leaving patch tokens out of a transformer's sequence."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def keep_tokens(
    tokens: Float[Tensor, "images patches width"], kept: Bool[Tensor, "images patches"]
) -> tuple[Float[Tensor, "images most width"], Bool[Tensor, "images most"] | None]:
    """Return the kept tokens of each image in their order, padded with zeros to the most that an image keeps.

    Args:
        tokens: patch tokens, positions already added.
        kept: which of them stay.

    Returns:
        The tokens, and which of them are real; None where all are, because every image keeps as many.

    Raises:
        ValueError: `kept` does not have one entry per patch.

    Example:
        >>> tokens, mask = keep_tokens(torch.arange(6.0).view(2, 3, 1), torch.tensor([[1, 0, 1], [0, 1, 0]]).bool())
        >>> tokens[..., 0].tolist(), mask.tolist()
        ([[0.0, 2.0], [4.0, 0.0]], [[True, True], [True, False]])
    """
    if kept.shape != tokens.shape[:2]:
        raise ValueError(f"Expected `kept` [images, patches] = {list(tokens.shape[:2])}, but got {list(kept.shape)}.")
    counts = kept.sum(dim=1)
    most = int(counts.max())
    # Stable: the kept ones come first, in the order of their positions.
    order = torch.argsort(~kept, dim=1, stable=True)[:, :most]
    chosen = tokens.gather(1, order.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))
    mask = torch.arange(most, device=kept.device) < counts.unsqueeze(1)
    if bool(mask.all()):
        return chosen, None
    # Not a product with the mask: a dropped patch may hold NaN.
    return chosen.masked_fill(~mask.unsqueeze(-1), 0.0), mask


def additive(
    mask: Bool[Tensor, "images tokens"] | None, dtype: torch.dtype
) -> Float[Tensor, "images 1 1 tokens"] | None:
    """Return what Transformers adds to attention scores: 0 where the mask is True, the lowest number elsewhere."""
    if mask is None:
        return None
    scores = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
    return scores.masked_fill(~mask, torch.finfo(dtype).min)[:, None, None, :]
