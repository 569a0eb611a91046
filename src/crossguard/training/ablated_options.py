"""How a model is trained on ablated inputs, every option documented and checked once."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Int64

from crossguard.checks import check_option_names, check_range, check_whole
from crossguard.progress import Reporter

Own = TypeVar("Own", bound="AblatedOptions")


@dataclass(frozen=True, kw_only=True)
class AblatedOptions:
    """Options of `train_ablated`, which takes them as keywords; recipes give them under `train.options`.

    Args:
        keep: elements kept of each modality, by its name.
        noise: sigma of each other modality, which gets Gaussian noise instead, as `certify`.
        lengths: int64 [samples] by modality, elements that each sample has; those behind are padding, never kept. Of
            fewer than `keep` all are kept.
        steps: optimiser steps (AdamW, one cycle of the learning rate).
        batch_size: samples per step, drawn with replacement.
        lr: largest learning rate.
        weight_decay: of AdamW.
        joint: keep the sum of all k of all elements together, for a base model of the baseline (`certify` with
            `scheme="joint"`).
        augment: changes the inputs of a batch before ablation, such as `turn_sensors`; of a segmenter images and
            labels, such as `flip_and_tint`.
        seed: of batches, masks, augmentation and dropout; equal seeds give equal weights on one machine, and PyTorch's
            global generator is left as it was.
        device: where to train.
        folder: where checkpoints go; a training that was stopped goes on from the last one, to the same weights.
        checkpoint_every: steps between checkpoints.
        progress: shows steps, loss and the share of right sub-samples.

    Raises:
        ValueError: an option out of range.
    """

    keep: Mapping[str, int]
    noise: Mapping[str, float | int] | None = None
    lengths: Mapping[str, Int64[np.ndarray, " samples"]] | None = None
    steps: int = 1500
    batch_size: int = 256
    lr: float = 3e-3
    weight_decay: float = 1e-2
    joint: bool = False
    augment: Callable[..., Any] | None = None
    seed: int = 0
    device: torch.device | str = "cpu"
    folder: Path | str | None = None
    checkpoint_every: int = 500
    progress: Reporter | None = None

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "checkpoint_every"):
            object.__setattr__(self, name, check_whole(getattr(self, name), name, least=1))
        object.__setattr__(self, "seed", check_whole(self.seed, "seed", least=0))
        check_range(self.lr, "lr", below=math.inf, zero=False)
        check_range(self.weight_decay, "weight_decay", below=math.inf)
        if self.joint and self.lengths:
            raise ValueError("Expected `lengths` with modalities that are sub-sampled apart, but got `joint`.")

    @classmethod
    def read(cls: type[Own], given: Mapping[str, Any], what: str, *, without: Collection[str] = ()) -> Own:
        """Return options given by name.

        Raises:
            ValueError: an unknown name (the nearest is named), no `keep`, or an option out of range.
        """
        check_option_names(cls, given, what=f"`{what}`", own=without)
        return cls(**given)

    @property
    def outcome(self) -> dict[str, Any]:
        """The options that decide the outcome, as JSON values."""
        numbers = {name: getattr(self, name) for name in ("steps", "batch_size", "seed", "joint")}
        return {
            **numbers,
            "lr": float(self.lr),
            "weight_decay": float(self.weight_decay),
            "augment": getattr(self.augment, "__qualname__", self.augment and type(self.augment).__name__),
        }


@dataclass(frozen=True, kw_only=True)
class AblatedSegmenterOptions(AblatedOptions):
    """Options of `train_ablated_segmenter`, which takes them as keywords, and those of `AblatedOptions` but `lengths`.

    Args:
        whole: share of the images that are shown whole, so that the model stays good on those too.
        class_weights: weight of each label in the loss, for rare ones; None weighs pixels alike.

    Raises:
        ValueError: an option out of range.
    """

    steps: int = 1000
    batch_size: int = 8
    lr: float = 2e-3
    whole: float = 0.1
    class_weights: Sequence[float] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.whole <= 1:
            raise ValueError(f"Expected `whole` in [0, 1], but got {self.whole}.")

    @property
    def outcome(self) -> dict[str, Any]:
        """The options that decide the outcome, as JSON values."""
        weights = None if self.class_weights is None else [float(weight) for weight in self.class_weights]
        return {**super().outcome, "whole": self.whole, "class_weights": weights}
