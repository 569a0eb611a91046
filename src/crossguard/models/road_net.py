"""`RoadNet`: a segmenter of several modalities that sees any subset of their pixels."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from crossguard.checks import lookup, nearest
from crossguard.data.samples import MultiModalSamples
from crossguard.models.hole_filling import fill_holes
from crossguard.models.named import NamedModules
from crossguard.models.road_parts import ENCODERS, Decoder, Encoder
from crossguard.models.storage import load_network, save_network

MODEL_TYPE = "road-net"
Reading = Literal["dense", "sparse", "inverse"]
_READINGS: dict[str, Reading] = {"depth": "inverse", "disparity": "sparse", "normals": "sparse"}


class RoadNet(nn.Module):
    """One encoder per modality, added at every scale, and a decoder with dense skip connections (RoadSeg, ECCV 2020).

    Pixels that are ablated, or that the sensor did not measure, are first filled from the others (`fill_holes`), so
    that one network reads one pixel in 500 as it reads a whole image. Each encoder also sees how far the values came
    from, and where each pixel lies. Features are added into the first modality's stream, which goes on with the sum.

    Args:
        channels: channels of each modality, by name, in order.
        classes: the names of the labels.
        encoder: "tiny" for a CPU, or "resnet-18", "resnet-50", "resnet-152".
        reading: how each modality is read: "dense"; "sparse" where a pixel of zeros was not measured; "inverse", the
            same and values are turned into 1 / value, in which planes are linear. The default goes by the name: "depth"
            is "inverse", "disparity" and "normals" are "sparse", others "dense".

    Attributes:
        name: "road-net".
        modalities: the names of the inputs.

    Raises:
        ValueError: no modality, fewer than two classes, an unknown encoder or reading.
    """

    def __init__(
        self,
        channels: Mapping[str, int],
        classes: tuple[str, ...],
        *,
        encoder: str = "tiny",
        reading: Mapping[str, Reading] | None = None,
    ) -> None:
        super().__init__()
        if not channels or len(classes) < 2:
            raise ValueError(f"Expected a modality and two classes or more, but got {dict(channels)} and {classes}.")
        lookup(ENCODERS, encoder, what="encoder")
        self.name = MODEL_TYPE
        self.modalities = tuple(channels)
        self.classes = tuple(classes)
        for modality in reading or {}:
            lookup(channels, modality, what="modality of `reading`")
        self.reading = {m: (reading or {}).get(m, _READINGS.get(m, "dense")) for m in channels}
        for how in self.reading.values():
            lookup(dict.fromkeys(get_args(Reading)), how, what="reading")
        self.config = {
            "model_type": MODEL_TYPE,
            "channels": dict(channels),
            "classes": list(classes),
            "encoder": encoder,
            "reading": self.reading,
        }
        self.scales = NamedModules({m: _Scale(size) for m, size in channels.items()})
        self.encoders = NamedModules({m: Encoder(encoder, size + 3) for m, size in channels.items()})
        first = cast(Encoder, self.encoders[self.modalities[0]])
        self.decoder = Decoder(first.widths, first.decoder_widths, len(classes))

    def forward(
        self,
        inputs: Mapping[str, Float[Tensor, "images _ height width"]],
        kept: Mapping[str, Bool[Tensor, "images height width"]] | None = None,
    ) -> Float[Tensor, "images labels height width"]:
        """Return logits.

        Args:
            inputs: float [images, channels, height, width] per modality, all of one size.
            kept: bool [images, height, width] per modality, True where a pixel was not ablated; None means all of them.

        Raises:
            ValueError: a modality is missing, or a mask or a modality has another size than the others.
        """
        read = [self._read(modality, inputs, kept) for modality in self.modalities]
        sizes = {values.shape[2:] for values in read}
        if len(sizes) > 1:
            raise ValueError(f"Expected modalities of one size, but got {[list(size) for size in sizes]}.")
        features = []
        for index in range(4):
            read = [
                cast(Encoder, self.encoders[m]).stage(index, values)
                for m, values in zip(self.modalities, read, strict=True)
            ]
            read[0] = torch.stack(read).sum(dim=0)
            features.append(read[0])
        height, width = sizes.pop()
        logits = nn.functional.interpolate(self.decoder(features), scale_factor=4, mode="bilinear", align_corners=False)
        return logits[:, :, :height, :width]

    def _read(
        self, modality: str, inputs: Mapping[str, Tensor], kept: Mapping[str, Tensor] | None
    ) -> Float[Tensor, "images channels height width"]:
        """Return the filled modality with the level it was found at and the pixels' places."""
        if modality not in inputs:
            raise ValueError(f"Expected an input {modality!r}: {nearest(modality, inputs)}.")
        values = inputs[modality]
        images, _, height, width = values.shape
        mask = kept[modality] if kept is not None else values.new_ones(images, height, width, dtype=torch.bool)
        if mask.shape != (images, height, width):
            raise ValueError(f"Expected a mask {[images, height, width]} of {modality!r}, but got {list(mask.shape)}.")
        values = torch.where(mask[:, None], values, torch.zeros_like(values))
        if self.reading[modality] != "dense":
            mask = (values != 0).any(dim=1)
        if self.reading[modality] == "inverse":
            values = torch.where(values != 0, 1 / values.where(values != 0, 1), 0)
        filled = fill_holes(self.scales[modality](values), mask)
        rows = torch.linspace(-1, 1, height, device=values.device, dtype=values.dtype)[:, None].expand(height, width)
        columns = torch.linspace(-1, 1, width, device=values.device, dtype=values.dtype).expand(height, width)
        return torch.cat([filled, torch.stack([rows, columns]).expand(images, -1, -1, -1)], dim=1)

    @classmethod
    def for_samples(
        cls,
        samples: MultiModalSamples,
        *,
        encoder: str = "tiny",
        reading: Mapping[str, Reading] | None = None,
        start: Path | str | None = None,
        seed: int = 0,
    ) -> "RoadNet":
        """Return an untrained model for the samples' modalities and classes, normalised by their mean and deviation.

        Args:
            samples: training samples, every modality float [samples, channels, height, width].
            encoder: as the class.
            reading: as the class; what is called "depth" and cannot be distances, by its channels or its values, is
                "sparse" where nothing else is said, with a warning.
            start: local folder of a ResNet in Transformers' layout, from which every encoder starts.
            seed: of the initial weights; PyTorch's global generator is left as it was.

        Raises:
            ValueError: a modality has another number of dimensions, or `start` holds another network.
        """
        for modality, values in samples.modalities.items():
            if values.ndim != 4:
                raise ValueError(f"Expected {modality!r} [samples, channels, height, width], but got {values.shape}.")
        channels = {m: values.shape[1] for m, values in samples.modalities.items()}
        reading = {**_no_distances(samples, reading or {}), **(reading or {})}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = cls(channels, tuple(samples.classes), encoder=encoder, reading=reading)
        for modality, values in samples.modalities.items():
            pixels = values[:64].transpose(0, 2, 3, 1).reshape(-1, values.shape[1]).astype(np.float64)
            if model.reading[modality] != "dense":
                pixels = pixels[(pixels != 0).any(axis=1)]
                if not len(pixels):
                    raise ValueError(f"Expected values of {modality!r}, but all are 0, which means not measured.")
            if model.reading[modality] == "inverse":
                pixels = np.divide(1, pixels, out=np.zeros_like(pixels), where=pixels != 0)
            scale = cast(_Scale, model.scales[modality])
            scale.mean.copy_(torch.from_numpy(pixels.mean(axis=0)))
            scale.deviation.copy_(torch.from_numpy(pixels.std(axis=0)).clamp_min(1e-6))
            if start is not None:
                cast(Encoder, model.encoders[modality]).start_from(start)
        return model

    def save_pretrained(self, folder: Path | str) -> None:
        """Write `config.json` and `model.safetensors` to a folder that `from_pretrained` reads back bit-equal."""
        save_network(self, self.config, folder)

    @classmethod
    def from_pretrained(cls, source: Path | str, *, name: str = "", offline: bool = True) -> "RoadNet":
        """Read what `save_pretrained` wrote.

        Args:
            source: the folder.
            name: shown in tables; "road-net" when empty.
            offline: accepted as every family's loader does; nothing is ever downloaded here.

        Raises:
            OSError, KeyError, RuntimeError, SafetensorError: a file is missing or broken.
        """

        def make(config: dict[str, Any]) -> RoadNet:
            return cls(
                config["channels"], tuple(config["classes"]), encoder=config["encoder"], reading=config["reading"]
            )

        model = load_network(make, source)
        model.name = name or MODEL_TYPE
        return model


def _no_distances(samples: MultiModalSamples, given: Mapping[str, Reading]) -> dict[str, Reading]:
    """Return "sparse" for what would be read as distances by its name alone, and warn of it."""
    found: dict[str, Reading] = {}
    for modality, values in samples.modalities.items():
        if modality in given or _READINGS.get(modality) != "inverse":
            continue
        why = f"{values.shape[1]} channels" if values.shape[1] > 1 else "negative values" if values.min() < 0 else ""
        if why:
            warnings.warn(
                f"{modality!r} has {why}, which distances have not: it is not read as 1 / value. Say "
                f"`reading={{{modality!r}: 'inverse'}}` where it is to be.",
                stacklevel=3,
            )
            found[modality] = "sparse"
    return found


class _Scale(nn.Module):
    """Brings a modality to mean 0 and deviation 1."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("deviation", torch.ones(channels))

    def forward(
        self, values: Float[Tensor, "images channels height width"]
    ) -> Float[Tensor, "images channels height width"]:
        return (values - self.mean[:, None, None]) / self.deviation[:, None, None]
