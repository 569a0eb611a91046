"""`MultiModalSamples`: named modalities of equal length with a label or a mask each."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int64, Shaped

from crossguard.checks import some
from crossguard.notebook import Shown


@dataclass(frozen=True, repr=False)
class MultiModalSamples(Shown):
    """Samples of several modalities, for classifiers (one label each) and segmenters (one mask each).

    Args:
        name: name of the data set.
        split: name of the split.
        modalities: by name, an array [samples, ...] of finite numbers. For sensors [samples, elements, features].
            Half precision becomes single: sums of it overflow.
        labels: int64 [samples] class indices, or int64 [samples, height, width] masks; -1 marks what is not judged.
            Other whole numbers become int64.
        classes: the names of the labels.
        groups: int64 [samples], who or what each sample came from (a person, a scene); splits never cut a group.
        notes: what the loader saw and a reader of the results should know.

    Raises:
        ValueError: lengths differ, a modality is empty or not finite, a label is out of range.
    """

    name: str
    split: str
    modalities: Mapping[str, Shaped[np.ndarray, "samples ..."]]
    labels: Int64[np.ndarray, "samples ..."]
    classes: Sequence[str]
    groups: Int64[np.ndarray, " samples"]
    notes: Sequence[str] = ()

    def told(self) -> str:
        """Return its name and size."""
        shapes = ", ".join(f"{name} {values.shape[1:]}" for name, values in self.modalities.items())
        return f"{self.name!r}, split={self.split!r}, {len(self):,} samples of {shapes}, {len(self.classes)} classes"

    def __post_init__(self) -> None:
        if not self.modalities:
            raise ValueError("Expected at least one modality, but got none.")
        object.__setattr__(self, "notes", tuple(self.notes))
        object.__setattr__(self, "modalities", {name: _single(values) for name, values in self.modalities.items()})
        for name in ("labels", "groups"):
            object.__setattr__(self, name, _whole(getattr(self, name), name))
        for modality, values in self.modalities.items():
            if len(values) != len(self.labels):
                raise ValueError(
                    f"Expected {len(self.labels)} samples of {modality!r} (as labels), but got {len(values)}."
                )
            if values.size == 0:
                raise ValueError(f"Expected {modality!r} to have elements, but its shape is {values.shape}.")
            if not np.isfinite(values).all():
                raise ValueError(f"Expected finite values, but {modality!r} has NaN or infinity.")
            if values.dtype == np.float64 and max(-values.min(), values.max()) > _LARGEST:
                raise ValueError(
                    f"Expected values that numbers of 32 bits can be, up to {_LARGEST:.2g}, but {modality!r} has more."
                )
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
            notes=self.notes,
        )

    def head(self, max_samples: int) -> "MultiModalSamples":
        """Return the first `max_samples` samples."""
        return self.select(range(min(max_samples, len(self))))


_LARGEST = float(np.finfo(np.float32).max)
_CLASSES = 2**20
"""The most classes that numbers alone stand for."""


def as_samples(
    modalities: Any,
    labels: Any = None,
    *,
    groups: Any = None,
    classes: Sequence[str] | None = None,
    name: str = "samples",
    split: str = "test",
) -> MultiModalSamples:
    """Make samples of arrays by name; samples are returned as they are.

    Args:
        modalities: by name, arrays or tensors of numbers: [samples, elements, features], [samples, elements] (one
            feature each), or [samples, channels, height, width].
        labels: [samples] whole numbers from 0 or names of classes, or [samples, height, width] whole numbers; -1 marks
            what is not judged.
        groups: [samples], who or what each sample came from, as numbers or names. Default: every sample is a group of
            its own, and a note says so, since intervals and splits then take samples of one source for independent.
        classes: names of the labels; default: the labels themselves, sorted, or numbers.
        name: of the data set.
        split: of the data set.

    Raises:
        ValueError: no mapping of arrays, values that are no finite numbers, lengths that differ, labels out of range.

    Example:
        >>> made = as_samples({"audio": np.zeros((2, 5)), "video": np.zeros((2, 3, 4))}, ["no", "yes"])
        >>> made.modalities["audio"].shape, made.labels, made.classes
        ((2, 5, 1), array([0, 1]), ('no', 'yes'))
    """
    if isinstance(modalities, MultiModalSamples):
        return modalities
    if not isinstance(modalities, Mapping) or labels is None:
        raise ValueError(
            f"Expected arrays by name and labels, but got a {type(modalities).__name__}"
            f"{' without labels' if labels is None else ''}."
        )
    arrays = {str(key): _values(values, f"modality {key!r}") for key, values in modalities.items()}
    nameless = [key for key in arrays if not key.strip() or not key.isprintable()]
    if nameless:
        raise ValueError(f"Expected names of modalities that can be read, but got {some(list(map(repr, nameless)))}.")
    found, names = _labels(labels, classes)
    found = _whole(found, "labels")
    if found.ndim not in (1, 3):
        raise ValueError(f"Expected labels [samples] or [samples, height, width], but got {list(found.shape)}.")
    other = {key: len(values) for key, values in arrays.items() if len(values) != len(found)}
    if other:
        raise ValueError(f"Expected {len(found)} samples (as labels), but got {other}.")
    notes = []
    if found.ndim == 1 and (hidden := int((found == -1).sum())):
        if set(found.tolist()) == {-1, 1}:
            raise ValueError(
                "Expected labels that count classes from 0, but got -1 and 1: -1 marks what is not judged."
            )
        notes.append(f"{hidden:,} of {len(found):,} samples have the label -1 and are not judged")
    if groups is None:
        notes.append("no groups: every sample counts as independent of all others, in intervals and splits")
        own = np.arange(len(found))
    else:
        own = _groups(groups, len(found))
    return MultiModalSamples(
        name=name,
        split=split,
        modalities={key: values[..., None] if values.ndim == 2 else values for key, values in arrays.items()},
        labels=found,
        classes=names,
        groups=own.astype(np.int64),
        notes=notes,
    )


def _groups(given: Any, samples: int) -> np.ndarray:
    """Return groups as whole numbers: as they are, or numbered where they are names."""
    _check_alike(given, "groups")
    found = _array(given)
    if found.dtype.kind == "O" and all(isinstance(name, str) for name in found.reshape(-1).tolist()):
        found = found.astype(str)
    if found.shape != (samples,) or found.dtype.kind not in "iuUS":
        raise ValueError(
            f"Expected {samples} groups (as labels), whole numbers or names, but got {found.dtype} {list(found.shape)}."
        )
    return found if found.dtype.kind in "iu" else np.unique(found, return_inverse=True)[1].reshape(-1)


def _array(values: Any) -> np.ndarray:
    if hasattr(values, "detach"):  # bfloat16 has no counterpart in NumPy
        values = values.detach().cpu()
        values = values.float() if values.is_floating_point() and values.element_size() < 4 else values
    if np.ma.is_masked(values):
        raise ValueError(f"{np.ma.count_masked(values):,} values are masked: fill them")
    return np.asarray(values)


def _check_alike(values: Any, what: str) -> None:
    """Refuse names among numbers, which NumPy would make names of."""
    if isinstance(values, list | tuple):
        other = {type(value).__name__ for value in values}
        if other & {"str", "bytes", "str_", "bytes_"} and other - {"str", "bytes", "str_", "bytes_"}:
            raise ValueError(
                f"Expected {what} that are all whole numbers or all names, but some are {some(sorted(other))}."
            )


def _values(values: Any, what: str) -> np.ndarray:
    try:
        found = _array(values)
    except (ValueError, TypeError) as error:
        raise ValueError(f"Expected {what} to be one array, but got: {error}") from error
    if found.dtype.kind not in "fiub" or found.ndim < 2:
        raise ValueError(
            f"Expected {what} to be numbers [samples, elements, ...], but got {found.dtype} {list(found.shape)}."
        )
    return found if found.dtype.kind == "f" else found.astype(np.float32)


def _labels(labels: Any, classes: Sequence[str] | None) -> tuple[np.ndarray, tuple[str, ...]]:
    _check_alike(labels, "labels")
    try:
        found = _array(labels)
    except (ValueError, TypeError) as error:
        raise ValueError(f"Expected labels in one array, but got: {error}") from error
    again = [name for name, count in Counter(map(str, classes or ())).items() if count > 1]
    if again:
        raise ValueError(f"Expected different names of classes, but some come again: {some(again)}.")
    if found.dtype.kind in "OUS":
        other = sorted({type(label).__name__ for label in found.reshape(-1).tolist()} - {"str", "bytes"})
        if other:
            raise ValueError(f"Expected labels that are all whole numbers or all names, but some are {some(other)}.")
        told = found.astype(str).reshape(-1).tolist()
        names = sorted(set(told)) if classes is None else list(map(str, classes))
        unknown = sorted(set(told) - set(names))
        if found.ndim != 1 or unknown:
            raise ValueError(f"Expected labels of the classes {some(names)}, but got {some(unknown)}.")
        place = {name: index for index, name in enumerate(names)}
        return np.array([place[label] for label in told], dtype=np.int64), tuple(names)
    if classes is not None:
        return found, tuple(map(str, classes))
    most = int(found.max()) + 1 if found.size and found.dtype.kind in "iu" else 0
    if most > _CLASSES:
        raise ValueError(f"Expected labels that count classes from 0, up to {_CLASSES:,}, but got {most - 1}.")
    return found, tuple(map(str, range(most)))


def _single(values: np.ndarray) -> np.ndarray:
    """Return numbers that PyTorch can take: of the machine's byte order, floating point of 4 or 8 bytes."""
    values = np.asarray(values)
    if values.dtype.kind == "f" and values.dtype.itemsize not in (4, 8):
        return values.astype(np.float32 if values.dtype.itemsize < 4 else np.float64)
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def _whole(values: np.ndarray, what: str) -> np.ndarray:
    if values.dtype.kind not in "iu":
        raise ValueError(f"Expected whole numbers as {what}, but got {values.dtype}.")
    return values.astype(np.int64, copy=False)


def element_count(values: np.ndarray) -> int:
    """Return the elements per sample: pixels of [samples, channels, height, width], else the second axis."""
    return int(np.prod(values.shape[2:])) if values.ndim == 4 else int(values.shape[1])
