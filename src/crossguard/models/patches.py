"""Images as patches, and leaving patch tokens out of a transformer's sequence."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from crossguard.models.base import Packed, PatchModel


def to_patches(
    pixels: Float[Tensor, "images channels height width"], grid: tuple[int, int]
) -> Float[Tensor, "images patches channels patch_height patch_width"]:
    """Cut images into patches, row by row, the elements that certificates and sparse attacks count.

    Args:
        pixels: any values.
        grid: (rows, columns) of patches, as `PatchModel.patch_grid`.

    Raises:
        ValueError: the size is not a multiple of the grid.
    """
    (rows, columns), (height, width) = grid, pixels.shape[2:]
    if height % rows or width % columns:
        raise ValueError(f"Expected a size that {rows} x {columns} patches divide, but got {height} x {width}.")
    cut = pixels.unflatten(3, (columns, width // columns)).unflatten(2, (rows, height // rows))
    return cut.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)


def from_patches(
    patches: Float[Tensor, "images patches channels patch_height patch_width"], grid: tuple[int, int]
) -> Float[Tensor, "images channels height width"]:
    """Put patches together again; the inverse of `to_patches`."""
    return patches.unflatten(1, grid).permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)


def encode_patches(model: PatchModel, patches: Packed) -> Float[Tensor, "images dim"]:
    """Embed images from some of their patches; equals `encode_image` of the pixels with the mask of those.

    Args:
        model: a model that can leave out patches.
        patches: values [images, kept, channels, patch_height, patch_width], and where they stood in `patch_grid`.

    Raises:
        ValueError: the patches are of another grid than the model's.
    """
    rows, columns = model.patch_grid
    if patches.size != rows * columns:
        raise ValueError(f"Expected {rows} x {columns} patches, but got some of {patches.size}.")
    image = torch.arange(len(patches), device=patches.values.device).unsqueeze(1).expand_as(patches.positions)
    image, place, values = image.flatten(), patches.positions.flatten(), patches.values.flatten(0, 1)
    if patches.real is not None:
        image, place, values = (part[patches.real.flatten()] for part in (image, place, values))
    whole = values.new_zeros(len(patches), patches.size, *values.shape[1:])
    whole[image, place] = values
    kept = torch.zeros(len(patches), patches.size, dtype=torch.bool, device=values.device)
    kept[image, place] = True
    return model.encode_image(from_patches(whole, (rows, columns)), kept)


def keep_tokens(
    tokens: Float[Tensor, "images patches width"], kept: Bool[Tensor, "images patches"]
) -> tuple[Float[Tensor, "images most width"], Bool[Tensor, "images most"] | None]:
    """Return the kept tokens of each image in their order, padded with zeros to the most that an image keeps.

    Args:
        tokens: patch tokens, positions already added.
        kept: which of them stay.

    Returns:
        The tokens, and which of them are real; None where all are, because every image keeps as many.

    Raises:
        ValueError: `kept` does not have one entry per patch.

    Example:
        >>> tokens, mask = keep_tokens(torch.arange(6.0).view(2, 3, 1), torch.tensor([[1, 0, 1], [0, 1, 0]]).bool())
        >>> tokens[..., 0].tolist(), mask.tolist()
        ([[0.0, 2.0], [4.0, 0.0]], [[True, True], [True, False]])
    """
    if kept.shape != tokens.shape[:2]:
        raise ValueError(f"Expected `kept` [images, patches] = {list(tokens.shape[:2])}, but got {list(kept.shape)}.")
    counts = kept.sum(dim=1)
    most = int(counts.max())
    # Stable: the kept ones come first, in the order of their positions.
    order = torch.argsort(~kept, dim=1, stable=True)[:, :most]
    chosen = tokens.gather(1, order.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))
    mask = torch.arange(most, device=kept.device) < counts.unsqueeze(1)
    if bool(mask.all()):
        return chosen, None
    # Not a product with the mask: a dropped patch may hold NaN.
    return chosen.masked_fill(~mask.unsqueeze(-1), 0.0), mask


def additive(
    mask: Bool[Tensor, "images tokens"] | None, dtype: torch.dtype
) -> Float[Tensor, "images 1 1 tokens"] | None:
    """Return what Transformers adds to attention scores: 0 where the mask is True, the lowest number elsewhere."""
    if mask is None:
        return None
    scores = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
    return scores.masked_fill(~mask, torch.finfo(dtype).min)[:, None, None, :]
