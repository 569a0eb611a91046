"""Inputs as basic elements: one tensor [samples, elements, features] per modality, every value scaled to [0, 1].

Attacks on images (elements are patches), sensors (time steps) and scenes (pixels) climb on this one form.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import TypeAlias

import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor

from crossguard.attacks.ascent import LossPerSample
from crossguard.attacks.ball import Ball, JointBall, LInfBall, ball_of, is_empty
from crossguard.threat import Budget, LInf

Part: TypeAlias = Float[Tensor, "samples _ _"]
"""Float [samples, elements, features]; numbers of elements and features are the modality's own."""
Parts: TypeAlias = dict[str, Part]
Block: TypeAlias = tuple[int, int, int]
"""(channels, height, width) of a sample's values as a picture; a series of n elements is (features, 1, n)."""
PartsLoss: TypeAlias = Callable[[Mapping[str, Part], Int64[Tensor, " rows"]], Float[Tensor, " rows"]]
"""From rows of parts, and the sample that each row is of, to one loss per row; higher is worse for the victim."""


def all_rows(parts: Mapping[str, Part]) -> Int64[Tensor, " rows"]:
    """Return the rows 0, 1, ... of parts whose row i is of sample i."""
    first = next(iter(parts.values()))
    return torch.arange(len(first), device=first.device)


def gradient_of(loss: PartsLoss, parts: Mapping[str, Part]) -> tuple[Float[Tensor, " samples"], Parts]:
    """Return the loss of every sample and its gradient; zeros for a part that plays no role."""
    leaves = {name: values.detach().requires_grad_(True) for name, values in parts.items()}
    with torch.enable_grad():
        value = loss(leaves, all_rows(leaves))
        # Words alone give a loss without a gradient.
        gradients = (
            torch.autograd.grad(value.sum(), tuple(leaves.values()), allow_unused=True)
            if value.requires_grad
            else (None,) * len(leaves)
        )
    return value.detach(), {
        name: torch.zeros_like(leaf) if gradient is None else gradient
        for (name, leaf), gradient in zip(leaves.items(), gradients, strict=True)
    }


@dataclass(frozen=True)
class Box:
    """Several parts as one ball, so that one search moves all of them at once.

    Args:
        whole: all parts of the samples; those outside the ball stay as they are.
        names: the parts that move, side by side in the ball's values, each feature by feature.
        ball: of these values.
    """

    whole: Mapping[str, Part]
    names: tuple[str, ...]
    ball: Ball

    @classmethod
    def around(
        cls, clean: Mapping[str, Part], budgets: Mapping[str, Budget], blocks: Mapping[str, Block]
    ) -> "Box | None":
        """Return the ball of all budgets about the clean values; None where nothing may move.

        Args:
            clean: the parts.
            budgets: by part.
            blocks: what the values of a sample's parts are as pictures.
        """
        moved = [name for name in clean if not is_empty(budgets.get(name))]
        eps = {name: budget.eps for name in moved if isinstance(budget := budgets[name], LInf)}
        others = tuple(name for name in moved if name not in eps)
        names = (*eps, *others)
        balls: list[Ball] = []
        if eps:
            units = {name: torch.full_like(clean[name][:1], radius) for name, radius in eps.items()}
            balls.append(LInfBall(_side_by_side(clean, tuple(eps)), 1.0, _side_by_side(units, tuple(eps))))
        for name in others:
            picture = _side_by_side(clean, (name,)).view(-1, *blocks[name])
            balls.append(ball_of(budgets[name], picture))
        if not balls:
            return None
        return cls(clean, names, balls[0] if eps and not others else JointBall.of(balls))

    @classmethod
    def between(cls, low: Mapping[str, Part], high: Mapping[str, Part]) -> "Box":
        """Return the box between two ends; values whose ends are equal stay where they are."""
        names = tuple(low)
        bottom, top = _side_by_side(low, names), _side_by_side(high, names)
        return cls(low, names, LInfBall((bottom + top) / 2, 1.0, (top - bottom) / 2))

    def join(self, parts: Mapping[str, Part]) -> Float[Tensor, "rows values"]:
        """Return the values of the parts that move."""
        return _side_by_side(parts, self.names)

    def split(self, values: Float[Tensor, "rows values"], rows: Int64[Tensor, " rows"] | None = None) -> Parts:
        """Return all parts with these values.

        Args:
            values: as `join` gives them.
            rows: the samples that they are of; None: all.
        """
        parts = {name: part if rows is None else part[rows] for name, part in self.whole.items()}
        sizes = [self.whole[name][0].numel() for name in self.names]
        for name, flat in zip(self.names, values.split(sizes, dim=1), strict=True):
            _, elements, features = self.whole[name].shape
            parts[name] = flat.view(-1, features, elements).transpose(1, 2)
        return parts

    def loss(self, loss: PartsLoss) -> LossPerSample:
        """Return a loss of all parts as a function of the values."""
        everyone = all_rows(self.whole)
        return lambda values: loss(self.split(values), everyone)


def block_of(shape: tuple[int, ...]) -> Block:
    """Return what values of a shape (without the samples' axis) are as a picture: a series is one of one row."""
    if len(shape) == 3:
        return shape[0], shape[1], shape[2]
    return prod(shape[1:]), 1, shape[0]


def as_elements(values: Shaped[Tensor, "samples ..."]) -> Shaped[Tensor, "samples elements features"]:
    """Return [samples, elements, features]: pixels of [samples, channels, height, width], else the second axis."""
    if values.ndim == 4:
        return values.flatten(2).transpose(1, 2)
    return values.reshape(len(values), values.shape[1], -1)


def as_pictures(values: Shaped[Tensor, "samples ..."]) -> Shaped[Tensor, "samples channels height width"]:
    """Return values as `block_of` says."""
    return as_elements(values).transpose(1, 2).reshape(len(values), *block_of(tuple(values.shape[1:])))


def from_elements(
    parts: Shaped[Tensor, "samples elements features"], shape: tuple[int, ...]
) -> Shaped[Tensor, "samples ..."]:
    """Return values of a shape (without the samples' axis); the inverse of `as_elements`."""
    if len(shape) == 3:
        return parts.transpose(1, 2).reshape(len(parts), *shape)
    return parts.reshape(len(parts), *shape)


def choose(better: Bool[Tensor, " samples"], new: Mapping[str, Part], old: Mapping[str, Part]) -> Parts:
    """Return, per sample, the new parts where they are better and the old ones elsewhere."""
    return {name: torch.where(better[:, None, None], new[name], old[name]) for name in old}


def _side_by_side(parts: Mapping[str, Part], names: tuple[str, ...]) -> Float[Tensor, "samples values"]:
    return torch.cat([parts[name].transpose(1, 2).flatten(1) for name in names], dim=1)
