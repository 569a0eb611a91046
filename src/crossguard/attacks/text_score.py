"""How texts are scored for the images that they belong to: what text attacks lower."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from crossguard.attacks.encode import encode_unit_texts
from crossguard.attacks.objectives import linked_mean, product, unit
from crossguard.models import VisionLanguageModel


@runtime_checkable
class TextScore(Protocol):
    """Scores variants of texts; lower is worse for the victim."""

    def __call__(self, texts: Sequence[str], owners: Sequence[int]) -> Float[np.ndarray, " variants"]:
        """Return one float32 score per variant.

        Args:
            texts: variants.
            owners: per variant, which text it is a variant of; the images come from that.
        """
        ...


class EmbeddingScore:
    """The mean cosine with the own images, or the log-likelihood of these among all images.

    Args:
        model: the victim, in evaluation mode.
        image_features: embeddings of images, constant.
        positives: the links.
        among_all: whether to take the log-likelihood (see `swap_words`, "contrastive").
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

    def __call__(self, texts: Sequence[str], owners: Sequence[int]) -> Float[np.ndarray, " variants"]:
        """Score variants, see `TextScore`."""
        features = encode_unit_texts(self.model, texts)
        own = (features * self.partners[list(owners)]).sum(dim=-1)
        if self.scale is not None:
            # In units of cosine, so that the margin of a change means the same.
            own = own - (self.scale * product(features, self.images.T)).logsumexp(dim=-1) / self.scale
        return own.cpu().numpy()
