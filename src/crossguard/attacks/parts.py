"""Inputs as basic elements: one tensor [samples, elements, features] per modality, every value scaled to [0, 1].

Attacks on images (elements are patches), sensors (time steps) and scenes (pixels) climb on this one form.
"""

from collections.abc import Callable, Mapping
from typing import Literal, TypeAlias

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from crossguard.attacks.apgd import auto_maximise
from crossguard.attacks.ascent import LossPerSample, maximise

Part: TypeAlias = Float[Tensor, "samples _ _"]
"""Float [samples, elements, features]; numbers of elements and features are the modality's own."""
Parts: TypeAlias = dict[str, Part]
PartsLoss: TypeAlias = Callable[[Mapping[str, Part], Int64[Tensor, " rows"]], Float[Tensor, " rows"]]
"""From rows of parts, and the sample that each row is of, to one loss per row; higher is worse for the victim."""
Climb = Literal["pgd", "apgd"]


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


def climb_in_box(
    loss: PartsLoss,
    low: Mapping[str, Part],
    high: Mapping[str, Part],
    start: Mapping[str, Part],
    *,
    steps: int,
    climb: Climb = "apgd",
    step: float | None = None,
) -> Parts:
    """Maximise the loss of every sample over boxes, one per value, by signed gradient steps in all parts at once.

    The box is stretched to [0, 1], so that a step moves every value by the same share of its own width; values whose
    box is a point stay where they are.

    Args:
        loss: see `PartsLoss`.
        low: lower ends.
        high: upper ends, >= `low`.
        start: within the box.
        steps: gradient steps.
        climb: "apgd" (Auto-PGD: the first step reaches from end to end, steps halve when progress stalls) or "pgd".
        step: size of a step of "pgd" as a share of the half-width of the box; default: 1.25 / steps.

    Returns:
        The iterate of the highest loss per sample, detached.
    """
    names = tuple(start)
    shapes = [start[name].shape[1:] for name in names]
    sizes = [shape.numel() for shape in shapes]
    bottom, top = _joined(low, names), _joined(high, names)
    width = top - bottom
    begin = torch.where(width > 0, (_joined(start, names) - bottom) / width.clamp(min=1e-12), 0.5)
    everyone = all_rows(start)

    def unstretched(inside: Tensor) -> Parts:
        # A product that rounds may leave the box by one unit in the last place.
        values = torch.minimum(torch.maximum(bottom + inside * width, bottom), top)
        cut = values.split(sizes, dim=1)
        return {name: part.unflatten(1, shape) for name, part, shape in zip(names, cut, shapes, strict=True)}

    per_sample: LossPerSample = lambda inside: loss(unstretched(inside), everyone)  # noqa: E731
    middle = torch.full_like(begin, 0.5)
    if climb == "apgd":
        found = auto_maximise(per_sample, middle, eps=0.5, steps=steps, start=begin)
    else:
        size = 0.5 * (1.25 / max(1, steps) if step is None else step)
        found = maximise(per_sample, middle, eps=0.5, steps=steps, step_size=size, start=begin)
    found_parts = unstretched(found)
    # What did not move keeps its value exactly, not up to rounding.
    moved = {
        name: part.unflatten(1, shape)
        for name, part, shape in zip(names, (found != begin).split(sizes, dim=1), shapes, strict=True)
    }
    return {name: torch.where(moved[name], found_parts[name], start[name]) for name in names}


def choose(better: Bool[Tensor, " samples"], new: Mapping[str, Part], old: Mapping[str, Part]) -> Parts:
    """Return, per sample, the new parts where they are better and the old ones elsewhere."""
    return {name: torch.where(better[:, None, None], new[name], old[name]) for name in old}


def _joined(parts: Mapping[str, Part], names: tuple[str, ...]) -> Float[Tensor, "samples values"]:
    return torch.cat([parts[name].flatten(1) for name in names], dim=1)
