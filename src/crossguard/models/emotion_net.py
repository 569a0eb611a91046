"""`EmotionNet`: a two-branch classifier of video and sound that sees any subset of their elements."""

import math
import warnings
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from crossguard.data.samples import MultiModalSamples
from crossguard.models.base import Packed
from crossguard.models.inputs import chosen_modalities, mean_and_deviation
from crossguard.models.named import NamedModules
from crossguard.models.packing import pack_all
from crossguard.models.storage import load_network, save_network

MODEL_TYPE = "emotion-net"
SMALLEST = 8
"""Height and width of the smallest frames: four convolutions halve them."""


class EmotionNet(nn.Module):
    """One branch per modality: every kept element is embedded with its index, then mean and maximum over the elements.

    An element is a frame, a window of sound, or a single clip-level feature. What an element's value means depends on
    its index where elements are single features, so these have weights of their own, value * A[i] + B[i]; elements of
    several numbers share one linear map and have a vector B[i] each; frames are read by a small convolutional network.
    Only kept elements are computed (Deep Sets, arXiv 1703.06114).

    Args:
        shapes: (elements, numbers per element) of each modality, by name, in order.
        classes: the names of the labels.
        frames: modalities whose elements are frames: (channels, height, width) by name, the numbers of an element in
            that order; names alone stand for square RGB frames.
        width: size of the embeddings.
        dropout: share of the pooled features dropped in training.
        position_free: modalities whose elements are embedded without their index, as a bag; certificates of these hold
            against insertions and deletions too. Not for single features.

    Attributes:
        name: "emotion-net".
        modalities: the names of the inputs.
        packs: the same: every modality can be taken packed.

    Raises:
        ValueError: no modality, fewer than two classes, frames of another number of values or below 8 x 8 pixels, or
            single features without an index.
    """

    def __init__(
        self,
        shapes: Mapping[str, tuple[int, int]],
        classes: tuple[str, ...],
        *,
        frames: Mapping[str, Sequence[int]] | Sequence[str] = (),
        width: int = 96,
        dropout: float = 0.3,
        position_free: Sequence[str] = (),
    ) -> None:
        super().__init__()
        if not shapes or len(classes) < 2:
            raise ValueError(f"Expected a modality and two classes or more, but got {dict(shapes)} and {classes}.")
        self.name = MODEL_TYPE
        self.modalities = self.packs = tuple(shapes)
        self.position_free = chosen_modalities(position_free, shapes, "position_free")
        named = chosen_modalities(tuple(frames), shapes, "frames")
        sizes = frames if isinstance(frames, Mapping) else {m: (3, *[_side(shapes[m][1])] * 2) for m in named}
        read = {m: check_frames(m, shapes[m][1], sizes[m]) for m in named}
        self.classes = tuple(classes)
        self.config = {
            "model_type": MODEL_TYPE,
            "shapes": {m: list(shape) for m, shape in shapes.items()},
            "classes": list(classes),
            "frames": _told(read),
            "width": width,
            "dropout": dropout,
            "position_free": list(self.position_free),
        }
        self.branches = NamedModules(
            {
                m: _Branch(*shape, width=width, frames=read.get(m), free=m in self.position_free)
                for m, shape in shapes.items()
            }
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
            inputs: float [samples, elements, numbers] per modality; frames may have their shape.
            kept: bool [samples, elements] per modality, True where an element was not ablated; None means all of them.

        Raises:
            ValueError: a modality is missing or of another shape, or a mask of another shape than its values.
        """
        for modality, values in inputs.items():
            if modality in self.modalities:
                shape = cast(_Branch, self.branches[modality]).mean.shape
                if values.shape[1:2].numel() != shape[0] or values.shape[2:].numel() != shape[1]:
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
        cls,
        samples: MultiModalSamples,
        *,
        frames: Mapping[str, Sequence[int]] | None = None,
        width: int = 96,
        dropout: float = 0.3,
        position_free: Sequence[str] = (),
        seed: int = 0,
    ) -> "EmotionNet":
        """Return an untrained model for the samples' modalities and classes, normalised by their mean and deviation.

        Args:
            samples: training samples, every modality float [samples, elements, numbers], or frames
                [samples, elements, channels, height, width].
            frames: as the class, for frames that lie flat; None: one named "video" whose elements are 3 * size * size
                numbers, as those of RAVDESS, is read as square RGB frames.
            width: as the class.
            dropout: as the class.
            position_free: as the class.
            seed: of the initial weights; PyTorch's global generator is left as it was.

        Raises:
            ValueError: a modality has another number of dimensions.
        """
        for modality, values in samples.modalities.items():
            if values.ndim not in (3, 5):
                raise ValueError(
                    f"Expected {modality!r} [samples, elements, numbers] or [samples, elements, channels, height, "
                    f"width], but got {values.shape}."
                )
        shapes = {m: (values.shape[1], math.prod(values.shape[2:])) for m, values in samples.modalities.items()}
        if frames is None:
            frames = _frames_by_name(shapes)
        frames = {**frames, **{m: values.shape[2:] for m, values in samples.modalities.items() if values.ndim == 5}}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = cls(
                shapes,
                tuple(samples.classes),
                frames=frames,
                width=width,
                dropout=dropout,
                position_free=position_free,
            )
        for modality, values in samples.modalities.items():
            branch = cast(_Branch, model.branches[modality])
            # Single features have a scale each; the numbers of a sequence's elements have theirs over all of it.
            flat = values.reshape(*values.shape[:2], -1)
            mean, scale = mean_and_deviation(flat, axis=0 if flat.shape[2] == 1 else (0, 1), least=1e-3)
            branch.mean.copy_(mean.expand_as(branch.mean))
            branch.scale.copy_(scale.expand_as(branch.scale))
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
                frames=config["frames"],
                width=config["width"],
                dropout=config["dropout"],
                position_free=config["position_free"],
            )

        model = load_network(make, source)
        model.name = name or MODEL_TYPE
        return model


class _Branch(nn.Module):
    mean: Tensor
    scale: Tensor

    def __init__(
        self, elements: int, numbers: int, *, width: int, frames: tuple[int, int, int] | None, free: bool
    ) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(elements, numbers))
        self.register_buffer("scale", torch.ones(elements, numbers))
        self.free = free
        if free and numbers == 1:
            raise ValueError("Expected elements of several numbers without an index, but single features mean nothing.")
        self.offset = nn.Parameter(torch.randn(elements, width) * 0.5) if not free else None
        self.single = numbers == 1
        if self.single:
            self.slope = nn.Parameter(torch.randn(elements, width))
        elif frames is not None:
            self.read: nn.Module = _FrameReader(frames, width)
        else:
            self.read = nn.Linear(numbers, width)
        self.embed = nn.Sequential(nn.GELU(), nn.Linear(width, width), nn.GELU())

    def forward(self, kept: Packed) -> Float[Tensor, "samples twice_width"]:
        sample = torch.arange(len(kept), device=kept.positions.device)[:, None].expand_as(kept.positions).flatten()
        index, values = kept.positions.flatten(), kept.values.flatten(0, 1).flatten(1)
        if kept.real is not None:
            real = kept.real.flatten()
            sample, index, values = sample[real], index[real], values[real]
        if self.free:
            index = torch.zeros_like(index)  # of one mean and scale for all elements
        chosen = (values - self.mean[index]) / self.scale[index]
        first = chosen * self.slope[index] if self.single else self.read(chosen)
        return _pooled(self.embed(first if self.offset is None else first + self.offset[index]), sample, len(kept))


class _FrameReader(nn.Module):
    """Four convolutions of stride 2, then the mean over what is left."""

    def __init__(self, shape: tuple[int, int, int], width: int) -> None:
        super().__init__()
        self.shape = shape
        sizes = (shape[0], 16, 32, 64, width)
        self.layers = nn.Sequential(
            *(
                layer
                for before, after in pairwise(sizes)
                for layer in (nn.Conv2d(before, after, 3, 2, 1), nn.GroupNorm(1, after), nn.GELU())
            )
        )

    def forward(self, values: Float[Tensor, "frames numbers"]) -> Float[Tensor, "frames width"]:
        return cast(Tensor, self.layers(values.unflatten(1, self.shape))).mean(dim=(2, 3))


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


def _frames_by_name(shapes: Mapping[str, tuple[int, int]]) -> dict[str, Sequence[int]]:
    """Return the frames of a modality named "video" whose elements can be square RGB frames."""
    if "video" not in shapes:
        return {}
    side = _side(shapes["video"][1])
    if side >= SMALLEST:
        return {"video": (3, side, side)}
    if shapes["video"][1] < 3 * SMALLEST**2:
        return {}  # numbers that were worked out of frames
    warnings.warn(
        f"'video' has {shapes['video'][1]} numbers per element, no square RGB frame: it is read by one linear layer. "
        "Say `frames={'video': (channels, height, width)}` for a convolutional network, `frames={}` for none.",
        stacklevel=3,
    )
    return {}


def _told(frames: Mapping[str, tuple[int, int, int]]) -> list[str] | dict[str, list[int]]:
    """Return the frames as JSON: their names alone where all are square and of three colours."""
    if all(shape == (3, shape[1], shape[1]) for shape in frames.values()):
        return list(frames)
    return {m: list(shape) for m, shape in frames.items()}


def check_frames(modality: str, numbers: int, shape: Sequence[int]) -> tuple[int, int, int]:
    """Return (channels, height, width) of a modality's frames.

    Raises:
        ValueError: three other numbers than fit the elements, or frames that are too small.
    """
    if len(shape) != 3 or math.prod(shape) != numbers or min(shape[1:]) < SMALLEST or shape[0] < 1:
        raise ValueError(
            f"Expected frames of {modality!r} as (channels, height, width) of {numbers} numbers together, "
            f"{SMALLEST} x {SMALLEST} pixels or more, but got {tuple(shape)}."
        )
    return (shape[0], shape[1], shape[2])


def _side(numbers: int) -> int:
    """Return the side of a square RGB frame of so many numbers, or 0."""
    side = math.isqrt(numbers // 3)
    return side if 3 * side * side == numbers else 0
