"""Contrastive losses over a matrix of logits with any number of true pairs per row, and distances of embeddings.

Pure functions: logits or embeddings in, a scalar or one value per image out, differentiable. Three views of "several
positives" stand side by side, all equal to CLIP's cross-entropy when every row and column has one positive:

- *summed* (`contrastive`): every true pair is a target, with equal shares (the "out" form of SupCon, Khosla et al.,
  2020, eq. 2, in both directions);
- *drawn* (`draw_targets`, then `contrastive` with the other true pairs in `ignored`): one true pair per row is the
  target, the others are neither target nor negative. Its mean over draws pulls each positive against the negatives
  alone, so positives do not compete with each other;
- *own pair only* (`contrastive` with the identity as `positives`): other true pairs count as negatives, unless they
  are `ignored`.
"""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

_checked: Any = WeakIdKeyDictionary()
"""Masks that were looked at, and what they were then: on a GPU every look waits for all that is under way."""


def contrastive(
    logits: Float[Tensor, "images texts"],
    positives: Bool[Tensor, "images texts"],
    *,
    ignored: Bool[Tensor, "images texts"] | None = None,
) -> Float[Tensor, ""]:
    """Return the symmetric multi-positive InfoNCE loss.

    The mean over images of the cross-entropy between softmax over texts and the uniform distribution over the image's
    true texts, and the same over texts, each half. Rows and columns without a positive are left out of the means but
    stay as negatives for the others.

    Args:
        logits: scaled similarities.
        positives: the targets; at least one.
        ignored: pairs that are neither target nor negative; they leave the softmax.

    Returns:
        A scalar in nats, >= 0.

    Raises:
        ValueError: shapes differ, there is no positive, or a pair is both positive and ignored.

    Example:
        >>> logits = torch.tensor([[2.0, 0.0], [0.0, 2.0]])
        >>> round(contrastive(logits, torch.eye(2).bool()).item(), 4)
        0.1269
    """
    _check(logits, positives, ignored)
    by_image = _direction(logits, positives, ignored)
    by_text = _direction(logits.T, positives.T, None if ignored is None else ignored.T)
    return (_mean(by_image, positives.any(dim=1)) + _mean(by_text, positives.any(dim=0))) / 2


def contrastive_by_image(
    logits: Float[Tensor, "images texts"],
    positives: Bool[Tensor, "images texts"],
    *,
    ignored: Bool[Tensor, "images texts"] | None = None,
) -> Float[Tensor, " images"]:
    """Return the part of `contrastive` that each image answers for, for attacks that keep the best iterate per image.

    Half the image's own cross-entropy plus half the mean of its true texts' cross-entropies; 0 for an image without a
    positive. With one positive per row and column the mean over images is `contrastive`.

    Args:
        logits: scaled similarities.
        positives: the targets; at least one.
        ignored: pairs that are neither target nor negative.

    Raises:
        ValueError: as `contrastive`.
    """
    _check(logits, positives, ignored)
    by_image = _direction(logits, positives, ignored)
    by_text = _direction(logits.T, positives.T, None if ignored is None else ignored.T)
    shares = positives.to(logits.dtype) / positives.sum(dim=1, keepdim=True).clamp(min=1)
    return (by_image + shares @ by_text) / 2


def draw_targets(
    positives: Bool[Tensor, "images texts"], *, generator: torch.Generator
) -> Bool[Tensor, "images texts"]:
    """Draw one positive per row, uniformly; rows without any stay empty.

    For the other direction draw from `positives.T` and transpose the answer.

    Args:
        positives: all true pairs, on the device of `generator`.
        generator: the source of randomness.
    """
    keys = torch.rand(positives.shape, generator=generator, device=positives.device)
    chosen = keys.masked_fill(~positives, -1.0).argmax(dim=1, keepdim=True)
    return torch.zeros_like(positives).scatter(1, chosen, True) & positives


def contrastive_drawn(
    logits: Float[Tensor, "images texts"],
    positives: Bool[Tensor, "images texts"],
    *,
    generator: torch.Generator,
) -> Float[Tensor, ""]:
    """Return the *drawn* loss: per image and per text one true pair is the target, the others leave the softmax.

    Args:
        logits: scaled similarities.
        positives: all true pairs, at least one.
        generator: the source of randomness, on the CPU.

    Raises:
        ValueError: shapes differ or there is no positive.
    """
    _check(logits, positives, None)
    on_cpu = positives.cpu()
    rows = draw_targets(on_cpu, generator=generator).to(logits.device)
    columns = draw_targets(on_cpu.T, generator=generator).to(logits.device)
    by_image = _direction(logits, rows, positives & ~rows)
    by_text = _direction(logits.T, columns, positives.T & ~columns)
    return (_mean(by_image, rows.any(dim=1)) + _mean(by_text, columns.any(dim=1))) / 2


def embedding_l2(
    embeddings: Float[Tensor, "samples dim"], reference: Float[Tensor, "samples dim"]
) -> Float[Tensor, " samples"]:
    """Return the squared Euclidean distance of each embedding from its reference (FARE, Schlarmann et al., 2024).

    The embeddings are taken as the model gives them, not scaled to unit length; the reference gets no gradient.
    """
    return (embeddings - reference.detach()).square().sum(dim=1)


def _check(
    logits: Float[Tensor, "images texts"],
    positives: Bool[Tensor, "..."],
    ignored: Bool[Tensor, "..."] | None,
) -> None:
    for name, mask in (("positives", positives), ("ignored", ignored)):
        if mask is not None and mask.shape != logits.shape:
            raise ValueError(
                f"Expected `{name}` of the logits' shape {tuple(logits.shape)}, but got {tuple(mask.shape)}."
            )
    if positives.is_inference() or (ignored is not None and ignored.is_inference()):  # these have no versions
        _refuse(positives, ignored)
        return
    known = (positives._version, None if ignored is None else (id(ignored), ignored._version))
    if _checked.get(positives) == known:  # attacks ask with the same masks at every step
        return
    _refuse(positives, ignored)
    _checked[positives] = known


def _refuse(positives: Bool[Tensor, "..."], ignored: Bool[Tensor, "..."] | None) -> None:
    if not positives.any():
        raise ValueError("Expected at least one true pair in `positives`, but got none.")
    if ignored is not None and (positives & ignored).any():
        raise ValueError(
            f"Expected no pair both in `positives` and in `ignored`, but {int((positives & ignored).sum())} are."
        )


def _direction(
    logits: Float[Tensor, "rows columns"],
    targets: Bool[Tensor, "rows columns"],
    ignored: Bool[Tensor, "rows columns"] | None,
) -> Float[Tensor, " rows"]:
    """Cross-entropy of each row with the uniform distribution over its targets; 0 where it has none."""
    logits = logits.float()
    if ignored is not None:
        # The lowest finite number, not -inf: a row that is all ignored must give 0, not NaN, in its gradient too.
        logits = logits.masked_fill(ignored, torch.finfo(logits.dtype).min)
    surprise = -torch.log_softmax(logits, dim=1)
    return surprise.masked_fill(~targets, 0.0).sum(dim=1) / targets.sum(dim=1).clamp(min=1)


def _mean(losses: Float[Tensor, " rows"], counted: Bool[Tensor, " rows"]) -> Float[Tensor, ""]:
    return losses.sum() / counted.sum()
