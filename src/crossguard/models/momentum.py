"""Training of fusion models with momentum encoders and queues (ALBEF and BLIP, sections 3; MoCo, He et al., 2020)."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn.functional import normalize

from crossguard.models.base import FusionModel, States, Tokens
from crossguard.models.fusion_losses import draw_negatives, matching_loss, soft_cross_entropy, soft_targets
from crossguard.models.queues import FeatureQueue, gather


@dataclass(frozen=True)
class Believed:
    """Unit embeddings of a batch by the momentum model.

    Args:
        images: float [images, dim].
        texts: float [texts, dim].
    """

    images: Float[Tensor, "images dim"]
    texts: Float[Tensor, "texts dim"]


@dataclass(frozen=True)
class Keys:
    """What a batch is compared with, and what it should look like: functions of the copy and the queues alone.

    Args:
        texts: float [batch texts + queue, dim], unit embeddings of the copy; the batch's first.
        images: float [batch images + queue, dim], the same of images.
        among_texts: bool [images, batch texts + queue], true pairs.
        among_images: bool [texts, batch images + queue], true pairs.
        for_texts: float [images, batch texts + queue], soft targets of each image; 0 for one without a true pair.
        for_images: float [texts, batch images + queue], soft targets of each text; 0 for one without a true pair.
    """

    texts: Float[Tensor, "text_keys dim"]
    images: Float[Tensor, "image_keys dim"]
    among_texts: Bool[Tensor, "images text_keys"]
    among_images: Bool[Tensor, "texts image_keys"]
    for_texts: Float[Tensor, "images text_keys"]
    for_images: Float[Tensor, "texts image_keys"]


@dataclass(frozen=True)
class FusionLosses:
    """The two losses of a batch, in nats: contrastive (ITC) and matching (ITM)."""

    itc: Float[Tensor, ""]
    itm: Float[Tensor, ""]

    @property
    def total(self) -> Float[Tensor, ""]:
        """Their sum, as ALBEF and BLIP minimise it."""
        return self.itc + self.itm


class MomentumTraining(nn.Module):
    """A fusion model with what its training needs: a momentum copy, two queues, and all true links.

    Every true pair is a positive, in the batch and in the queues, whatever side has several partners; the released
    code's "several captions of one image id" is the case of links that share an image. Entries of a queue that no batch
    has filled yet play no part.

    `forward` is one training step's loss and moves the state on. An inner attack calls `believe` once on the clean
    batch and `losses` as often as it likes: neither changes anything.

    In several processes each computes losses on its own batch, and the momentum embeddings of all of them enter every
    process's queues, so that these stay equal; batches must be equally large.

    Args:
        model: the fusion model, a `torch.nn.Module`; it is trained in place.
        links: int64 [links, 2], all true (image id, text id) of the data set, as `OneToManyPairs.links`.
        queue_size: embeddings kept of each side.
        momentum: how much the copy keeps of itself per step.
        alpha: share of the momentum model's belief in the targets.

    Raises:
        ValueError: an argument out of range.
    """

    _links: Tensor

    def __init__(
        self,
        model: FusionModel,
        *,
        links: Int64[Tensor, "links 2"],
        queue_size: int = 65536,
        momentum: float = 0.995,
        alpha: float = 0.4,
    ) -> None:
        super().__init__()
        if not 0 <= momentum < 1:
            raise ValueError(f"Expected `momentum` in [0, 1), but got {momentum!r}.")
        if not 0 <= alpha <= 1:
            raise ValueError(f"Expected `alpha` in [0, 1], but got {alpha!r}.")
        if not len(links):
            raise ValueError("Expected at least one true link, but got none.")
        module: nn.Module = model  # type: ignore[assignment]
        with torch.no_grad():
            dim = model.encode_text(["a"]).shape[1]
        device = next(module.parameters()).device
        self.model = module
        self.copy = copy.deepcopy(module).requires_grad_(False)
        self.momentum, self.alpha = momentum, alpha
        self.images = FeatureQueue(queue_size, dim).to(device)
        self.texts = FeatureQueue(queue_size, dim).to(device)
        self.register_buffer("_links", links.to(device, copy=True), persistent=False)

    def forward(
        self,
        pixels: Float[Tensor, "images 3 height width"],
        texts: Sequence[str] | Tokens,
        *,
        image_ids: Int64[Tensor, " images"],
        text_ids: Int64[Tensor, " texts"],
        generator: torch.Generator,
    ) -> FusionLosses:
        """Let the copy follow the model, return the losses of a batch, and enqueue the copy's embeddings.

        Args:
            pixels: in [0, 1], clean or attacked.
            texts: strings or tokens, clean or attacked.
            image_ids: the images' ids in `links`.
            text_ids: the texts' ids in `links`.
            generator: draws hard negatives, on the CPU.

        Raises:
            ValueError: an image or a text of the batch has no partner in it.
        """
        self.follow()
        model: FusionModel = self.model  # type: ignore[assignment]
        tokens = texts if isinstance(texts, Tokens) else model.tokenize(texts)
        believed = self.believe(pixels, tokens)
        losses = self.losses(
            model.encode_image_states(pixels),
            model.encode_text_states(tokens),
            believed,
            image_ids=image_ids,
            text_ids=text_ids,
            generator=generator,
        )
        self.enqueue(believed, image_ids=image_ids, text_ids=text_ids)
        return losses

    @torch.no_grad()
    def follow(self) -> None:
        """Move the copy towards the model: copy <- momentum * copy + (1 - momentum) * model."""
        for old, new in zip(self.copy.parameters(), self.model.parameters(), strict=True):
            old.lerp_(new, 1 - self.momentum)

    @torch.no_grad()
    def believe(self, pixels: Float[Tensor, "images 3 height width"], texts: Sequence[str] | Tokens) -> Believed:
        """Return the copy's unit embeddings of a batch."""
        model: FusionModel = self.copy  # type: ignore[assignment]
        return Believed(normalize(model.encode_image(pixels), dim=-1), normalize(model.encode_text(texts), dim=-1))

    def losses(
        self,
        images: States,
        texts: States,
        believed: Believed,
        *,
        image_ids: Int64[Tensor, " images"],
        text_ids: Int64[Tensor, " texts"],
        generator: torch.Generator,
        matched: Int64[Tensor, "pairs 2"] | None = None,
    ) -> FusionLosses:
        """Return ITC and ITM of encoded images and texts; the state stays as it is.

        ITC: each image's cross-entropy over the copy's texts (batch and queue) with soft targets, and the same for each
        text over images, half the sum of the two means. ITM: the true pairs of the batch against one hard negative text
        per image and one hard negative image per text.

        Args:
            images: the model's states of the batch's images.
            texts: of its texts.
            believed: the copy's embeddings, of the same batch or its clean version.
            image_ids: the images' ids in `links`.
            text_ids: the texts' ids in `links`.
            generator: draws hard negatives, on the CPU.
            matched: the true pairs, as (row in `images`, row in `texts`), that ITM takes; None for all of the batch.

        Raises:
            ValueError: an image or a text of the batch has no partner among batch and queue.
        """
        model: FusionModel = self.model  # type: ignore[assignment]
        scale = model.logit_scale
        image, text = normalize(images.embedding, dim=-1), normalize(texts.embedding, dim=-1)
        keys = self.keys(believed, image_ids=image_ids, text_ids=text_ids)
        for among in (keys.among_texts, keys.among_images):
            alone = int((~among.any(dim=1)).sum())
            if alone:
                raise ValueError(f"Expected a true pair in every row, but {alone} of {len(among)} have none.")
        true = keys.among_texts[:, : len(text)]
        positive = torch.nonzero(true) if matched is None else matched.to(image.device)
        to_texts, to_images = scale * image @ keys.texts[: len(text)].T, scale * text @ keys.images[: len(image)].T
        hard_texts = draw_negatives(to_texts, true, generator=generator)
        hard_images = draw_negatives(to_images, true.T, generator=generator).flip(1)
        logits = model.match(images, texts, torch.cat([positive, hard_images, hard_texts]))
        itm = matching_loss(logits[: len(positive)], logits[len(positive) :])
        return FusionLosses(self.contrast(image, text, keys), itm)

    @torch.no_grad()
    def keys(
        self, believed: Believed, *, image_ids: Int64[Tensor, " images"], text_ids: Int64[Tensor, " texts"]
    ) -> Keys:
        """Return what a batch is compared with in ITC: the copy's embeddings, in batch and queues, and soft targets.

        Args:
            believed: the copy's embeddings of the batch or its clean version.
            image_ids: the images' ids in `links`.
            text_ids: the texts' ids in `links`.
        """
        model: FusionModel = self.model  # type: ignore[assignment]
        queued_texts, queued_text_ids = self.texts.entries()
        queued_images, queued_image_ids = self.images.entries()
        texts, images = torch.cat([believed.texts, queued_texts]), torch.cat([believed.images, queued_images])
        image_ids, text_ids = image_ids.to(texts.device), text_ids.to(texts.device)
        among_texts = linked(self._links, image_ids, torch.cat([text_ids, queued_text_ids]))
        among_images = linked(self._links, torch.cat([image_ids, queued_image_ids]), text_ids).T
        return Keys(
            texts=texts,
            images=images,
            among_texts=among_texts,
            among_images=among_images,
            for_texts=self._targets(among_texts, model.logit_scale * believed.images @ texts.T),
            for_images=self._targets(among_images, model.logit_scale * believed.texts @ images.T),
        )

    def _targets(
        self, among: Bool[Tensor, "rows keys"], believed_logits: Float[Tensor, "rows keys"]
    ) -> Float[Tensor, "rows keys"]:
        paired = among.any(dim=1)
        targets = torch.zeros_like(believed_logits)
        targets[paired] = soft_targets(among[paired], believed_logits[paired], alpha=self.alpha)
        return targets

    def contrast(
        self, images: Float[Tensor, "images dim"], texts: Float[Tensor, "texts dim"], keys: Keys
    ) -> Float[Tensor, ""]:
        """Return ITC of unit embeddings; images and texts without a true pair are left out of the means.

        Args:
            images: of the model, unit length.
            texts: of the model, unit length.
            keys: of the same batch or its clean version.
        """
        model: FusionModel = self.model  # type: ignore[assignment]
        scale = model.logit_scale
        by_image = soft_cross_entropy(scale * images @ keys.texts.T, keys.for_texts)
        by_text = soft_cross_entropy(scale * texts @ keys.images.T, keys.for_images)
        paired_images, paired_texts = keys.among_texts.any(dim=1), keys.among_images.any(dim=1)
        return (by_image.sum() / paired_images.sum().clamp(min=1) + by_text.sum() / paired_texts.sum().clamp(min=1)) / 2

    @torch.no_grad()
    def enqueue(
        self,
        believed: Believed,
        *,
        image_ids: Int64[Tensor, " images"],
        text_ids: Int64[Tensor, " texts"],
    ) -> None:
        """Put the copy's embeddings, of all processes, in place of the queues' oldest."""
        device = believed.images.device
        self.images.push(gather(believed.images), gather(image_ids.to(device)))
        self.texts.push(gather(believed.texts), gather(text_ids.to(device)))


def linked(
    links: Int64[Tensor, "links 2"], image_ids: Int64[Tensor, " images"], text_ids: Int64[Tensor, " texts"]
) -> Bool[Tensor, "images texts"]:
    """Return which of the given images and texts are true pairs.

    Args:
        links: all true (image id, text id), in any order.
        image_ids: ids, repeated or not.
        text_ids: ids, repeated or not.
    """
    near = links[torch.isin(links[:, 0], image_ids) & torch.isin(links[:, 1], text_ids)]
    images, image_rows = torch.unique(image_ids, return_inverse=True)
    texts, text_rows = torch.unique(text_ids, return_inverse=True)
    table = torch.zeros(len(images), len(texts), dtype=torch.bool, device=links.device)
    table[torch.searchsorted(images, near[:, 0].contiguous()), torch.searchsorted(texts, near[:, 1].contiguous())] = (
        True
    )
    return table[image_rows][:, text_rows]
