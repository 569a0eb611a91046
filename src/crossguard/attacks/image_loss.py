"""The losses of images against fixed texts that image attacks maximise."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

from crossguard.attacks.ascent import LossPerSample, Pixels
from crossguard.attacks.encode import encode_images, encode_unit_texts
from crossguard.attacks.objectives import Objective, mean_partner, misalignment, product, unit
from crossguard.attacks.ranking import image_states, match_logits, ranking_loss, text_states
from crossguard.attacks.text_score import as_fusion
from crossguard.data import PairBatch
from crossguard.models import VisionLanguageModel
from crossguard.models.losses import contrastive_by_image, embedding_l2


def image_loss(
    model: VisionLanguageModel, batch: PairBatch, texts: Sequence[str], *, objective: Objective = "cosine"
) -> LossPerSample:
    """Return the loss of images against fixed texts, which are encoded once.

    Args:
        model: the victim.
        batch: gives the links.
        texts: the batch's texts, adversarial or not.
        objective: "cosine" is minus the mean cosine with the image's own texts; "contrastive" the cross-entropy
            of those among all texts of the batch and of the texts among its images, so that results depend on the
            batch; "ranking" the same, for fusion models with the match logits added (see `ranking_loss`); "match" the
            surprise of a fusion model that the image matches its own texts; "distance" the squared distance of the
            embedding from that of the clean image (FARE's loss), which asks for no text.

    Raises:
        ValueError: "match" for a model without fusion.
    """
    positives = batch.positives
    if objective == "match":
        return _match_loss(model, batch, texts)
    if objective == "ranking":
        return ranking_loss(model, positives, text_states(model, texts))
    if objective == "distance":
        clean = encode_images(model, batch.pixels)
        return lambda pixels: embedding_l2(model.encode_image(pixels).float(), clean)
    features = encode_unit_texts(model, texts)
    if objective == "cosine":
        partners = mean_partner(features, positives)
        return lambda pixels: misalignment(model.encode_image(pixels).float(), partners)
    scale = model.logit_scale.detach()
    return lambda pixels: contrastive_by_image(
        scale * product(unit(model.encode_image(pixels).float()), features.T), positives
    )


def _match_loss(model: VisionLanguageModel, batch: PairBatch, texts: Sequence[str]) -> LossPerSample:
    fusion = as_fusion(model)
    states, positives = text_states(model, texts), batch.positives
    pairs = positives.nonzero()

    def loss(pixels: Pixels) -> Float[Tensor, " images"]:
        logits = match_logits(fusion, image_states(fusion, pixels), states, pairs)
        surprise = softplus(logits[:, 0] - logits[:, 1])
        total = surprise.new_zeros(len(pixels)).index_add(0, pairs[:, 0], surprise)
        return total / positives.sum(dim=1).clamp(min=1)

    return loss
