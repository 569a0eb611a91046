"""What attacks maximise: pure functions of embeddings, one value per sample, so that samples never depend on a batch.

Higher is worse for the victim. Losses over whole batches, which training minimises, are in `models.losses`.
"""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import normalize

Objective = Literal["cosine", "contrastive", "ranking", "match", "distance"]
"""What an attack may raise; see `image_loss` and `text_score`."""


def linked_mean(
    values: Float[Tensor, "others dim"], links: Bool[Tensor, "samples others"]
) -> Float[Tensor, "samples dim"]:
    """Return per sample the mean of its partners' values; zero for a sample without any."""
    weights = links.to(values.dtype)
    return product(weights, values) / weights.sum(dim=1, keepdim=True).clamp(min=1)


def mean_partner(
    features: Float[Tensor, "others dim"], links: Bool[Tensor, "samples others"]
) -> Float[Tensor, "samples dim"]:
    """Return per sample the mean unit embedding of its partners; zero for a sample without any.

    The mean cosine with all partners is the inner product of a sample's unit embedding with this vector.
    """
    return linked_mean(unit(features), links)


def misalignment(
    embeddings: Float[Tensor, "samples dim"], partners: Float[Tensor, "samples dim"]
) -> Float[Tensor, " samples"]:
    """Return minus the mean cosine with the partners, in [-1, 1]; `partners` as of `mean_partner`."""
    return -(normalize(embeddings, dim=-1) * partners).sum(dim=-1)


def unit(embeddings: Float[Tensor, "samples dim"]) -> Float[Tensor, "samples dim"]:
    """Scale embeddings to length one."""
    return normalize(embeddings, dim=-1)


def product(a: Float[Tensor, "rows inner"], b: Float[Tensor, "inner columns"]) -> Float[Tensor, "rows columns"]:
    """Multiply matrices in float32 also under autocast: similarities in bfloat16 would tie what differs."""
    with torch.autocast(a.device.type, enabled=False):
        return a.float() @ b.float()


def divergence(
    reference: Float[Tensor, "samples dim"], embeddings: Float[Tensor, "samples dim"]
) -> Float[Tensor, " samples"]:
    """Return KL(softmax of the reference || softmax of the embedding) per sample, in nats (Co-Attack's distance)."""
    p = reference.detach().float().softmax(dim=-1)
    return (torch.xlogy(p, p) - p * embeddings.float().log_softmax(dim=-1)).sum(dim=-1)
