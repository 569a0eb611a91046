"""`WatchNet`: a classifier of sensor streams that sees any subset of their time steps."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from crossguard.data.samples import MultiModalSamples
from crossguard.models.base import Packed
from crossguard.models.inputs import chosen_modalities, mean_and_deviation
from crossguard.models.named import NamedModules
from crossguard.models.packing import pack_all
from crossguard.models.storage import load_network, save_network

MODEL_TYPE = "watch-net"
_PERIODS = (4.0, 2.0, 1.0, 0.5, 0.25)  # seconds: from a slow repetition to a quick jerk


class WatchNet(nn.Module):
    """One stream per sensor: every kept time step is embedded with its moment, then mean and maximum over the steps.

    A sum over a set of steps (Deep Sets, arXiv 1703.06114) is at home with few and scattered steps, costs only what is
    kept, and cannot see an ablated value: steps that are not kept are never read. Steps are gathered, so a
    sub-sample of k of n costs about k / n of the whole.

    Args:
        streams: features per time step of each sensor, by name, in order.
        classes: the names of the labels.
        width: size of the embeddings.
        rate: time steps per second, which gives each step its moment.
        dropout: share of the pooled features dropped in training.
        position_free: sensors whose steps are embedded without their moment, as a bag; certificates of these hold
            against insertions and deletions too.

    Attributes:
        name: "watch-net".
        modalities: the names of the sensors.
        packs: the same: every sensor can be taken packed.

    Raises:
        ValueError: no sensor, fewer than two classes.
    """

    def __init__(
        self,
        streams: Mapping[str, int],
        classes: tuple[str, ...],
        *,
        width: int = 128,
        rate: float = 50.0,
        dropout: float = 0.2,
        position_free: Sequence[str] = (),
    ) -> None:
        super().__init__()
        if not streams or len(classes) < 2:
            raise ValueError(f"Expected a stream and two classes or more, but got {dict(streams)} and {classes}.")
        self.name = MODEL_TYPE
        self.modalities = self.packs = tuple(streams)
        self.position_free = chosen_modalities(position_free, streams, "position_free")
        self.classes = tuple(classes)
        self.config = {
            "model_type": MODEL_TYPE,
            "streams": dict(streams),
            "classes": list(classes),
            "width": width,
            "rate": rate,
            "dropout": dropout,
            "position_free": list(self.position_free),
        }
        self.streams = NamedModules(
            {m: _Stream(size, width, rate, free=m in self.position_free) for m, size in streams.items()}
        )
        self.head = nn.Sequential(
            nn.Linear(2 * width * len(streams), width), nn.GELU(), nn.Dropout(dropout), nn.Linear(width, len(classes))
        )

    def forward(
        self,
        inputs: Mapping[str, Float[Tensor, "samples elements features"]],
        kept: Mapping[str, Bool[Tensor, "samples elements"]] | None = None,
    ) -> Float[Tensor, "samples labels"]:
        """Return logits.

        Args:
            inputs: float [samples, elements, features] per sensor, in physical units.
            kept: bool [samples, elements] per sensor, True where a time step was not ablated; None means all of them.

        Raises:
            ValueError: a sensor is missing, or a mask has another shape than its values.
        """
        return self.classify_kept(pack_all(inputs, kept, self.modalities), {})

    def classify_kept(
        self, inputs: Mapping[str, Packed], kept: Mapping[str, Bool[Tensor, "samples elements"]]
    ) -> Float[Tensor, "samples labels"]:
        """Return logits from the time steps that were kept, see `PackingClassifier`; `kept` is not needed."""
        parts = [self.streams[modality](inputs[modality]) for modality in self.modalities]
        return cast(Tensor, self.head(torch.cat(parts, dim=-1)))

    @classmethod
    def for_samples(
        cls,
        samples: MultiModalSamples,
        *,
        width: int = 128,
        rate: float = 50.0,
        dropout: float = 0.2,
        position_free: Sequence[str] = (),
        seed: int = 0,
    ) -> "WatchNet":
        """Return an untrained model for the samples' sensors and classes, normalised by their mean and deviation.

        Args:
            samples: training samples, every modality float [samples, elements, features].
            width: as the class.
            rate: as the class.
            dropout: as the class.
            position_free: as the class.
            seed: of the initial weights; PyTorch's global generator is left as it was.

        Raises:
            ValueError: a modality has another number of dimensions.
        """
        for modality, values in samples.modalities.items():
            if values.ndim != 3:
                raise ValueError(f"Expected {modality!r} [samples, elements, features], but got {values.shape}.")
        streams = {m: values.shape[2] for m, values in samples.modalities.items()}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = cls(
                streams, tuple(samples.classes), width=width, rate=rate, dropout=dropout, position_free=position_free
            )
        for modality, values in samples.modalities.items():
            stream = cast(_Stream, model.streams[modality])
            mean, scale = mean_and_deviation(values, axis=(0, 1), least=1e-6)
            stream.mean.copy_(mean)
            stream.scale.copy_(scale)
        return model

    def save_pretrained(self, folder: Path | str) -> None:
        """Write `config.json` and `model.safetensors` to a folder that `from_pretrained` reads back bit-equal."""
        save_network(self, self.config, folder)

    @classmethod
    def from_pretrained(cls, source: Path | str, *, name: str = "", offline: bool = True) -> "WatchNet":
        """Read what `save_pretrained` wrote.

        Args:
            source: the folder.
            name: shown in tables; "watch-net" when empty.
            offline: accepted as every family's loader does; nothing is ever downloaded here.

        Raises:
            OSError, KeyError, RuntimeError, SafetensorError: a file is missing or broken.
        """

        def make(config: dict[str, Any]) -> WatchNet:
            return cls(
                config["streams"],
                tuple(config["classes"]),
                width=config["width"],
                rate=config["rate"],
                dropout=config["dropout"],
                position_free=config["position_free"],
            )

        model = load_network(make, source)
        model.name = name or MODEL_TYPE
        return model


class _Stream(nn.Module):
    mean: Tensor
    scale: Tensor
    angular: Tensor

    def __init__(self, features: int, width: int, rate: float, *, free: bool) -> None:
        super().__init__()
        self.free = free
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))
        periods = torch.tensor(_PERIODS)
        self.register_buffer("angular", 2 * math.pi / (periods * rate), persistent=False)  # radians per time step
        self.embed = nn.Sequential(
            nn.Linear(features + (0 if free else 2 * len(_PERIODS)), width),
            nn.GELU(),
            nn.Linear(width, width),
            nn.GELU(),
            nn.Linear(width, width),
        )

    def forward(self, kept: Packed) -> Float[Tensor, "samples twice_width"]:
        values = (kept.values - self.mean) / self.scale
        if not self.free:
            phase = kept.positions[..., None] * self.angular
            values = torch.cat([values, phase.sin(), phase.cos()], dim=-1)
        embedded = self.embed(values)
        if kept.real is None:
            return torch.cat([embedded.mean(dim=1), embedded.amax(dim=1)], dim=-1)
        weight = kept.real[..., None].to(embedded.dtype)
        mean = (embedded * weight).sum(dim=1) / weight.sum(dim=1).clamp_min(1)
        top = embedded.masked_fill(~kept.real[..., None], -math.inf).amax(dim=1)
        return torch.cat([mean, torch.where(kept.real.any(dim=1, keepdim=True), top, torch.zeros_like(top))], dim=-1)
