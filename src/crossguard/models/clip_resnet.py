"""CLIP whose pictures are read by a ResNet (RN50, RN101 and their larger kin; Radford et al., 2021)."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import CLIPConfig, CLIPTextConfig, CLIPTextModelWithProjection, PreTrainedTokenizerBase

from crossguard.checks import expanded
from crossguard.models.clip import ReadsTexts, spelt_mask
from crossguard.models.pixels import PixelRule
from crossguard.models.storage import load_network, network_parts, told_name, write_model
from crossguard.models.supplied import NOTHING, Supplied
from crossguard.models.tokenizers import check_vocabulary

MODEL_TYPE = "clip-resnet"


class _Bottleneck(nn.Module):
    """1 x 1, 3 x 3 and 1 x 1 convolutions; a mean over 2 x 2, not a stride, halves the size."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = 4 * width
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        self.pool: nn.Module = nn.AvgPool2d(stride) if stride > 1 else nn.Identity()
        self.downsample: nn.Module | None = None
        if stride > 1 or inputs != outputs:
            self.downsample = nn.ModuleDict(
                {"0": nn.Conv2d(inputs, outputs, 1, bias=False), "1": nn.BatchNorm2d(outputs)}
            )

    def forward(self, x: Float[Tensor, "images channels height width"]) -> Tensor:
        wide = self.bn1(self.conv1(x)).relu()
        wide = self.pool(self.bn2(self.conv2(wide)).relu())
        wide = self.bn3(self.conv3(wide))
        if self.downsample is not None:
            x = self.downsample["1"](self.downsample["0"](self.pool(x)))  # type: ignore[index]
        result: Tensor = (wide + x).relu()
        return result


class _AttentionPool(nn.Module):
    """The mean of all places asks the places and itself, once."""

    def __init__(self, places: int, width: int, heads: int, outputs: int) -> None:
        super().__init__()
        self.positional_embedding = nn.Parameter(torch.zeros(places + 1, width))
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(width, width) for _ in range(3))
        self.c_proj = nn.Linear(width, outputs)
        self.heads = heads

    def forward(self, x: Float[Tensor, "images channels height width"]) -> Float[Tensor, "images dim"]:
        tokens = x.flatten(2).transpose(1, 2)
        tokens = torch.cat([tokens.mean(dim=1, keepdim=True), tokens], dim=1) + self.positional_embedding

        def heads(projection: nn.Module, states: Tensor) -> Tensor:
            split: Tensor = projection(states).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            return split

        heard = scaled_dot_product_attention(
            heads(self.q_proj, tokens[:, :1]), heads(self.k_proj, tokens), heads(self.v_proj, tokens)
        )
        pooled: Tensor = self.c_proj(heard.transpose(1, 2).flatten(2)[:, 0])
        return pooled


class _Visual(nn.Module):
    """A stem of three convolutions, four stages of bottlenecks, and attention in the place of the last mean."""

    def __init__(self, layers: Sequence[int], width: int, image_size: int, embed_dim: int) -> None:
        super().__init__()
        half = width // 2
        self.conv1, self.bn1 = nn.Conv2d(3, half, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(half)
        self.conv2, self.bn2 = nn.Conv2d(half, half, 3, padding=1, bias=False), nn.BatchNorm2d(half)
        self.conv3, self.bn3 = nn.Conv2d(half, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.avgpool = nn.AvgPool2d(2)
        inputs, stages = width, []
        for stage, blocks in enumerate(layers):
            inner = width * 2**stage
            parts = []
            for block in range(blocks):
                parts.append(_Bottleneck(inputs, inner, 2 if stage and not block else 1))
                inputs = 4 * inner
            stages.append(nn.Sequential(*parts))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        # One head for 64 of the 32 * width channels.
        self.attnpool = _AttentionPool((image_size // 32) ** 2, inputs, max(1, inputs // 64), embed_dim)

    def forward(self, x: Float[Tensor, "images 3 height width"]) -> Float[Tensor, "images dim"]:
        for conv, norm in ((self.conv1, self.bn1), (self.conv2, self.bn2), (self.conv3, self.bn3)):
            x = norm(conv(x)).relu()
        x = self.avgpool(x)
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
        pooled: Tensor = self.attnpool(x)
        return pooled


class ResNetCLIPNetwork(nn.Module):
    """The weights of a CLIP with a ResNet: `visual`, `text_model`, `text_projection`, `logit_scale`.

    Args:
        config: `layers` (blocks of the four stages), `width`, `image_size`, `embed_dim`, and `text`, the settings of
            Transformers' `CLIPTextConfig`.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.config = dict(config)
        self.visual = _Visual(config["layers"], config["width"], config["image_size"], config["embed_dim"])
        text = CLIPTextModelWithProjection(CLIPTextConfig(**config["text"], projection_dim=config["embed_dim"]))
        self.text_model, self.text_projection = text.text_model, text.text_projection
        self.logit_scale = nn.Parameter(torch.tensor(2.6592))


class ResNetCLIP(ReadsTexts):
    """A CLIP with a ResNet: pixels in [0, 1] and strings in, embeddings out. It has no patches to leave out.

    Args:
        network: the weights.
        tokenizer: CLIP's.
        pixel_rule: how photos become pixels, and the normalisation that is applied inside `encode_image`.
        name: shown in tables and written into rows.
    """

    def __init__(
        self, network: ResNetCLIPNetwork, tokenizer: PreTrainedTokenizerBase, *, pixel_rule: PixelRule, name: str
    ) -> None:
        super().__init__(pixel_rule)
        self.network, self.tokenizer, self.name = network, tokenizer, name
        self.context_length = int(network.text_model.config.max_position_embeddings)
        self.mask_token = spelt_mask(tokenizer)

    @classmethod
    def from_pretrained(
        cls, source: Path | str, *, name: str | None = None, offline: bool = True, supplied: Supplied = NOTHING
    ) -> "ResNetCLIP":
        """Load a folder that `save_pretrained` wrote; there is no hub to ask, so `offline` changes nothing.

        Raises:
            ValueError: weights that are missing, unknown or of another shape.
        """
        folder = expanded(source)
        network = load_network(lambda config: ResNetCLIPNetwork(config["network"]), folder)
        tokenizer = supplied.tokenizer_for(folder, config=CLIPConfig())
        text = network.text_model.config
        check_vocabulary(tokenizer, size=text.vocab_size, end=text.eos_token_id, where=folder)
        rule = supplied.pixel_rule_for(folder, size=network.config["image_size"])
        return cls(network, tokenizer, pixel_rule=rule, name=name or told_name(folder)).eval()

    def encode_image(self, pixels: Float[Tensor, "images 3 height width"]) -> Float[Tensor, "images dim"]:
        """Embed pixels in [0, 1]; differentiable."""
        embedding: Tensor = self.network.visual(self.normalise(pixels))
        return embedding

    def tower(self, which: str) -> Iterable[nn.Parameter]:
        """Parameters of the "image" or the "text" tower with its projection.

        Raises:
            ValueError: `which` is neither.
        """
        if which == "image":
            return list(self.network.visual.parameters())
        if which == "text":
            return [*self.network.text_model.parameters(), *self.network.text_projection.parameters()]
        raise ValueError(f"Expected 'image' or 'text' as tower, but got {which!r}.")

    def save_pretrained(self, folder: Path | str) -> None:
        """Write config, tokenizer, pixel rule and safetensors, whole or not at all."""
        config = {"model_type": MODEL_TYPE, "network": self.network.config}
        write_model(
            folder,
            [*network_parts(self.network, config), self.tokenizer.save_pretrained, self.pixel_rule.save],
            name=self.name,
        )
