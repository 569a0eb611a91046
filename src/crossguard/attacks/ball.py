"""The norm owns its ball: starts, the steepest direction, projection, and the shortest way to a plane."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeAlias, overload

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from crossguard.attacks.noise import uniform

Values: TypeAlias = Float[Tensor, "samples ..."]
"""Values in [0, 1] of samples of any shape; pixels are a case of it."""


def wide(per_sample: Tensor, like: Tensor) -> Tensor:
    """Return one value per sample in a shape that broadcasts against `like`."""
    return per_sample.view(-1, *(1,) * (like.ndim - 1))


@dataclass(frozen=True)
class LInfBall:
    """All values in [0, 1] that differ from the clean ones by at most `eps`, each in its own unit.

    Args:
        clean: the centre.
        eps: the radius, in units of `unit`.
        unit: float, broadcasts against `clean`: how much of each value is one unit, > 0; None: 1 for all. Modalities
            of several budgets are one ball with `eps` 1 and each value's own budget as its unit.
    """

    clean: Values
    eps: float
    unit: Float[Tensor, "_ ..."] | None = None

    @cached_property
    def _low(self) -> Values:
        return (self.clean - self._in_units(self.eps)).clamp(min=0)

    @cached_property
    def _high(self) -> Values:
        return (self.clean + self._in_units(self.eps)).clamp(max=1)

    def rows(self, chosen: Int64[Tensor, " rows"]) -> "LInfBall":
        """Return the ball of the chosen samples."""
        unit = self.unit if self.unit is None or len(self.unit) == 1 else self.unit[chosen]
        return replace(self, clean=self.clean[chosen], unit=unit)

    def with_radius(self, eps: float) -> "LInfBall":
        """Return the ball of another radius about the same clean values."""
        return replace(self, eps=eps)

    def start(self, ids: Int64[Tensor, " samples"], *, seed: int, stream: int = 0) -> Values:
        """Draw a point uniformly, cut off at 0 and 1; it depends on (seed, stream, sample id) alone."""
        shape = tuple(self.clean.shape[1:])
        noise = uniform(ids, shape, seed=seed, stream=stream, device=self.clean.device)
        return (self.clean + (2 * noise - 1) * self._in_units(self.eps)).clamp(0, 1)

    def steepest(self, gradient: Values) -> Values:
        """Return the step of length 1 along which a linear function rises most."""
        return self._in_units(gradient.sign())

    def project(self, values: Values) -> Values:
        """Return the nearest values within the ball and [0, 1]."""
        return torch.minimum(torch.maximum(values, self._low), self._high)

    def length(self, step: Values) -> Float[Tensor, " samples"]:
        """Return the norm of a step, in units."""
        return (step if self.unit is None else step / self.unit).abs().flatten(1).amax(dim=1)

    def to_plane(self, point: Values, normal: Values, rise: Float[Tensor, " samples"]) -> Values:
        """Return the shortest step within [0, 1] along which a linear function rises by so much.

        In the largest step r that any value makes, the rise is concave and piecewise linear: every value goes on until
        it reaches 0 or 1. So r is found exactly from the sorted distances to these ends.

        Args:
            point: where to begin.
            normal: the gradient of the function.
            rise: by how much it is to change, of either sign. Where that is out of reach, the step goes all the way.
        """
        unit = torch.ones_like(point) if self.unit is None else self.unit.expand_as(point)
        slope = (normal * unit).flatten(1)
        way = slope.sign() * rise.sign()[:, None]
        flat, scale = point.flatten(1), unit.flatten(1)
        room = (torch.where(way > 0, 1 - flat, flat) / scale).clamp(min=0)
        weight = slope.abs()
        ends, order = room.sort(dim=1)
        steep = weight.gather(1, order)
        gone = (steep * ends).cumsum(dim=1)
        # What still moves after the k nearest ends were reached, and before.
        moving = steep.flip(1).cumsum(dim=1).flip(1)
        reach = gone - steep * ends + ends * moving
        need = rise.abs()[:, None]
        place = torch.searchsorted(reach, need).clamp(max=reach.shape[1] - 1)
        before = (gone - steep * ends).gather(1, place)
        size = (need - before) / moving.gather(1, place).clamp(min=torch.finfo(moving.dtype).tiny)
        return (way * torch.minimum(size, room) * scale).view_as(point)

    @overload
    def _in_units(self, step: Tensor) -> Tensor: ...
    @overload
    def _in_units(self, step: float) -> Tensor | float: ...
    def _in_units(self, step: Tensor | float) -> Tensor | float:
        return step if self.unit is None else step * self.unit
