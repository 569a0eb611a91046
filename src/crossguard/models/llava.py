"""LLaVA-1.5 through Transformers: it writes captions and answers questions, and takes another CLIP's image tower."""

import copy
from pathlib import Path
from typing import ClassVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from transformers import LlavaConfig, LlavaForConditionalGeneration

from crossguard.models.answers import PROMPT, QUESTION, Answers, read_template
from crossguard.models.clip import CLIP
from crossguard.models.hub import local_folder
from crossguard.models.storage import load_transformers, told_name
from crossguard.models.supplied import NOTHING, Supplied

TEMPLATE = f"USER: <image>\n{QUESTION} ASSISTANT:"
"""How LLaVA-1.5 is asked, where its files do not say."""


class Llava(Answers):
    """A model of LLaVA-1.5's layout (Liu et al., 2024); see `Answers`."""

    network: LlavaForConditionalGeneration
    image: ClassVar[str] = "<image>"

    @classmethod
    def from_pretrained(
        cls,
        source: Path | str,
        *,
        name: str | None = None,
        offline: bool = False,
        supplied: Supplied = NOTHING,
        vision_tower: CLIP | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> "Llava":
        """Load a local folder in Transformers' layout, or a hub id such as "llava-hf/llava-1.5-7b-hf".

        Args:
            source: the folder or hub id.
            name: shown in tables; default: the folder's or hub id's last part.
            offline: look only at local files.
            supplied: what the files lack.
            vision_tower: a CLIP whose image tower takes the place of the model's own, see `with_vision_tower`.
            dtype: of the weights; bfloat16 halves their memory.

        Raises:
            ValueError: the checkpoint has missing or surplus weights, or lacks tokenizer or preprocessing.
        """
        folder = local_folder(source, offline=offline)
        config = LlavaConfig.from_pretrained(str(folder), local_files_only=True)
        tokenizer = supplied.tokenizer_for(folder)
        rule = supplied.pixel_rule_for(folder, size=config.vision_config.image_size)
        network = load_transformers(LlavaForConditionalGeneration, folder, offline=True, family="LLaVA", dtype=dtype)
        model = cls(
            network,
            tokenizer,
            pixel_rule=rule,
            name=name or told_name(source),
            prompt=getattr(network.config, "prompt", PROMPT),
            template=getattr(network.config, "asking", None) or read_template(folder, tokenizer, default=TEMPLATE),
        ).eval()
        return model if vision_tower is None else model.with_vision_tower(vision_tower)

    def with_vision_tower(self, clip: CLIP) -> "Llava":
        """Return a copy that looks through the image tower of a CLIP, as robust towers are put into LLaVA.

        Its preprocessing comes with it; the projector and the language model stay.

        Raises:
            ValueError: a tower of other widths than the projector reads, or with fewer layers than are asked for.
        """
        tower, own = clip.network.vision_model, self.network.model.vision_tower
        asked = self.network.config.vision_feature_layer
        if tower.config.hidden_size != own.config.hidden_size:
            raise ValueError(
                f"Expected a tower of width {own.config.hidden_size}, which the projector of {self.name!r} reads, but "
                f"that of {clip.name!r} has {tower.config.hidden_size}."
            )
        deepest = max(abs(layer) for layer in ([asked] if isinstance(asked, int) else asked))
        if tower.config.num_hidden_layers + 1 < deepest:
            raise ValueError(
                f"Expected a tower with layer {asked}, but that of {clip.name!r} has {tower.config.num_hidden_layers}."
            )
        made = copy.deepcopy(self)
        made.network.model.vision_tower = copy.deepcopy(tower).to(self.network.dtype)
        made.network.config.vision_config = copy.deepcopy(tower.config)
        made.set_pixel_rule(clip.pixel_rule)
        made.name = f"{self.name} through {clip.name}"
        return made.eval()

    @property
    def image_tokens(self) -> int:
        """How many tokens a picture takes of the context."""
        config = self.network.config
        places = (self.image_size[0] // config.vision_config.patch_size) ** 2
        return places + (config.vision_feature_select_strategy != "default")

    @property
    def visual(self) -> nn.Module:
        """CLIP's tower; the projector is of the text side."""
        tower: nn.Module = self.network.model.vision_tower
        return tower

    def look(self, pixels: Float[Tensor, "images 3 height width"]) -> Float[Tensor, "images tokens channels"]:
        """Return what the projector makes of pictures in [0, 1]."""
        normal = self.normalise(pixels).to(self.network.dtype)
        return torch.stack(list(self.network.model.get_image_features(pixel_values=normal).pooler_output))

    def pictures(
        self, pixels: Float[Tensor, "texts 3 height width"], ids: Int64[Tensor, "texts length"]
    ) -> dict[str, Tensor]:
        """Return pictures normalised."""
        return {"pixel_values": self.normalise(pixels).to(self.network.dtype)}
