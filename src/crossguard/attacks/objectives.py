"""What attacks maximise: pure functions of embeddings, one value per sample, so that samples never depend on a batch.

Higher is worse for the victim. Losses over whole batches, which training minimises, are in `models.losses`.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import normalize


def mean_partner(
    features: Float[Tensor, "others dim"], links: Bool[Tensor, "samples others"]
) -> Float[Tensor, "samples dim"]:
    """Return per sample the mean unit embedding of its partners; zero for a sample without any.

    The mean cosine with all partners is the inner product of a sample's unit embedding with this vector.
    """
    weights = links.to(features.dtype)
    return (weights @ normalize(features, dim=-1)) / weights.sum(dim=1, keepdim=True).clamp(min=1)


def misalignment(
    embeddings: Float[Tensor, "samples dim"], partners: Float[Tensor, "samples dim"]
) -> Float[Tensor, " samples"]:
    """Return minus the mean cosine with the partners, in [-1, 1]; `partners` as of `mean_partner`."""
    return -(normalize(embeddings, dim=-1) * partners).sum(dim=-1)


def contrastive_per_sample(
    logits: Float[Tensor, "samples others"], positives: Bool[Tensor, "samples others"]
) -> Float[Tensor, " samples"]:
    """Return each sample's cross-entropy, averaged over its partners, against all others of the batch.

    InfoNCE with several positives (SupCon's L_out; Khosla et al., 2020, eq. 2). Zero for a sample without partners.
    """
    log_probability = logits.log_softmax(dim=-1).masked_fill(~positives, 0.0)
    return -log_probability.sum(dim=-1) / positives.sum(dim=-1).clamp(min=1)


def unit(embeddings: Float[Tensor, "samples dim"]) -> Float[Tensor, "samples dim"]:
    """Scale embeddings to length one."""
    return normalize(embeddings, dim=-1)


def links_of_texts(positives: Bool[Tensor, "images texts"]) -> Bool[Tensor, "texts images"]:
    """Return the links seen from the texts."""
    return positives.T.to(torch.bool)
