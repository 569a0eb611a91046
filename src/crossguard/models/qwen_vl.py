"""Qwen2.5-VL through Transformers: it writes captions and answers questions about pictures of any size."""

import copy
import json
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int64
from PIL import Image
from torch import Tensor, nn
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from crossguard.checks import WrongKind, visible
from crossguard.models.answers import PROMPT, QUESTION, Answers, read_template
from crossguard.models.hub import local_folder
from crossguard.models.pixels import PixelRule
from crossguard.models.storage import load_transformers, told_name
from crossguard.models.supplied import NOTHING, Supplied

EDGE = 448
"""Pictures are squeezed to squares of so many pixels, unless the caller or a saved folder says otherwise."""
TEMPLATE = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<|vision_start|><|image_pad|>"
    f"<|vision_end|>{QUESTION}<|im_end|>\n<|im_start|>assistant\n"
)
"""How Qwen2.5-VL is asked, where its files do not say."""


class QwenVL(Answers):
    """A model of Qwen2.5-VL's layout (Bai et al., 2025); see `Answers`.

    Its tower takes pictures of any size. Here all have one, so that they make a batch and a budget means the same in
    all: squares of `EDGE` pixels, or what a `PixelRule` says, whose sides are multiples of a merged patch (28 pixels).
    """

    network: Qwen2_5_VLForConditionalGeneration
    image: ClassVar[str] = "<|image_pad|>"

    def set_pixel_rule(self, pixel_rule: PixelRule) -> None:
        """Take another rule for photos.

        Raises:
            ValueError: sides that are no multiples of a merged patch.
        """
        if hasattr(self, "network"):
            check_sides(pixel_rule, self.network.config)
        super().set_pixel_rule(pixel_rule)

    @classmethod
    def from_pretrained(
        cls,
        source: Path | str,
        *,
        name: str | None = None,
        offline: bool = False,
        supplied: Supplied = NOTHING,
        vision_tower: "QwenVL | None" = None,
        dtype: torch.dtype = torch.float32,
    ) -> "QwenVL":
        """Load a local folder in Transformers' layout, or a hub id such as "Qwen/Qwen2.5-VL-7B-Instruct".

        Args:
            source: the folder or hub id.
            name: shown in tables; default: the folder's or hub id's last part.
            offline: look only at local files.
            supplied: what the files lack; `preprocessing=PixelRule.squeeze(672)` takes larger pictures.
            vision_tower: a Qwen2.5-VL whose image tower takes the place of the model's own, see `with_vision_tower`.
            dtype: of the weights; bfloat16 halves their memory.

        Raises:
            ValueError: the checkpoint has missing or surplus weights, or lacks tokenizer or preprocessing; pictures
                whose sides are no multiples of a merged patch.
        """
        folder = local_folder(source, offline=offline)
        config = Qwen2_5_VLConfig.from_pretrained(str(folder), local_files_only=True)
        tokenizer = supplied.tokenizer_for(folder)
        rule = rule_of(supplied, folder, config)
        check_sides(rule, config)
        network = load_transformers(
            Qwen2_5_VLForConditionalGeneration, folder, offline=True, family="Qwen2.5-VL", dtype=dtype
        )
        model = cls(
            network,
            tokenizer,
            pixel_rule=rule,
            name=name or told_name(source),
            prompt=getattr(network.config, "prompt", PROMPT),
            template=getattr(network.config, "asking", None) or read_template(folder, tokenizer, default=TEMPLATE),
        ).eval()
        return model if vision_tower is None else model.with_vision_tower(vision_tower)

    def with_vision_tower(self, other: "QwenVL") -> "QwenVL":
        """Return a copy that looks through another Qwen2.5-VL's image tower, merger included, with its preprocessing.

        Raises:
            WrongKind: a model of another family: the language model reads this tower's tokens alone.
            ValueError: a tower that gives other widths.
        """
        if not isinstance(other, QwenVL):
            raise WrongKind(
                f"Expected the image tower of a Qwen2.5-VL for {self.name!r}, but got that of {type(other).__name__}."
            )
        ours, theirs = (model.network.config.vision_config for model in (self, other))
        for what in ("out_hidden_size", "patch_size", "spatial_merge_size"):
            if getattr(ours, what) != getattr(theirs, what):
                raise ValueError(
                    f"Expected a tower with `{what}` {getattr(ours, what)}, as {self.name!r} reads, but that of "
                    f"{other.name!r} has {getattr(theirs, what)}."
                )
        made = copy.deepcopy(self)
        made.network.model.visual = copy.deepcopy(other.visual).to(self.network.dtype)
        made.network.config.vision_config = copy.deepcopy(theirs)
        made.set_pixel_rule(other.pixel_rule)
        made.name = f"{self.name} through {other.name}"
        return made.eval()

    @property
    def visual(self) -> nn.Module:
        """The tower, merger included."""
        tower: nn.Module = self.network.model.visual
        return tower

    @property
    def image_tokens(self) -> int:
        """How many tokens a picture takes of the context: its merged patches."""
        rows, columns = self._merged
        return rows * columns

    @property
    def _merged(self) -> tuple[int, int]:
        side = merged_patch(self.network.config)
        return self.image_size[0] // side, self.image_size[1] // side

    def _patches(self, pixels: Float[Tensor, "images 3 height width"]) -> Float[Tensor, "patches values"]:
        """Return the patches of all pictures as the tower reads them: those that are merged one after the other."""
        vision, (rows, columns) = self.network.config.vision_config, self._merged
        size, merge = vision.patch_size, vision.spatial_merge_size
        cut = self.normalise(pixels).to(self.network.dtype)
        cut = cut.unflatten(3, (columns, merge, size)).unflatten(2, (rows, merge, size))
        cut = cut.permute(0, 2, 5, 3, 6, 1, 4, 7)  # [image, row, column, row in it, column in it, colour, y, x]
        frames = cut.unsqueeze(6).expand(*cut.shape[:6], vision.temporal_patch_size, size, size)
        return frames.flatten(5).flatten(0, 4)

    def _grid(self, count: int, device: torch.device) -> Int64[Tensor, "images 3"]:
        merge, (rows, columns) = self.network.config.vision_config.spatial_merge_size, self._merged
        return torch.tensor([[1, rows * merge, columns * merge]], device=device).expand(count, 3)

    def look(self, pixels: Float[Tensor, "images 3 height width"]) -> Float[Tensor, "images tokens channels"]:
        """Return what the tower and its merger make of pictures in [0, 1]."""
        found = self.network.model.get_image_features(
            pixel_values=self._patches(pixels), image_grid_thw=self._grid(len(pixels), pixels.device)
        )
        return torch.stack(list(found.pooler_output))

    def pictures(
        self, pixels: Float[Tensor, "texts 3 height width"], ids: Int64[Tensor, "texts length"]
    ) -> dict[str, Tensor]:
        """Return patches, how many there are each way, and which tokens stand for pictures."""
        return {
            "pixel_values": self._patches(pixels),
            "image_grid_thw": self._grid(len(pixels), pixels.device),
            "mm_token_type_ids": (ids == self.network.config.image_token_id).int(),
        }

    def positions(
        self, ids: Int64[Tensor, "texts length"], mask: Bool[Tensor, "texts length"]
    ) -> Int64[Tensor, "axes texts length"]:
        """Return time, row and column of every token: those of a picture share a time, and words count on behind it."""
        rows, columns = self._merged
        order = (mask.long().cumsum(dim=1) - 1).clamp(min=0)
        pictured = ids == self.network.config.image_token_id
        first = pictured.int().argmax(dim=1, keepdim=True)
        start = order.gather(1, first)
        behind = (order >= start + rows * columns).long() * (max(rows, columns) - rows * columns)
        place = (order - start).clamp(min=0, max=rows * columns - 1)
        axes = torch.stack([start.expand_as(order), start + place // columns, start + place % columns])
        return torch.where(pictured, axes, order + behind)


def merged_patch(config: Any) -> int:
    """Return the edge in pixels of what becomes one token."""
    return int(config.vision_config.patch_size * config.vision_config.spatial_merge_size)


def check_sides(rule: PixelRule, config: Any) -> None:
    """Refuse pictures that merged patches do not divide.

    Raises:
        ValueError: naming the side.
    """
    side = merged_patch(config)
    if any(edge % side for edge in rule.size):
        raise ValueError(
            f"Expected pictures whose sides are multiples of {side} pixels, as Qwen2.5-VL merges patches, but the "
            f"preprocessing gives {rule.size[0]} x {rule.size[1]}: give another as `preprocessing=`."
        )


def rule_of(supplied: Supplied, folder: Path, config: Any) -> PixelRule:
    """Return the caller's rule, or that of the folder or hub id that it names, or the checkpoint's own."""
    given = supplied.preprocessing
    if isinstance(given, PixelRule):
        return given
    if given == "clip":
        return PixelRule.squeeze(_edge(config))
    return read_rule(folder if given is None else local_folder(given, offline=supplied.offline), config)


def _edge(config: Any) -> int:
    side = merged_patch(config)
    return max(side, EDGE // side * side)


def read_rule(folder: Path, config: Any) -> PixelRule:
    """Return the rule of a folder's `preprocessor_config.json`: squares of `EDGE` pixels where it leaves sizes open.

    Raises:
        ValueError: no such file, or one that cannot be read.
    """
    place = folder / "preprocessor_config.json"
    try:
        told = json.loads(place.read_text(encoding="utf-8"))
        if {"height", "width"} <= set(told.get("size") or {}):
            return PixelRule.from_pretrained(folder, default_size=EDGE, offline=True)
        usual = {"image_mean": OPENAI_CLIP_MEAN, "image_std": OPENAI_CLIP_STD}
        mean, std = (tuple(told.get(name, value)) for name, value in usual.items())
        resample = int(told.get("resample", Image.Resampling.BICUBIC))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ValueError(
            f"Expected a preprocessor_config.json in {visible(folder)}, but got: {error}. Give `preprocessing=`, a "
            "PixelRule."
        ) from error
    return PixelRule((_edge(config),) * 2, mean, std, crop=False, resample=resample)
