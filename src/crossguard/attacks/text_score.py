"""How texts are scored for the images that they belong to: what text attacks lower."""

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from crossguard.attacks.encode import encode_images, encode_texts, encode_unit_texts
from crossguard.attacks.objectives import Objective, divergence, linked_mean, product, unit
from crossguard.attacks.ranking import (
    NEGATIVES,
    contested,
    cosines,
    image_states,
    match_logits,
    match_scores,
    text_states,
)
from crossguard.data import PairBatch
from crossguard.models import FusionModel, VisionLanguageModel
from crossguard.models.losses import embedding_l2

Scores = Float[np.ndarray, " variants"]


@runtime_checkable
class TextScore(Protocol):
    """Scores variants of texts; lower is worse for the victim."""

    def __call__(self, texts: Sequence[str], owners: Sequence[int]) -> Scores:
        """Return one float32 score per variant.

        Args:
            texts: variants.
            owners: per variant, which text it is a variant of; the images come from that.
        """
        ...


def text_score(
    model: VisionLanguageModel,
    batch: PairBatch,
    pixels: Float[Tensor, "images 3 height width"],
    *,
    objective: Objective = "cosine",
) -> TextScore:
    """Return how variants of a batch's texts are scored under some pixels of its images, which are encoded once.

    Args:
        model: the victim, in evaluation mode.
        batch: gives the original texts and the links.
        pixels: clean or adversarial.
        objective: "cosine" is the mean cosine with the own images; "contrastive" the log-likelihood of the own images
            among all of the batch; "ranking" the same by the score that retrieval ranks by (for a fusion model, the
            match logits among own and nearest images, beside the cosine); "match" the log-probability that a text
            matches its own images; "distance" minus the squared distance from the embedding of the original (LEAF's
            loss), which asks for no image.

    Raises:
        ValueError: "match" for a model without fusion.
    """
    if objective == "distance":
        return DistanceScore(model, batch.texts)
    if objective == "match" or (objective == "ranking" and isinstance(model, FusionModel)):
        return MatchScore(as_fusion(model), batch, pixels, among_nearest=objective == "ranking")
    return EmbeddingScore(model, encode_images(model, pixels), batch.positives, among_all=objective != "cosine")


def as_fusion(model: VisionLanguageModel) -> FusionModel:
    """Return a model that matches pairs.

    Raises:
        ValueError: it does not.
    """
    if not isinstance(model, FusionModel):
        raise ValueError(f"Expected a fusion model for objective 'match', but {model.name!r} has no match logit.")
    return model


class EmbeddingScore:
    """The mean cosine with the own images, or the log-likelihood of these among all images.

    Args:
        model: the victim, in evaluation mode.
        image_features: embeddings of images, constant.
        positives: the links.
        among_all: whether to take the log-likelihood.
    """

    def __init__(
        self,
        model: VisionLanguageModel,
        image_features: Float[Tensor, "images dim"],
        positives: Bool[Tensor, "images texts"],
        *,
        among_all: bool,
    ) -> None:
        self.model = model
        self.images = unit(image_features.float())
        self.partners = linked_mean(self.images, positives.T)
        self.scale = float(model.logit_scale.detach()) if among_all else None

    def __call__(self, texts: Sequence[str], owners: Sequence[int]) -> Scores:
        """Score variants, see `TextScore`."""
        return self.of_embeddings(encode_unit_texts(self.model, texts), owners).cpu().numpy()

    def of_embeddings(
        self, features: Float[Tensor, "variants dim"], owners: Sequence[int]
    ) -> Float[Tensor, " variants"]:
        """Score unit embeddings of variants; differentiable."""
        own = (features * self.partners[list(owners)]).sum(dim=-1)
        if self.scale is not None:
            # In units of cosine, so that the margin of a change means the same.
            own = own - (self.scale * product(features, self.images.T)).logsumexp(dim=-1) / self.scale
        return own


class DistanceScore:
    """Minus the squared distance of a variant's embedding from its original's.

    Args:
        model: the victim, in evaluation mode.
        originals: the unchanged texts.
    """

    def __init__(self, model: VisionLanguageModel, originals: Sequence[str]) -> None:
        self.model, self.clean = model, encode_texts(model, originals)

    def __call__(self, texts: Sequence[str], owners: Sequence[int]) -> Scores:
        """Score variants, see `TextScore`."""
        return -embedding_l2(encode_texts(self.model, texts), self.clean[list(owners)]).cpu().numpy()


class DivergenceScore:
    """Minus KL(softmax(embedding of a variant) || softmax(embedding of its original)), in nats; asks for no image.

    The loss of texts in Co-Attack, and what ranks words in the published attacks that descend from it. Embeddings are
    taken as the model gives them, not scaled to length one (the descriptions that this follows do not say).

    Args:
        model: the victim, in evaluation mode.
        originals: the unchanged texts.
    """

    def __init__(self, model: VisionLanguageModel, originals: Sequence[str]) -> None:
        self.model, self.clean = model, encode_texts(model, originals)

    def __call__(self, texts: Sequence[str], owners: Sequence[int]) -> Scores:
        """Score variants, see `TextScore`."""
        return -divergence(encode_texts(self.model, texts), self.clean[list(owners)]).cpu().numpy()


class MatchScore:
    """How well a fusion model says that variants match the images of their originals.

    Args:
        model: the victim, in evaluation mode.
        batch: gives the originals and the links.
        pixels: of its images; encoded once.
        among_nearest: False is the mean log-probability of a match with the own images; True the log-likelihood of
            these by the ranking's score among them and the images nearest to the original, plus their log-likelihood
            by the cosine among all images.
    """

    @torch.no_grad()
    def __init__(
        self,
        model: FusionModel,
        batch: PairBatch,
        pixels: Float[Tensor, "images 3 height width"],
        *,
        among_nearest: bool,
    ) -> None:
        self.model, self.among_nearest = model, among_nearest
        self.images = image_states(model, pixels)
        self.own = self.asked = batch.positives.T
        if among_nearest:
            similarity = cosines(self.images, text_states(model, batch.texts))
            self.asked = contested(similarity, batch.positives, negatives=NEGATIVES).T

    @torch.no_grad()
    def __call__(self, texts: Sequence[str], owners: Sequence[int]) -> Scores:
        """Score variants, see `TextScore`."""
        return score_in_parts(self._score, texts, owners)

    def _score(self, variants: Sequence[tuple[str, int]]) -> Float[Tensor, " variants"]:
        states = text_states(self.model, [text for text, _ in variants])
        rows = torch.tensor([owner for _, owner in variants], device=self.own.device)
        own, asked = self.own[rows], self.asked[rows]
        pairs = asked.nonzero().flip(1)
        if not len(pairs):
            return torch.zeros(len(variants), device=self.own.device)
        if not self.among_nearest:
            sure = match_logits(self.model, self.images, states, pairs).log_softmax(dim=1)[:, 1]
            return own_mean(spread(sure, pairs, asked, empty=0.0), own)
        ranked = match_scores(self.model, self.images, states, pairs)
        nearest = spread(ranked, pairs, asked, empty=torch.finfo(ranked.dtype).min).log_softmax(dim=1)
        among_all = (self.model.logit_scale * cosines(self.images, states).T).log_softmax(dim=1)
        return own_mean(nearest, own) + own_mean(among_all, own)


def score_in_parts(
    score: Callable[[Sequence[tuple[str, int]]], Float[Tensor, " variants"]],
    texts: Sequence[str],
    owners: Sequence[int],
    *,
    size: int = 256,
) -> Scores:
    """Score (variant, owner) some at a time, each different one once, and those of like length together."""
    keys = list(zip(texts, owners, strict=True))
    different = sorted(dict.fromkeys(keys), key=lambda key: len(key[0]))
    parts = [score(different[at : at + size]) for at in range(0, len(different), size)]
    found = dict(zip(different, torch.cat(parts).tolist(), strict=True))
    return np.array([found[key] for key in keys], dtype=np.float32)


def spread(
    values: Float[Tensor, " pairs"],
    pairs: Int64[Tensor, "pairs 2"],
    like: Bool[Tensor, "variants images"],
    *,
    empty: float,
) -> Float[Tensor, "variants images"]:
    """Put the values of (image, variant) pairs into a matrix that is `empty` elsewhere."""
    matrix = torch.full(like.shape, empty, dtype=values.dtype, device=values.device)
    return matrix.index_put((pairs[:, 1], pairs[:, 0]), values)


def own_mean(
    values: Float[Tensor, "variants images"], own: Bool[Tensor, "variants images"]
) -> Float[Tensor, " variants"]:
    """Return each variant's mean over its own images; zero without any."""
    return values.masked_fill(~own, 0.0).sum(dim=1) / own.sum(dim=1).clamp(min=1)
