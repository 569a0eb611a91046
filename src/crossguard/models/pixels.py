"""From photos to pixels: resize, crop, scale to [0, 1], by the rule that a checkpoint carries."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from transformers import CLIPImageProcessorPil


@dataclass(frozen=True)
class PixelRule:
    """How a model wants its pictures.

    Args:
        size: (height, width) of the pixels.
        mean: per channel, subtracted inside the model.
        std: per channel, divided by inside the model.
        crop: True resizes the shorter side and crops the centre; False squeezes to `size`.
    """

    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop: bool = True

    @classmethod
    def from_pretrained(cls, source: Path | str, *, default_size: int, offline: bool = False) -> "PixelRule":
        """Read a checkpoint's `preprocessor_config.json`, in the old and the new spelling of sizes."""
        values, _ = CLIPImageProcessorPil.get_image_processor_dict(str(source), local_files_only=offline)
        crop = bool(values.get("do_center_crop", True))
        size = values.get("crop_size" if crop else "size", default_size)
        if isinstance(size, dict):
            edge = size.get("shortest_edge", default_size)
            size = (size.get("height", edge), size.get("width", edge))
        height, width = (size, size) if isinstance(size, int) else size
        return cls((height, width), tuple(values["image_mean"]), tuple(values["image_std"]), crop)

    def save(self, folder: Path | str) -> None:
        """Write `preprocessor_config.json` as Transformers reads it."""
        height, width = self.size
        size: dict[str, int] = (
            {"shortest_edge": min(self.size)} if self.crop else {"height": height, "width": width}
        )
        values = {
            "image_processor_type": "CLIPImageProcessor",
            "do_resize": True,
            "size": size,
            "resample": int(Image.Resampling.BICUBIC),
            "do_center_crop": self.crop,
            "crop_size": {"height": height, "width": width},
            "do_rescale": True,
            "do_normalize": True,
            "do_convert_rgb": True,
            "image_mean": list(self.mean),
            "image_std": list(self.std),
        }
        (Path(folder) / "preprocessor_config.json").write_text(json.dumps(values, indent=2) + "\n")


def to_pixels(images: Sequence[Image.Image], rule: PixelRule) -> Float[Tensor, "images 3 height width"]:
    """Turn pictures into float32 [images, 3, height, width] in [0, 1], whole multiples of 1/255."""
    height, width = rule.size
    stack = np.empty((len(images), height, width, 3), dtype=np.uint8)
    for row, image in enumerate(images):
        stack[row] = np.asarray(_fit(image.convert("RGB"), height, width, crop=rule.crop))
    return torch.from_numpy(stack).permute(0, 3, 1, 2).contiguous().float() / 255


def _fit(image: Image.Image, height: int, width: int, *, crop: bool) -> Image.Image:
    if not crop:
        return image.resize((width, height), Image.Resampling.BICUBIC)
    if image.width * height >= image.height * width:
        resized_size = (max(width, int(height * image.width / image.height)), height)
    else:
        resized_size = (width, max(height, int(width * image.height / image.width)))
    resized = image.resize(resized_size, Image.Resampling.BICUBIC)
    left, top = (resized.width - width) // 2, (resized.height - height) // 2
    return resized.crop((left, top, left + width, top + height))
