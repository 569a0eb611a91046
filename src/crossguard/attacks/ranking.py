"""The score that retrieval ranks by, for two towers and for fusion models alike.

Two towers rank by the cosine. A fusion model compares its match logits (plus the cosine for BLIP) among the nearest by
cosine; here, among the own partners and the `negatives` nearest others of every image and of every text of a batch.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from crossguard.attacks.ascent import LossPerSample, Pixels
from crossguard.attacks.encode import encode_texts
from crossguard.attacks.objectives import product, unit
from crossguard.models import FusionModel, States, Tokens, VisionLanguageModel
from crossguard.models.losses import contrastive_by_image

NEGATIVES = 4
"""How many negatives of every image and of every text a fusion model is asked about."""
_PAIRS_PER_FORWARD, _TEXTS_PER_FORWARD = 512, 256


def image_states(model: VisionLanguageModel, pixels: Pixels) -> States:
    """Encode images once for all that asks about them; differentiable. Two towers have no states beside embeddings."""
    if isinstance(model, FusionModel):
        return model.encode_image_states(pixels)
    return _embedded(model.encode_image(pixels))


@torch.no_grad()
def text_states(model: VisionLanguageModel, texts: Sequence[str]) -> States:
    """Encode texts, without gradients, as `image_states` does images."""
    if not isinstance(model, FusionModel):
        return _embedded(encode_texts(model, texts))
    tokens = model.tokenize(list(texts))
    parts = [
        model.encode_text_states(Tokens(ids, mask))
        for ids, mask in zip(tokens.ids.split(_TEXTS_PER_FORWARD), tokens.mask.split(_TEXTS_PER_FORWARD), strict=True)
    ]
    return States(*(torch.cat([getattr(part, field) for part in parts]) for field in ("hidden", "mask", "embedding")))


def _embedded(embeddings: Float[Tensor, "samples dim"]) -> States:
    samples = len(embeddings)
    return States(embeddings.new_empty(samples, 0, 0), embeddings.new_empty(samples, 0, dtype=torch.bool), embeddings)


def cosines(images: States, texts: States) -> Float[Tensor, "images texts"]:
    """Return the cosine of every image with every text."""
    return product(unit(images.embedding.float()), unit(texts.embedding.float()).T)


def contested(
    similarity: Float[Tensor, "images texts"], positives: Bool[Tensor, "images texts"], *, negatives: int
) -> Bool[Tensor, "images texts"]:
    """Mark the true pairs, and the others most similar to each image and to each text."""
    marked = positives.clone()
    strangers = similarity.detach().float().masked_fill(positives, -torch.inf)
    for dim, size in ((1, similarity.shape[1]), (0, similarity.shape[0])):
        nearest = strangers.topk(min(negatives, size), dim=dim).indices
        marked.scatter_(dim, nearest, True)
    return marked


def match_scores(
    model: FusionModel, images: States, texts: States, pairs: Int64[Tensor, "pairs 2"]
) -> Float[Tensor, " pairs"]:
    """Return what a fusion model ranks chosen pairs by: the match logit, plus the cosine where it says so."""
    scores = match_logits(model, images, texts, pairs)[:, 1]
    if model.rank_adds_cosine:
        scores = scores + cosines(images, texts)[pairs[:, 0], pairs[:, 1]]
    return scores


def match_logits(
    model: FusionModel, images: States, texts: States, pairs: Int64[Tensor, "pairs 2"]
) -> Float[Tensor, "pairs 2"]:
    """Return the logits (no match, match) in float32, some pairs at a time."""
    return torch.cat([model.match(images, texts, part).float() for part in pairs.split(_PAIRS_PER_FORWARD)])


def ranking_scores(
    model: VisionLanguageModel, images: States, texts: States, scored: Bool[Tensor, "images texts"]
) -> Float[Tensor, "images texts"]:
    """Return the scores that retrieval ranks by, as logits; pairs outside `scored` are as low as can be.

    Two towers answer for all pairs, whatever `scored` says.
    """
    if not isinstance(model, FusionModel):
        return model.logit_scale.detach() * cosines(images, texts)
    pairs = scored.nonzero()
    lowest = torch.full(scored.shape, torch.finfo(torch.float32).min, device=scored.device)
    return lowest.index_put((pairs[:, 0], pairs[:, 1]), match_scores(model, images, texts, pairs))


def ranking_loss(
    model: VisionLanguageModel,
    positives: Bool[Tensor, "images texts"],
    texts: States,
    *,
    negatives: int = NEGATIVES,
) -> LossPerSample:
    """Return the loss of images by what retrieval ranks by, against fixed texts.

    The cross-entropy of the true partners among all of the batch by the cosine, in both directions; and, for a fusion
    model, the same by the ranking's score among the contested pairs.

    Args:
        model: the victim.
        positives: the true pairs.
        texts: of `text_states`.
        negatives: others that make pairs contested, see `contested`.
    """
    scale = model.logit_scale.detach()

    def loss(pixels: Pixels) -> Float[Tensor, " images"]:
        images = image_states(model, pixels)
        similarity = cosines(images, texts)
        value = contrastive_by_image(scale * similarity, positives)
        if isinstance(model, FusionModel):
            scored = contested(similarity, positives, negatives=negatives)
            value = value + contrastive_by_image(
                ranking_scores(model, images, texts, scored), positives, ignored=~scored
            )
        return value

    return loss
