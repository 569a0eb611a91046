"""`EmotionNet`: a two-branch classifier of video and sound that sees any subset of their elements."""

import math
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from crossguard.data.samples import MultiModalSamples
from crossguard.models.base import Packed
from crossguard.models.packing import pack_all
from crossguard.models.storage import load_network, save_network

MODEL_TYPE = "emotion-net"


class EmotionNet(nn.Module):
    """One branch per modality: every kept element is embedded with its index, then mean and maximum over the elements.

    An element is a frame, a window of sound, or a single clip-level feature. What an element's value means depends on
    its index where elements are single features, so these have weights of their own, value * A[i] + B[i]; elements of
    several numbers share one linear map and have a vector B[i] each; square colour frames are read by a small
    convolutional network. Only kept elements are computed (Deep Sets, arXiv 1703.06114).

    Args:
        shapes: (elements, numbers per element) of each modality, by name, in order.
        classes: the names of the labels.
        frames: modalities whose elements are square RGB frames, [3, size, size] in a row.
        width: size of the embeddings.
        dropout: share of the pooled features dropped in training.

    Attributes:
        name: "emotion-net".
        modalities: the names of the inputs.
        packs: the same: every modality can be taken packed.

    Raises:
        ValueError: no modality, fewer than two classes, frames that are not square and of three colours.
    """

    def __init__(
        self,
        shapes: Mapping[str, tuple[int, int]],
        classes: tuple[str, ...],
        *,
        frames: tuple[str, ...] = (),
        width: int = 96,
        dropout: float = 0.3,
    ) -> None:
        super().__init__()
        if not shapes or len(classes) < 2:
            raise ValueError(f"Expected a modality and two classes or more, but got {dict(shapes)} and {classes}.")
        self.name = MODEL_TYPE
        self.modalities = self.packs = tuple(shapes)
        self.classes = tuple(classes)
        self.config = {
            "model_type": MODEL_TYPE,
            "shapes": {m: list(shape) for m, shape in shapes.items()},
            "classes": list(classes),
            "frames": list(frames),
            "width": width,
            "dropout": dropout,
        }
        self.branches = nn.ModuleDict(
            {m: _Branch(*shape, width=width, frames=m in frames) for m, shape in shapes.items()}
        )
        self.head = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(2 * width * len(shapes), width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(width, len(classes)),
        )

    def forward(
        self,
        inputs: Mapping[str, Float[Tensor, "samples elements numbers"]],
        kept: Mapping[str, Bool[Tensor, "samples elements"]] | None = None,
    ) -> Float[Tensor, "samples labels"]:
        """Return logits.

        Args:
            inputs: float [samples, elements, numbers] per modality.
            kept: bool [samples, elements] per modality, True where an element was not ablated; None means all of them.

        Raises:
            ValueError: a modality is missing or of another shape, or a mask of another shape than its values.
        """
        for modality, values in inputs.items():
            if modality in self.modalities:
                shape = cast(_Branch, self.branches[modality]).mean.shape
                if values.shape[1:] != shape:
                    raise ValueError(
                        f"Expected {modality!r} [samples, {', '.join(map(str, shape))}], but got {list(values.shape)}."
                    )
        return self.classify_kept(pack_all(inputs, kept, self.modalities), {})

    def classify_kept(
        self, inputs: Mapping[str, Packed], kept: Mapping[str, Bool[Tensor, "samples elements"]]
    ) -> Float[Tensor, "samples labels"]:
        """Return logits from the elements that were kept, see `PackingClassifier`; `kept` is not needed."""
        parts = [self.branches[modality](inputs[modality]) for modality in self.modalities]
        return cast(Tensor, self.head(torch.cat(parts, dim=1)))

    @classmethod
    def for_samples(
        cls, samples: MultiModalSamples, *, width: int = 96, dropout: float = 0.3, seed: int = 0
    ) -> "EmotionNet":
        """Return an untrained model for the samples' modalities and classes, normalised by their mean and deviation.

        Args:
            samples: training samples, every modality float [samples, elements, numbers]. One named "video" whose
                elements are 3 * size * size numbers is read as frames.
            width: as the class.
            dropout: as the class.
            seed: of the initial weights; PyTorch's global generator is left as it was.

        Raises:
            ValueError: a modality has another number of dimensions.
        """
        for modality, values in samples.modalities.items():
            if values.ndim != 3:
                raise ValueError(f"Expected {modality!r} [samples, elements, numbers], but got {values.shape}.")
        shapes = {m: (values.shape[1], values.shape[2]) for m, values in samples.modalities.items()}
        frames = tuple(m for m, (_, numbers) in shapes.items() if m == "video" and _side(numbers) >= 8)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = cls(shapes, tuple(samples.classes), frames=frames, width=width, dropout=dropout)
        for modality, values in samples.modalities.items():
            branch = cast(_Branch, model.branches[modality])
            # Single features have a scale each; the numbers of a sequence's elements have theirs over all of it.
            axis = 0 if values.shape[2] == 1 else (0, 1)
            branch.mean.copy_(torch.from_numpy(values.mean(axis=axis)).expand_as(branch.mean))
            branch.scale.copy_(torch.from_numpy(values.std(axis=axis)).clamp_min(1e-3).expand_as(branch.scale))
        return model

    def save_pretrained(self, folder: Path | str) -> None:
        """Write `config.json` and `model.safetensors` to a folder that `from_pretrained` reads back bit-equal."""
        save_network(self, self.config, folder)

    @classmethod
    def from_pretrained(cls, source: Path | str, *, name: str = "", offline: bool = True) -> "EmotionNet":
        """Read what `save_pretrained` wrote.

        Args:
            source: the folder.
            name: shown in tables; "emotion-net" when empty.
            offline: accepted as every family's loader does; nothing is ever downloaded here.

        Raises:
            OSError, KeyError, RuntimeError, SafetensorError: a file is missing or broken.
        """

        def make(config: dict[str, Any]) -> EmotionNet:
            return cls(
                {m: (elements, numbers) for m, (elements, numbers) in config["shapes"].items()},
                tuple(config["classes"]),
                frames=tuple(config["frames"]),
                width=config["width"],
                dropout=config["dropout"],
            )

        model = load_network(make, source)
        model.name = name or MODEL_TYPE
        return model


class _Branch(nn.Module):
    mean: Tensor
    scale: Tensor

    def __init__(self, elements: int, numbers: int, *, width: int, frames: bool) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(elements, numbers))
        self.register_buffer("scale", torch.ones(elements, numbers))
        self.offset = nn.Parameter(torch.randn(elements, width) * 0.5)
        self.single = numbers == 1
        if self.single:
            self.slope = nn.Parameter(torch.randn(elements, width))
        elif frames:
            self.read: nn.Module = _FrameReader(_side(numbers), width)
        else:
            self.read = nn.Linear(numbers, width)
        self.embed = nn.Sequential(nn.GELU(), nn.Linear(width, width), nn.GELU())

    def forward(self, kept: Packed) -> Float[Tensor, "samples twice_width"]:
        sample = torch.arange(len(kept), device=kept.positions.device)[:, None].expand_as(kept.positions).flatten()
        index, values = kept.positions.flatten(), kept.values.flatten(0, 1)
        if kept.real is not None:
            real = kept.real.flatten()
            sample, index, values = sample[real], index[real], values[real]
        chosen = (values - self.mean[index]) / self.scale[index]
        first = chosen * self.slope[index] if self.single else self.read(chosen)
        return _pooled(self.embed(first + self.offset[index]), sample, len(kept))


class _FrameReader(nn.Module):
    """Four convolutions of stride 2, then the mean over what is left."""

    def __init__(self, side: int, width: int) -> None:
        super().__init__()
        if side < 8:
            raise ValueError("Expected square frames of three colours and 8 x 8 pixels or more.")
        self.side = side
        sizes = (3, 16, 32, 64, width)
        self.layers = nn.Sequential(
            *(
                layer
                for before, after in pairwise(sizes)
                for layer in (nn.Conv2d(before, after, 3, 2, 1), nn.GroupNorm(1, after), nn.GELU())
            )
        )

    def forward(self, values: Float[Tensor, "frames numbers"]) -> Float[Tensor, "frames width"]:
        return cast(Tensor, self.layers(values.unflatten(1, (3, self.side, self.side)))).mean(dim=(2, 3))


def _pooled(
    embedded: Float[Tensor, "kept width"], sample: Int64[Tensor, " kept"], samples: int
) -> Float[Tensor, "samples twice_width"]:
    """Return mean and maximum of each sample's elements; zeros where it has none."""
    empty = embedded.new_zeros(samples, embedded.shape[1])
    rows = sample[:, None].expand_as(embedded)
    counted = embedded.new_zeros(samples).index_add(0, sample, embedded.new_ones(len(sample)))
    mean = empty.index_add(0, sample, embedded) / counted.clamp_min(1)[:, None]
    top = empty.scatter_reduce(0, rows, embedded, "amax", include_self=False)
    return torch.cat([mean, top], dim=1)


def _side(numbers: int) -> int:
    """Return the side of a square RGB frame of so many numbers, or 0."""
    side = math.isqrt(numbers // 3)
    return side if 3 * side * side == numbers else 0
