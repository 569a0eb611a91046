"""`MultiModalSamples`: named modalities of equal length with a label or a mask each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64, Shaped


@dataclass(frozen=True)
class MultiModalSamples:
    """Samples of several modalities, for classifiers (one label each) and segmenters (one mask each).

    Args:
        name: name of the data set.
        split: name of the split.
        modalities: by name, an array [samples, ...] of finite numbers. For sensors [samples, elements, features].
        labels: int64 [samples] class indices, or int64 [samples, height, width] masks; -1 marks what is not judged.
        classes: the names of the labels.
        groups: int64 [samples], who or what each sample came from (a person, a scene); splits never cut a group.

    Raises:
        ValueError: lengths differ, a modality is empty or not finite, a label is out of range.
    """

    name: str
    split: str
    modalities: Mapping[str, Shaped[np.ndarray, "samples ..."]]
    labels: Int64[np.ndarray, "samples ..."]
    classes: Sequence[str]
    groups: Int64[np.ndarray, " samples"]

    def __post_init__(self) -> None:
        if not self.modalities:
            raise ValueError("Expected at least one modality, but got none.")
        for modality, values in self.modalities.items():
            if len(values) != len(self.labels):
                raise ValueError(
                    f"Expected {len(self.labels)} samples of {modality!r} (as labels), but got {len(values)}."
                )
            if values.size == 0:
                raise ValueError(f"Expected {modality!r} to have elements, but its shape is {values.shape}.")
            if not np.isfinite(values).all():
                raise ValueError(f"Expected finite values, but {modality!r} has NaN or infinity.")
        if len(self.groups) != len(self.labels):
            raise ValueError(f"Expected {len(self.labels)} groups (as labels), but got {len(self.groups)}.")
        if len(self.labels) and (self.labels.min() < -1 or self.labels.max() >= len(self.classes)):
            raise ValueError(
                f"Expected labels in [0, {len(self.classes)}) or -1, but got {self.labels.min()}..{self.labels.max()}."
            )

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, samples: Sequence[int] | Int64[np.ndarray, " chosen"]) -> "MultiModalSamples":
        """Return the chosen samples, in the order given."""
        chosen = np.asarray(samples, dtype=np.int64)
        return MultiModalSamples(
            name=self.name,
            split=self.split,
            modalities={m: values[chosen] for m, values in self.modalities.items()},
            labels=self.labels[chosen],
            classes=tuple(self.classes),
            groups=self.groups[chosen],
        )

    def head(self, max_samples: int) -> "MultiModalSamples":
        """Return the first `max_samples` samples."""
        return self.select(range(min(max_samples, len(self))))


def element_count(values: np.ndarray) -> int:
    """Return the elements per sample: pixels of [samples, channels, height, width], else the second axis."""
    return int(np.prod(values.shape[2:])) if values.ndim == 4 else int(values.shape[1])
