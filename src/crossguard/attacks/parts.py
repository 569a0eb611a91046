"""Inputs as basic elements: one tensor [samples, elements, features] per modality, every value scaled to [0, 1].

Attacks on images (elements are patches), sensors (time steps) and scenes (pixels) climb on this one form.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from crossguard.attacks.apgd import auto_ascend
from crossguard.attacks.ascent import LossPerSample, with_gradient
from crossguard.attacks.ball import LInfBall

Part: TypeAlias = Float[Tensor, "samples _ _"]
"""Float [samples, elements, features]; numbers of elements and features are the modality's own."""
Parts: TypeAlias = dict[str, Part]
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
        ball: each value's own half-width as its unit.
    """

    whole: Mapping[str, Part]
    names: tuple[str, ...]
    ball: LInfBall

    @classmethod
    def around(cls, clean: Mapping[str, Part], eps: Mapping[str, float]) -> "Box | None":
        """Return the box of at most `eps` about the clean values, by part; None where nothing may move."""
        names = tuple(name for name in clean if eps.get(name, 0.0) > 0)
        if not names:
            return None
        units = {name: torch.full_like(clean[name][:1], eps[name]) for name in names}
        return cls(clean, names, LInfBall(_side_by_side(clean, names), 1.0, _side_by_side(units, names)))

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


def climb_in_box(
    loss: PartsLoss, low: Mapping[str, Part], high: Mapping[str, Part], start: Mapping[str, Part], *, steps: int
) -> Parts:
    """Maximise the loss of every sample over boxes, one per value, by Auto-PGD in all parts at once.

    A step moves every value by the same share of its own box; the first reaches from end to end.

    Args:
        loss: see `PartsLoss`.
        low: lower ends.
        high: upper ends, >= `low`.
        start: within the box.
        steps: gradient steps.

    Returns:
        The iterate of the highest loss per sample, detached.
    """
    box = Box.between(low, high)
    joint = box.loss(loss)
    return box.split(auto_ascend(with_gradient(joint), joint, box.ball, steps=steps, start=box.join(start)))


def choose(better: Bool[Tensor, " samples"], new: Mapping[str, Part], old: Mapping[str, Part]) -> Parts:
    """Return, per sample, the new parts where they are better and the old ones elsewhere."""
    return {name: torch.where(better[:, None, None], new[name], old[name]) for name in old}


def _side_by_side(parts: Mapping[str, Part], names: tuple[str, ...]) -> Float[Tensor, "samples values"]:
    return torch.cat([parts[name].transpose(1, 2).flatten(1) for name in names], dim=1)
