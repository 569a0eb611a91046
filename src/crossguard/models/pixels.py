"""From photos to pixels: resize, crop, scale to [0, 1], by the rule that a checkpoint carries."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from transformers import CLIPImageProcessorPil
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from crossguard.data.pictures import as_rgb


@dataclass(frozen=True)
class PixelRule:
    """How a model wants its pictures.

    Args:
        size: (height, width) of the pixels.
        mean: per channel, subtracted inside the model.
        std: per channel, divided by inside the model.
        crop: True resizes the shorter side and crops the centre; False squeezes to `size`.
        edge: with `crop`, what the shorter side is resized to; None: as small as covers `size`.
        resample: the filter, as Pillow counts them (2 bilinear, 3 bicubic).

    Raises:
        ValueError: an `edge` smaller than what is cropped from it, or without `crop`; an unknown filter.
    """

    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop: bool = True
    edge: int | None = None
    resample: int = int(Image.Resampling.BICUBIC)

    def __post_init__(self) -> None:
        if self.edge is not None and (not self.crop or self.edge < max(self.size)):
            raise ValueError(
                f"Expected an `edge` of at least {max(self.size)} pixels, to be cropped, but got {self.edge} with "
                f"crop={self.crop}."
            )
        if self.resample not in set(Image.Resampling):
            raise ValueError(f"Expected a filter of Pillow (0 to 5) as `resample`, but got {self.resample!r}.")

    @classmethod
    def squeeze(cls, edge: int) -> "PixelRule":
        """Return the rule of ALBEF and BLIP: any photo is squeezed to a square, CLIP's mean and deviation."""
        return cls((edge, edge), tuple(OPENAI_CLIP_MEAN), tuple(OPENAI_CLIP_STD), crop=False)

    @classmethod
    def from_pretrained(cls, source: Path | str, *, default_size: int, offline: bool = False) -> "PixelRule":
        """Read a checkpoint's `preprocessor_config.json`, in the old and the new spelling of sizes.

        Raises:
            ValueError: a rule that gives pictures of different sizes.
        """
        values, _ = CLIPImageProcessorPil.get_image_processor_dict(str(source), local_files_only=offline)
        kind = values.get("image_processor_type") or values.get("feature_extractor_type") or "CLIP"
        crop = bool(values.get("do_center_crop", kind.startswith("CLIP")))  # other families' default is not to crop
        size, resample = values.get("size", default_size), values.get("resample", Image.Resampling.BICUBIC)
        mean, std = tuple(values["image_mean"]), tuple(values["image_std"])
        if not crop:
            if isinstance(size, dict) and not {"height", "width"} <= set(size):
                raise ValueError(f"Expected a `size` of height and width where nothing is cropped, but got {size}.")
            return cls(_edges(size), mean, std, False, resample=int(resample))
        cropped = _edges(values.get("crop_size", size))
        edge = size.get("shortest_edge") if isinstance(size, dict) else size
        return cls(cropped, mean, std, True, None if edge == min(cropped) else edge, int(resample))

    def save(self, folder: Path | str) -> None:
        """Write `preprocessor_config.json` as Transformers reads it."""
        height, width = self.size
        size: dict[str, int] = (
            {"shortest_edge": self.edge or min(self.size)} if self.crop else {"height": height, "width": width}
        )
        values = {
            "image_processor_type": "CLIPImageProcessor",
            "do_resize": True,
            "size": size,
            "resample": self.resample,
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
    """Turn pictures of any size and mode into float32 [images, 3, height, width] in [0, 1], whole multiples of 1/255.

    Pictures are turned upright by their EXIF orientation first, transparency goes on white, 16 bits become 8.
    """
    height, width = rule.size
    stack = np.empty((len(images), height, width, 3), dtype=np.uint8)
    for row, image in enumerate(images):
        stack[row] = np.asarray(_fit(as_rgb(image), rule))
    return torch.from_numpy(stack).permute(0, 3, 1, 2).contiguous().float() / 255


def _edges(size: int | Mapping[str, int]) -> tuple[int, int]:
    if isinstance(size, int):
        return size, size
    return (size["height"], size["width"]) if "height" in size else (size["shortest_edge"],) * 2


def _fit(image: Image.Image, rule: PixelRule) -> Image.Image:
    (height, width), resample = rule.size, Image.Resampling(rule.resample)
    if not rule.crop:
        return image.resize((width, height), resample)
    # The side that is resized to its target exactly; the other follows, rounded down as Transformers does.
    tall, wide = (height, width) if rule.edge is None else (rule.edge, rule.edge)
    if image.width * tall >= image.height * wide:
        resized_size = (max(wide, int(tall * image.width / image.height)), tall)
    else:
        resized_size = (wide, max(tall, int(wide * image.height / image.width)))
    resized = image.resize(resized_size, resample)
    left, top = (resized.width - width) // 2, (resized.height - height) // 2
    return resized.crop((left, top, left + width, top + height))
