"""What all models that read photos by a pixel rule share: from photos to pixels, and normalisation inside the model."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from crossguard.models.pixels import PixelRule, to_pixels


class ReadsPictures(nn.Module):
    """A model whose pictures follow a pixel rule.

    Attributes:
        pixel_rule: how photos become pixels, and by which mean and deviation these are normalised.
        image_size: (height, width) of the pixels.
    """

    _mean: Tensor
    _std: Tensor

    def __init__(self, pixel_rule: PixelRule) -> None:
        super().__init__()
        self.set_pixel_rule(pixel_rule)

    def set_pixel_rule(self, pixel_rule: PixelRule) -> None:
        """Take another rule for photos and their normalisation."""
        self.pixel_rule = pixel_rule
        self.image_size = pixel_rule.size
        self.register_buffer("_mean", torch.tensor(pixel_rule.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("_std", torch.tensor(pixel_rule.std).view(1, 3, 1, 1), persistent=False)

    def preprocess(self, images: Sequence[Image.Image]) -> Float[Tensor, "images 3 height width"]:
        """Resize by the pixel rule, on 8 bits, and scale to [0, 1]."""
        return to_pixels(images, self.pixel_rule)

    def normalise(self, pixels: Float[Tensor, "images 3 height width"]) -> Float[Tensor, "images 3 height width"]:
        """Return pixels of [0, 1] less the mean and over the deviation, as the network was trained with."""
        return (pixels - self._mean) / self._std
