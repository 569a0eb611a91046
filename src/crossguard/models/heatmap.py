"""Where a fusion model looks for a text: gradient-weighted attention to the image, for visual grounding."""

from contextlib import nullcontext

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import interpolate

from crossguard.models.base import GroundingModel, States

GROUNDING_LAYER = 8
"""The layer that ALBEF grounds with: the third of its fusion layers, counted among all of BERT's from 0."""


@torch.enable_grad()
def attention_maps(
    model: GroundingModel,
    images: States,
    texts: States,
    pairs: Int64[Tensor, "pairs 2"],
    *,
    layer: int = GROUNDING_LAYER,
    create_graph: bool = False,
) -> Float[Tensor, "pairs rows columns"]:
    """Return one map per pair: how much each patch speaks for a match (Grad-CAM on cross-attention, as in ALBEF).

    The layer's attention to the image, times the positive part of the match logit's gradient with respect to it, is
    averaged over heads and over the text's tokens, `[CLS]` among them. The class token of the image is left out.

    Args:
        model: its weights need no gradient; call it in evaluation mode.
        images: of `encode_image_states`, with all patches.
        texts: of `encode_text_states`.
        pairs: (row in `images`, row in `texts`); each pair's map is its own.
        layer: a fusion layer, counted among all of BERT's.
        create_graph: keep the graph, so that an attack can differentiate the maps with respect to the pixels.

    Returns:
        float [pairs, rows, columns], >= 0; all zero where no patch speaks for a match.

    Raises:
        ValueError: `layer` is no fusion layer, or the states leave patches out.
    """
    rows, columns = model.patch_grid
    if images.hidden.shape[1] != rows * columns + 1 or not bool(images.mask.all()):
        raise ValueError(f"Expected states of all {rows * columns} patches, but some were left out.")
    image_states = images if create_graph else images.detach()
    text_states = texts if create_graph else texts.detach()
    if not image_states.hidden.requires_grad:  # the attention must be in a graph, whatever the caller froze
        hidden = image_states.hidden.detach().requires_grad_()
        image_states = States(hidden, image_states.mask, image_states.embedding)
    # Fast attention kernels cannot be differentiated twice.
    with sdpa_kernel(SDPBackend.MATH) if create_graph else nullcontext():
        logits, attention = model.match_with_attention(image_states, text_states, pairs, layer=layer)
    assert attention is not None
    (gradient,) = torch.autograd.grad(logits[:, 1].sum(), attention, create_graph=create_graph)
    real = text_states.mask[pairs[:, 1].to(text_states.mask.device)]
    maps = token_maps(attention, gradient, real).unflatten(1, (rows, columns))
    return maps if create_graph else maps.detach()


def token_maps(
    attention: Float[Tensor, "pairs heads tokens places"],
    gradient: Float[Tensor, "pairs heads tokens places"],
    real: Bool[Tensor, "pairs tokens"],
) -> Float[Tensor, "pairs patches"]:
    """Weigh attention by the positive part of its gradient; mean over heads and real tokens, without the first place.

    Args:
        attention: weights of a cross-attention, the class token's place first.
        gradient: of the match logit, with respect to `attention`.
        real: False on padding.
    """
    weighed = (attention * gradient.clamp(min=0))[..., 1:].mean(dim=1)
    counts = real.sum(dim=1, keepdim=True)
    return (weighed * real.unsqueeze(-1)).sum(dim=1) / counts


def enlarge(
    maps: Float[Tensor, "pairs rows columns"], *, height: int, width: int
) -> Float[Tensor, "pairs height width"]:
    """Interpolate maps to the size of the photo, bicubic; the model squeezed a photo of any shape into its square.

    Args:
        maps: one value per patch, as `attention_maps` gives.
        height: of the photo, in pixels.
        width: of the photo, in pixels.
    """
    return interpolate(maps.unsqueeze(1), size=(height, width), mode="bicubic", align_corners=False)[:, 0]
