"""A budget owns its ball: starts, the steepest direction, projection, sizes, and rounding to what can be stored."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeAlias, overload

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn.functional import avg_pool2d

from crossguard.attacks.noise import uniform
from crossguard.threat import L2, Budget, Elements, LInf, Patch

Values: TypeAlias = Float[Tensor, "samples ..."]
"""Values in [0, 1] of samples of any shape; pixels are a case of it."""
Sizes: TypeAlias = Float[Tensor, " samples"]
_ROUNDS = 12
"""Of the projection onto an L2 ball within [0, 1]; each is exact for the values that had met 0 or 1 before."""
_SLACK = 1e-4
"""In grey levels: 8-bit pixels come as float32 multiples of 1/255."""
_OTHER_STREAM = 2**28


def wide(per_sample: Tensor, like: Tensor) -> Tensor:
    """Return one value per sample in a shape that broadcasts against `like`."""
    return per_sample.view(-1, *(1,) * (like.ndim - 1))


class Ball(ABC):
    """All values in [0, 1] that a budget allows about clean ones.

    Attributes:
        clean: the centre.
    """

    clean: Values

    @property
    @abstractmethod
    def radius(self) -> float:
        """The largest `length` of a change."""

    @property
    def stride(self) -> float:
        """What the steps of attacks are measured by."""
        return self.radius

    def rows(self, chosen: Int64[Tensor, " rows"]) -> "Ball":
        """Return the ball of the chosen samples."""
        return replace(self, clean=self.clean[chosen])  # type: ignore[type-var]

    @abstractmethod
    def start(self, ids: Int64[Tensor, " samples"], *, seed: int, stream: int = 0) -> Values:
        """Draw a point of the ball; it depends on (seed, stream, sample id) alone."""

    @abstractmethod
    def steepest(self, gradient: Values) -> Values:
        """Return the step of length 1 along which a linear function rises most."""

    @abstractmethod
    def project(self, values: Values) -> Values:
        """Return the nearest values within the ball and [0, 1]."""

    @abstractmethod
    def length(self, change: Values) -> Sizes:
        """Return how much of the budget a change takes, in the units of `radius`."""

    @abstractmethod
    def to_pixels(self, values: Values) -> Values:
        """Return 8-bit values (multiples of 1/255) within the ball near these; what was not moved stays as it is."""

    def holds(self, values: Values) -> bool:
        """Whether values are within the ball, but for what rounding in float32 adds."""
        return bool((self.length(values - self.clean) <= self.radius * (1 + 1e-5) + 1e-6).all())


class NormBall(Ball):
    """A ball of a norm, for attacks that look for the nearest wrong answer."""

    @abstractmethod
    def scaled(self, factor: float) -> "NormBall":
        """Return the ball of so many times the radius about the same clean values."""

    @abstractmethod
    def to_plane(self, point: Values, normal: Values, rise: Sizes) -> Values:
        """Return the shortest step within [0, 1] along which a linear function rises by so much.

        Args:
            point: where to begin.
            normal: the gradient of the function.
            rise: by how much it is to change, of either sign. Where that is out of reach, the step goes all the way.
        """


@dataclass(frozen=True)
class LInfBall(NormBall):
    """All values in [0, 1] that differ from the clean ones by at most `eps`, each in its own unit.

    Args:
        clean: the centre.
        eps: the radius, in units of `unit`.
        unit: float, broadcasts against `clean`: how much of each value is one unit, >= 0; None: 1 for all. Modalities
            of several budgets are one ball with `eps` 1 and each value's own budget as its unit.
    """

    clean: Values
    eps: float
    unit: Float[Tensor, "_ ..."] | None = None

    @property
    def radius(self) -> float:
        """`eps`."""
        return self.eps

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

    def scaled(self, factor: float) -> "LInfBall":
        """Return the ball of so many times the radius."""
        return replace(self, eps=self.eps * factor)

    def start(self, ids: Int64[Tensor, " samples"], *, seed: int, stream: int = 0) -> Values:
        """Draw a point uniformly, cut off at 0 and 1."""
        shape = tuple(self.clean.shape[1:])
        noise = uniform(ids, shape, seed=seed, stream=stream, device=self.clean.device)
        return (self.clean + (2 * noise - 1) * self._in_units(self.eps)).clamp(0, 1)

    def steepest(self, gradient: Values) -> Values:
        """Return the gradient's sign."""
        return self._in_units(gradient.sign())

    def project(self, values: Values) -> Values:
        """Return the nearest values, each by itself."""
        return torch.minimum(torch.maximum(values, self._low), self._high)

    def length(self, change: Values) -> Sizes:
        """Return the largest change of a value, in units."""
        return (change if self.unit is None else change / self.unit).abs().flatten(1).amax(dim=1)

    def to_pixels(self, values: Values) -> Values:
        """Return the nearest 8-bit values; a value that has none within `eps` keeps that of the source."""
        low, high = torch.ceil(self._low * 255 - _SLACK), torch.floor(self._high * 255 + _SLACK)
        grid = torch.minimum(torch.maximum(torch.round(values * 255), low), high) / 255
        return torch.where((low <= high) & (values != self.clean), grid, self.clean)

    def to_plane(self, point: Values, normal: Values, rise: Sizes) -> Values:
        """As all balls of norms."""
        unit = torch.ones_like(point) if self.unit is None else self.unit.expand_as(point)
        slope = (normal * unit).flatten(1)
        way = slope.sign() * rise.sign()[:, None]
        flat, scale = point.flatten(1), unit.flatten(1)
        room = (torch.where(way > 0, 1 - flat, flat) / scale).clamp(min=0)
        return (way * torch.minimum(_reaching(slope.abs(), room, rise), room) * scale).view_as(point)

    @overload
    def _in_units(self, step: Tensor) -> Tensor: ...
    @overload
    def _in_units(self, step: float) -> Tensor | float: ...
    def _in_units(self, step: Tensor | float) -> Tensor | float:
        return step if self.unit is None else step * self.unit


@dataclass(frozen=True)
class L2Ball(NormBall):
    """All values in [0, 1] whose change has a Euclidean norm of at most `eps`.

    Args:
        clean: the centre, in [0, 1].
        eps: the radius.
    """

    clean: Values
    eps: float

    @property
    def radius(self) -> float:
        """`eps`."""
        return self.eps

    def scaled(self, factor: float) -> "L2Ball":
        """Return the ball of so many times the radius."""
        return replace(self, eps=self.eps * factor)

    def start(self, ids: Int64[Tensor, " samples"], *, seed: int, stream: int = 0) -> Values:
        """Draw a direction uniformly, and go to the ball's surface or to 0 or 1."""
        shape = tuple(self.clean.shape[1:])
        noise = uniform(ids, shape, seed=seed, stream=stream, device=self.clean.device).clamp(min=2**-25)
        return (self.clean + self.eps * self.steepest(torch.special.ndtri(noise))).clamp(0, 1)

    def steepest(self, gradient: Values) -> Values:
        """Return the gradient at length 1; zero where it is zero."""
        return gradient / wide(self.length(gradient).clamp(min=1e-30), gradient)

    def project(self, values: Values) -> Values:
        """Return the nearest values: the change is shortened by a factor, and values stop at 0 and 1.

        The factor rises from round to round to the one at which the norm is `eps`, and never beyond it.
        """
        change, clean = (values - self.clean).flatten(1), self.clean.flatten(1)
        room, size = torch.where(change > 0, 1 - clean, clean), change.abs()
        factor = torch.zeros_like(size[:, :1])
        for _ in range(_ROUNDS):
            ended = factor * size > room
            left = self.eps**2 - torch.where(ended, room, 0).square().sum(dim=1, keepdim=True)
            rest = torch.where(ended, 0, size).square().sum(dim=1, keepdim=True)
            factor = (left.clamp(min=0) / rest.clamp(min=1e-30)).sqrt().clamp(max=1)
        moved = clean + change.sign() * torch.minimum(factor * size, room)
        return torch.where(factor < 1, moved, values.flatten(1)).clamp(0, 1).view_as(values)

    def length(self, change: Values) -> Sizes:
        """Return the Euclidean norm."""
        return change.flatten(1).norm(dim=1)

    def to_pixels(self, values: Values) -> Values:
        """Return the next 8-bit values towards the source, so that no change grows."""
        values = self.project(values)
        up = torch.maximum(torch.floor(values * 255 + _SLACK) / 255, self.clean)
        down = torch.minimum(torch.ceil(values * 255 - _SLACK) / 255, self.clean)
        return torch.where(values > self.clean, up, torch.where(values < self.clean, down, self.clean))

    def to_plane(self, point: Values, normal: Values, rise: Sizes) -> Values:
        """As all balls of norms."""
        flat, slope = point.flatten(1), normal.flatten(1)
        way, size = slope.sign() * rise.sign()[:, None], slope.abs()
        room = torch.where(way > 0, 1 - flat, flat).clamp(min=0)
        ends = torch.where(size > 0, room / size.clamp(min=1e-30), 0)
        return (way * torch.minimum(_reaching(size.square(), ends, rise) * size, room)).view_as(point)


class FreeBall(Ball):
    """Any values in [0, 1] in a few places, the others as they are; of pictures [samples, channels, height, width].

    The places are chosen anew by every step and projection, so that they move where a search finds more to win.
    """

    clean: Float[Tensor, "samples channels height width"]

    @property
    def stride(self) -> float:
        """A value's whole range."""
        return 1.0

    @abstractmethod
    def best(self, gain: Float[Tensor, "samples height width"]) -> Bool[Tensor, "samples height width"]:
        """Mark the places of the largest total gain."""

    def start(self, ids: Int64[Tensor, " samples"], *, seed: int, stream: int = 0) -> Values:
        """Draw places, and values in them, uniformly."""
        _, *sides = self.clean.shape[1:]
        device = self.clean.device
        gain = uniform(ids, tuple(sides), seed=seed, stream=stream + _OTHER_STREAM, device=device)
        values = uniform(ids, tuple(self.clean.shape[1:]), seed=seed, stream=stream, device=device)
        return torch.where(self.best(gain)[:, None], values, self.clean)

    def steepest(self, gradient: Values) -> Values:
        """Return the gradient's sign at the places where it is largest in sum."""
        return gradient.sign() * self.best(gradient.abs().sum(dim=1))[:, None]

    def project(self, values: Values) -> Values:
        """Keep the places of the largest change, by squares."""
        values = values.clamp(0, 1)
        return torch.where(self.best((values - self.clean).square().sum(dim=1))[:, None], values, self.clean)

    def to_pixels(self, values: Values) -> Values:
        """Return the nearest 8-bit values."""
        values = self.project(values)
        return torch.where(values == self.clean, values, (values * 255).round() / 255)


@dataclass(frozen=True)
class ElementsBall(FreeBall):
    """Any values in at most `number` elements, the cells of a grid.

    Args:
        clean: pictures; a series of n elements is a picture of height 1 and width n.
        number: of elements.
        grid: (rows, columns) of cells; None: every pixel is one.
    """

    clean: Float[Tensor, "samples channels height width"]
    number: int
    grid: tuple[int, int] | None = None

    @property
    def radius(self) -> float:
        """The number of elements."""
        return float(self.number)

    def best(self, gain: Float[Tensor, "samples height width"]) -> Bool[Tensor, "samples height width"]:
        """Mark the cells of the largest sums."""
        cells = self._cells(gain).sum(dim=(2, 4))
        top = cells.flatten(1).topk(min(self.number, cells[0].numel()), dim=1).indices
        marked = torch.zeros_like(cells, dtype=torch.bool).flatten(1).scatter(1, top, True).view_as(cells)
        return marked[:, :, None, :, None].expand_as(self._cells(gain)).reshape(gain.shape)

    def length(self, change: Values) -> Sizes:
        """Return how many cells change."""
        return self._cells((change != 0).any(dim=1)).any(dim=4).any(dim=2).flatten(1).sum(dim=1).float()

    def _cells(self, values: Tensor) -> Tensor:
        """Return [samples, rows, cell height, columns, cell width]."""
        rows, columns = self.grid or tuple(values.shape[1:])
        return values.unflatten(2, (columns, -1)).unflatten(1, (rows, -1))


@dataclass(frozen=True)
class PatchBall(FreeBall):
    """Any values in one rectangle.

    Args:
        clean: pictures; a series of n elements is a picture of height 1 and width n.
        height: of the rectangle.
        width: of the rectangle.
    """

    clean: Float[Tensor, "samples channels height width"]
    height: int
    width: int

    @property
    def radius(self) -> float:
        """The rectangle's sides as shares of what is allowed."""
        return 1.0

    def best(self, gain: Float[Tensor, "samples height width"]) -> Bool[Tensor, "samples height width"]:
        """Mark the rectangle of the largest sum."""
        sums = window_sums(gain, self.height, self.width)
        return window(sums.flatten(1).argmax(dim=1), (self.height, self.width), tuple(gain.shape[1:]))

    def length(self, change: Values) -> Sizes:
        """Return the larger side of the smallest rectangle around all changes, as a share of what is allowed."""
        moved = (change != 0).any(dim=1)
        return torch.maximum(_extent(moved.any(dim=2)) / self.height, _extent(moved.any(dim=1)) / self.width)


@dataclass(frozen=True)
class JointBall(NormBall):
    """Several balls as one, whose steps and lengths are shares of each one's own.

    Args:
        clean: the values of all balls, [samples, values], one ball's after the other's.
        balls: each with a radius above 0.
    """

    clean: Float[Tensor, "samples values"]
    balls: tuple[Ball, ...]

    @classmethod
    def of(cls, balls: Sequence[Ball]) -> "JointBall":
        """Join balls of the same samples."""
        return cls(torch.cat([ball.clean.flatten(1) for ball in balls], dim=1), tuple(balls))

    @property
    def radius(self) -> float:
        """One: the whole of every budget."""
        return 1.0

    def rows(self, chosen: Int64[Tensor, " rows"]) -> "JointBall":
        """Return the ball of the chosen samples."""
        return JointBall(self.clean[chosen], tuple(ball.rows(chosen) for ball in self.balls))

    def scaled(self, factor: float) -> "JointBall":
        """Scale all balls."""
        return JointBall(self.clean, tuple(_normed(ball).scaled(factor) for ball in self.balls))

    def start(self, ids: Int64[Tensor, " samples"], *, seed: int, stream: int = 0) -> Values:
        """Draw a point in each."""
        return self._joined(
            [ball.start(ids, seed=seed, stream=stream + 2 * _OTHER_STREAM * k) for k, ball in enumerate(self.balls)]
        )

    def steepest(self, gradient: Values) -> Values:
        """Go along each one's own steepest direction."""
        parts = zip(self.balls, self._split(gradient), strict=True)
        return self._joined([ball.stride * ball.steepest(part) for ball, part in parts])

    def project(self, values: Values) -> Values:
        """Project each part."""
        return self._joined([ball.project(part) for ball, part in zip(self.balls, self._split(values), strict=True)])

    def length(self, change: Values) -> Sizes:
        """Return the largest share of a ball's radius."""
        parts = zip(self.balls, self._split(change), strict=True)
        return torch.stack([ball.length(part) / ball.radius for ball, part in parts]).amax(dim=0)

    def to_pixels(self, values: Values) -> Values:
        """Round each part."""
        return self._joined([ball.to_pixels(part) for ball, part in zip(self.balls, self._split(values), strict=True)])

    def to_plane(self, point: Values, normal: Values, rise: Sizes) -> Values:
        """Give each part the share of the rise that a step of equal shares of all radii has; it is shortest within."""
        normals = self._split(normal)
        slopes = torch.stack(
            [b.stride * (b.steepest(n) * n).flatten(1).sum(dim=1) for b, n in zip(self.balls, normals, strict=True)]
        )
        rises = rise * slopes / slopes.sum(dim=0).clamp(min=1e-30)
        parts = zip(self.balls, self._split(point), normals, rises, strict=True)
        return self._joined([_normed(ball).to_plane(p, n, r) for ball, p, n, r in parts])

    def _split(self, values: Values) -> list[Tensor]:
        shapes = [ball.clean.shape[1:] for ball in self.balls]
        parts = values.split([shape.numel() for shape in shapes], dim=1)
        return [part.reshape(-1, *shape) for part, shape in zip(parts, shapes, strict=True)]

    def _joined(self, parts: Sequence[Tensor]) -> Tensor:
        return torch.cat([part.flatten(1) for part in parts], dim=1)


def ball_of(budget: Budget, clean: Values, *, grid: tuple[int, int] | None = None) -> Ball:
    """Return a budget's ball about clean values.

    Args:
        budget: any but word edits.
        clean: in [0, 1]; for `Elements` and `Patch` [samples, channels, height, width].
        grid: (rows, columns) of the elements that `Elements` counts; None: pixels.

    Raises:
        ValueError: a patch larger than the pictures, or a budget of words.
    """
    if isinstance(budget, LInf):
        return LInfBall(clean, budget.eps)
    if isinstance(budget, L2):
        return L2Ball(clean, budget.eps)
    if isinstance(budget, Elements):
        return ElementsBall(clean, budget.r, grid)
    if isinstance(budget, Patch):
        height, width = clean.shape[-2:]
        if budget.height > height or budget.width > width:
            raise ValueError(f"Expected a patch of at most {height} x {width}, but got {budget}.")
        return PatchBall(clean, budget.height, budget.width)
    raise ValueError(f"Expected LInf, L2, Patch or Elements, but got {budget!r}.")


def is_empty(budget: Budget | None) -> bool:
    """Whether a budget allows no change at all."""
    if isinstance(budget, Patch):
        return not (budget.height and budget.width)
    if isinstance(budget, LInf | L2):
        return budget.eps == 0
    return budget is None or (budget.r if isinstance(budget, Elements) else budget.words) == 0


def window_sums(gain: Float[Tensor, "samples height width"], height: int, width: int) -> Float[Tensor, "samples _ _"]:
    """Return the means over all rectangles of a size, by their upper left corners."""
    return avg_pool2d(gain[:, None], (height, width), stride=1)[:, 0]


def window(
    corner: Int64[Tensor, " rows"], size: tuple[int, int], sides: tuple[int, ...]
) -> Bool[Tensor, "rows height width"]:
    """Mark rectangles, given by where their corners are among all of that size (see `window_sums`)."""
    height, width = sides
    columns = width - size[1] + 1
    top, left = (corner // columns)[:, None], (corner % columns)[:, None]
    down, across = torch.arange(height, device=corner.device), torch.arange(width, device=corner.device)
    tall, broad = (down >= top) & (down < top + size[0]), (across >= left) & (across < left + size[1])
    return tall[:, :, None] & broad[:, None, :]


def _extent(marked: Bool[Tensor, "samples places"]) -> Sizes:
    """Return how many places lie between the first and the last that are marked, both counted."""
    places = torch.arange(1, marked.shape[1] + 1, device=marked.device)
    last = torch.where(marked, places, 0).amax(dim=1)
    first = torch.where(marked, places, marked.shape[1] + 1).amin(dim=1)
    return (last - first + 1).clamp(min=0).float()


def _reaching(weight: Tensor, ends: Tensor, rise: Sizes) -> Float[Tensor, "samples 1"]:
    """Return the least r with sum of weight * min(r, ends) >= |rise|, from the sorted ends: it is piecewise linear."""
    ends, order = ends.sort(dim=1)
    steep = weight.gather(1, order)
    gone = (steep * ends).cumsum(dim=1)
    # What still moves after the k nearest ends were reached, and before.
    moving = steep.flip(1).cumsum(dim=1).flip(1)
    reach = gone - steep * ends + ends * moving
    need = rise.abs()[:, None]
    place = torch.searchsorted(reach, need).clamp(max=reach.shape[1] - 1)
    before = (gone - steep * ends).gather(1, place)
    return (need - before) / moving.gather(1, place).clamp(min=torch.finfo(moving.dtype).tiny)


def _normed(ball: Ball) -> NormBall:
    if not isinstance(ball, NormBall):
        raise ValueError(f"Expected LInf or L2 budgets, but got a {type(ball).__name__}.")
    return ball
