"""The parts of a RoadSeg-style network: encoders of four scales, and a decoder with dense skip connections."""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import ResNetConfig, ResNetModel

ENCODERS: dict[str, ResNetConfig | None] = {
    "tiny": None,
    "resnet-18": ResNetConfig(layer_type="basic", hidden_sizes=[64, 128, 256, 512], depths=[2, 2, 2, 2]),
    "resnet-50": ResNetConfig(layer_type="bottleneck", hidden_sizes=[256, 512, 1024, 2048], depths=[3, 4, 6, 3]),
    "resnet-152": ResNetConfig(layer_type="bottleneck", hidden_sizes=[256, 512, 1024, 2048], depths=[3, 8, 36, 3]),
}
_TINY = (24, 32, 48, 64)
_DECODER = (64, 128, 256, 512)
Feature = Float[Tensor, "images _ _ _"]  # channels, height, width


class Encoder(nn.Module):
    """Four stages at 1/4, 1/8, 1/16 and 1/32 of the image.

    Args:
        kind: a name of `ENCODERS`; "resnet-..." are Transformers' ResNets, "tiny" has one residual block per stage.
        channels: channels of the input.

    Attributes:
        widths: channels of the four stages.
        decoder_widths: channels that suit a decoder of them.
    """

    def __init__(self, kind: str, channels: int) -> None:
        super().__init__()
        config = ENCODERS[kind]
        self.stages = nn.ModuleList()
        if config is None:
            self.widths = self.decoder_widths = _TINY
            before = channels
            for index, width in enumerate(_TINY):
                first = nn.Conv2d(before, width, 4, 4) if index == 0 else nn.Conv2d(before, width, 3, 2, 1)
                self.stages.append(nn.Sequential(first, nn.BatchNorm2d(width), nn.ReLU(), _Residual(width)))
                before = width
        else:
            settings = {**config.to_dict(), "num_channels": channels}
            resnet = ResNetModel(ResNetConfig.from_dict(settings))
            self.widths, self.decoder_widths = tuple(config.hidden_sizes), _DECODER
            self.stem: nn.Module = resnet.embedder
            self.stages.extend(resnet.encoder.stages)

    def stage(self, index: int, values: Feature) -> Feature:
        """Run one stage; the first takes the input."""
        if index == 0 and hasattr(self, "stem"):
            values = cast(Tensor, self.stem(values))
        elif index == 0:
            # Padded below and to the right, so that any size is taken.
            rows, columns = -values.shape[2] % 4, -values.shape[3] % 4
            values = nn.functional.pad(values, (0, columns, 0, rows), mode="replicate") if rows or columns else values
        return cast(Tensor, self.stages[index](values))

    def start_from(self, folder: Path | str) -> None:
        """Take the weights of a local ResNet folder of Transformers' layout.

        Its first layer reads RGB; ours takes it for three channels as it is, for other numbers its mean, and starts the
        other channels (level and place) from zero.

        Raises:
            ValueError: this encoder is "tiny", or the folder holds a ResNet of another shape.
        """
        if not hasattr(self, "stem"):
            raise ValueError("Expected a resnet encoder to start from a checkpoint, but got 'tiny'.")
        given = ResNetModel.from_pretrained(str(folder), local_files_only=True)
        weight = given.embedder.embedder.convolution.weight.detach()
        first = cast(nn.Conv2d, self.stem.embedder.convolution)  # type: ignore[union-attr]
        own = first.weight.shape[1] - 3  # level and two places come last
        wanted = torch.zeros_like(first.weight)
        wanted[:, :own] = weight if own == 3 else weight.sum(dim=1, keepdim=True) / own
        given.embedder.embedder.convolution.weight = nn.Parameter(wanted)
        try:
            self.stem.load_state_dict(given.embedder.state_dict())
            self.stages.load_state_dict(nn.ModuleList(given.encoder.stages).state_dict())
        except RuntimeError as error:
            raise ValueError(f"Expected a ResNet with stages of {self.widths} channels in {folder}: {error}") from error


class Decoder(nn.Module):
    """Nodes X[i, j] that read X[i, 0..j-1] and X[i+1, j-1], as in UNet++ (Zhou et al., 2018, eq. 1).

    Args:
        widths: channels of the encoder's stages.
        inner: channels of the nodes at each scale.
        labels: number of labels.
    """

    def __init__(self, widths: Sequence[int], inner: Sequence[int], labels: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(width, to, 1) for width, to in zip(widths, inner, strict=True))
        self.nodes = nn.ModuleDict(
            {
                f"{i}-{j}": nn.Sequential(
                    nn.Conv2d(j * inner[i] + inner[i + 1], inner[i], 3, 1, 1, bias=False),
                    nn.BatchNorm2d(inner[i]),
                    nn.ReLU(),
                )
                for j in range(1, len(inner))
                for i in range(len(inner) - j)
            }
        )
        self.head = nn.Conv2d(inner[0], labels, 1)

    def forward(self, features: Sequence[Feature]) -> Feature:
        """Return logits at the finest scale of the features."""
        rows = [[lateral(feature)] for lateral, feature in zip(self.lateral, features, strict=True)]
        for j in range(1, len(rows)):
            for i in range(len(rows) - j):
                size = rows[i][0].shape[2:]
                above = nn.functional.interpolate(rows[i + 1][j - 1], size=size, mode="bilinear", align_corners=False)
                rows[i].append(self.nodes[f"{i}-{j}"](torch.cat([*rows[i], above], dim=1)))
        return cast(Tensor, self.head(rows[0][-1]))


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, 1, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, 1, 1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, values: Feature) -> Feature:
        return torch.relu(values + self.body(values))
