"""What a classifier or segmenter of several modalities takes from samples, checked in one place."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from crossguard.checks import WrongKind, lookup
from crossguard.data.samples import MultiModalSamples


def check_labelling(model: Any) -> None:
    """Refuse what gives no labels from several modalities.

    Raises:
        WrongKind: the model has no modalities or no classes.
    """
    if not hasattr(model, "modalities") or not hasattr(model, "classes"):
        raise WrongKind(
            f"Expected a classifier or segmenter of several modalities (see crossguard.models), but "
            f"{type(model).__name__} is none."
        )


def input_arrays(model: Any, samples: MultiModalSamples) -> dict[str, Shaped[np.ndarray, "samples ..."]]:
    """Return the arrays of the model's modalities, in its order.

    Args:
        model: what has `modalities` and `classes`: a model, or a defence around one.
        samples: of the same classes.

    Raises:
        WrongKind: the model is no classifier or segmenter of several modalities.
        ValueError: a modality is missing, or the samples are of other classes.
    """
    check_labelling(model)
    arrays = {m: lookup(samples.modalities, m, what="modality") for m in model.modalities}
    if tuple(samples.classes) != tuple(model.classes):
        raise ValueError(f"Expected samples of the model's classes {model.classes}, but got {samples.classes}.")
    return arrays


def input_tensor(values: Shaped[np.ndarray, "samples ..."], device: torch.device | str) -> Float[Tensor, "samples ..."]:
    """Return values as models take them: a float32 copy on a device, whatever their type, byte order or strides.

    Args:
        values: of one modality.
        device: where the model is.
    """
    return torch.from_numpy(input_values(values)).to(device)


def input_values(values: Shaped[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Return a copy of values as models take them: float32, contiguous."""
    return values.astype(np.float32, order="C")


def mean_and_deviation(
    values: Shaped[np.ndarray, "samples ..."], *, axis: int | tuple[int, ...], least: float
) -> tuple[Float[Tensor, "..."], Float[Tensor, "..."]]:
    """Return float32 mean and standard deviation, worked out in float64: half precision overflows at the first sum.

    Args:
        values: of one modality.
        axis: what they are taken over.
        least: the smallest deviation, in place of 0 where all values are equal.
    """
    mean, deviation = values.mean(axis=axis, dtype=np.float64), values.std(axis=axis, dtype=np.float64)
    return torch.from_numpy(np.asarray(mean)).float(), torch.from_numpy(np.asarray(deviation)).clamp_min(least).float()


def chosen_modalities(names: Sequence[str], known: Iterable[str], what: str) -> tuple[str, ...]:
    """Return some of the modalities, in the order given.

    Raises:
        ValueError: an unknown one.
    """
    table = dict.fromkeys(known)
    for name in names:
        lookup(table, name, what=f"modality in `{what}`")
    return tuple(names)
