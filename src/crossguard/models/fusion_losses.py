"""Losses of fusion models, as pure functions (ALBEF: Li et al., 2021; BLIP: Li et al., 2022; sections 3)."""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn.functional import cross_entropy


def soft_targets(
    positives: Bool[Tensor, "rows columns"],
    momentum_logits: Float[Tensor, "rows columns"],
    *,
    alpha: float,
) -> Float[Tensor, "rows columns"]:
    """Mix the true pairs, with equal shares, with what the momentum model believes (ALBEF, eq. 6).

    Args:
        positives: the true pairs; at least one per row.
        momentum_logits: similarities of the momentum model over the temperature.
        alpha: share of the momentum model's belief, in [0, 1].

    Returns:
        Probabilities; every row sums to 1.

    Raises:
        ValueError: a row without a positive, or `alpha` outside [0, 1].
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"Expected `alpha` in [0, 1], but got {alpha!r}.")
    counts = positives.sum(dim=1, keepdim=True)
    if not bool(counts.all()):
        raise ValueError(
            f"Expected a true pair in every row, but {int((counts == 0).sum())} of {len(counts)} have none."
        )
    return alpha * momentum_logits.softmax(dim=1) + (1 - alpha) * positives.to(momentum_logits.dtype) / counts


def soft_cross_entropy(
    logits: Float[Tensor, "rows columns"], targets: Float[Tensor, "rows columns"]
) -> Float[Tensor, " rows"]:
    """Return each row's cross-entropy with its target distribution, in nats."""
    return -(targets * logits.log_softmax(dim=1)).sum(dim=1)


def draw_negatives(
    logits: Float[Tensor, "rows columns"],
    positives: Bool[Tensor, "rows columns"],
    *,
    generator: torch.Generator,
) -> Int64[Tensor, "pairs 2"]:
    """Draw one hard negative per row: a column that is no true pair, by the softmax of the logits over such columns.

    Args:
        logits: similarities over the temperature; no gradient flows through the draw.
        positives: all true pairs.
        generator: the source of randomness, on the CPU.

    Returns:
        int64 [pairs, 2] of (row, column); a row whose columns are all true pairs has none.
    """
    rows = torch.nonzero(~positives.all(dim=1))[:, 0]
    if not len(rows):
        return torch.empty(0, 2, dtype=torch.int64, device=logits.device)
    # Masked before the softmax: a confident true pair must not leave zero weight to all the others.
    chances = logits.detach()[rows].float().masked_fill(positives[rows], -torch.inf).softmax(dim=1)
    columns = torch.multinomial(chances.cpu(), 1, generator=generator)[:, 0].to(logits.device)
    return torch.stack([rows, columns], dim=1)


def matching_loss(
    positive_logits: Float[Tensor, "matched 2"], negative_logits: Float[Tensor, "unmatched 2"]
) -> Float[Tensor, ""]:
    """Return the mean cross-entropy of matched pairs with class 1 and of unmatched ones with class 0 (ITM)."""
    labels = torch.ones(len(positive_logits) + len(negative_logits), dtype=torch.int64, device=positive_logits.device)
    labels[len(positive_logits) :] = 0
    return cross_entropy(torch.cat([positive_logits, negative_logits]).float(), labels)
