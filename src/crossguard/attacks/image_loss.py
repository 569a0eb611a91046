"""The losses of images against fixed text embeddings that image attacks maximise."""

from typing import Literal

from jaxtyping import Float
from torch import Tensor

from crossguard.attacks.ascent import LossPerSample
from crossguard.attacks.encode import encode_images
from crossguard.attacks.objectives import mean_partner, misalignment, product, unit
from crossguard.data import PairBatch
from crossguard.models import VisionLanguageModel
from crossguard.models.losses import contrastive_by_image, embedding_l2

Objective = Literal["cosine", "contrastive", "distance"]


def image_loss(
    model: VisionLanguageModel,
    batch: PairBatch,
    text_features: Float[Tensor, "texts dim"],
    *,
    objective: Objective = "cosine",
) -> LossPerSample:
    """Return the loss of images against fixed text embeddings.

    Args:
        model: the victim.
        batch: gives the links.
        text_features: embeddings of the batch's texts (adversarial or not), constant.
        objective: "cosine" is minus the mean cosine with the image's own texts; "contrastive" the cross-entropy
            of those among all texts of the batch and of the texts among its images, so that results depend on the
            batch; "distance" the squared distance of the embedding from that of the clean image (FARE's loss), which
            asks for no text.
    """
    positives = batch.positives
    if objective == "cosine":
        partners = mean_partner(text_features, positives)
        return lambda pixels: misalignment(model.encode_image(pixels).float(), partners)
    if objective == "distance":
        clean = encode_images(model, batch.pixels)
        return lambda pixels: embedding_l2(model.encode_image(pixels).float(), clean)
    texts, scale = unit(text_features), model.logit_scale.detach()
    return lambda pixels: contrastive_by_image(
        scale * product(unit(model.encode_image(pixels).float()), texts.T), positives
    )
