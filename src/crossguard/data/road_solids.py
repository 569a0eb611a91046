"""Solids of a drawn scene, and where rays meet them."""

from dataclasses import dataclass

import numpy as np

Vector = np.ndarray  # [..., 3]: x right, y down, z forward, in metres


@dataclass(frozen=True)
class Box:
    """A box standing anywhere, turned about the vertical.

    Args:
        centre: its middle.
        half: half its length along its own x, y, z axes.
        yaw: turn in radians; 0 has its z axis forward, positive turns it to the right.
        colour: reflectance, three numbers in [0, 1].
        pattern: "plain" or "windows".
    """

    centre: tuple[float, float, float]
    half: tuple[float, float, float]
    yaw: float
    colour: tuple[float, float, float]
    pattern: str = "plain"

    def local(self, vectors: Vector) -> Vector:
        """Turn vectors into the box's own axes."""
        cos, sin = np.cos(self.yaw), np.sin(self.yaw)
        x, y, z = vectors[..., 0], vectors[..., 1], vectors[..., 2]
        return np.stack([cos * x - sin * z, y, sin * x + cos * z], axis=-1)

    def meet(self, origin: Vector, direction: Vector) -> np.ndarray:
        """Return the distance (in lengths of `direction`) to the first hit in front, infinity where there is none."""
        start = self.local(origin - np.array(self.centre))
        along = self.local(direction)
        along = np.where(np.abs(along) < 1e-9, 1e-9, along)
        one, other = (-np.array(self.half) - start) / along, (np.array(self.half) - start) / along
        # Named parts: NumPy reduces an axis of three far more slowly.
        (a, b, c), (d, e, f) = (np.moveaxis(pair, -1, 0) for pair in (np.minimum(one, other), np.maximum(one, other)))
        enter, leave = np.maximum(np.maximum(a, b), c), np.minimum(np.minimum(d, e), f)
        return np.where((enter <= leave) & (enter > 1e-3), enter, np.inf)

    def normal(self, points: Vector) -> Vector:
        """Return the outward normals at points of the surface."""
        place = self.local(points - np.array(self.centre)) / np.array(self.half)
        axis = np.abs(place).argmax(axis=-1)
        face = np.zeros_like(place)
        np.put_along_axis(face, axis[..., None], np.sign(np.take_along_axis(place, axis[..., None], -1)), -1)
        cos, sin = np.cos(self.yaw), np.sin(self.yaw)
        x, y, z = face[..., 0], face[..., 1], face[..., 2]
        return np.stack([cos * x + sin * z, y, -sin * x + cos * z], axis=-1)

    def shade(self, points: Vector) -> Vector:
        """Return the reflectance at points of the surface."""
        colour = np.broadcast_to(np.array(self.colour), points.shape)
        if self.pattern == "plain":
            return colour
        place = self.local(points - np.array(self.centre)) + np.array(self.half)
        across = np.maximum(place[..., 0], place[..., 2])
        glass = (across % 2.4 > 1.1) & (place[..., 1] % 3.0 > 1.0) & (place[..., 1] % 3.0 < 2.4)
        return np.where(glass[..., None], 0.35 * colour, colour)


@dataclass(frozen=True)
class Ball:
    """An ellipsoid with upright axes, such as the crown of a tree.

    Args:
        centre: its middle.
        half: its half axes.
        colour: reflectance, three numbers in [0, 1].
    """

    centre: tuple[float, float, float]
    half: tuple[float, float, float]
    colour: tuple[float, float, float]

    def meet(self, origin: Vector, direction: Vector) -> np.ndarray:
        """As `Box.meet`."""
        start, along = (origin - np.array(self.centre)) / np.array(self.half), direction / np.array(self.half)
        a, b = np.einsum("...i,...i", along, along), np.einsum("...i,...i", start, along)
        inside = b * b - a * (np.einsum("...i,...i", start, start) - 1)
        near = (-b - np.sqrt(np.maximum(inside, 0))) / a
        return np.where((inside > 0) & (near > 1e-3), near, np.inf)

    def normal(self, points: Vector) -> Vector:
        """As `Box.normal`."""
        out = (points - np.array(self.centre)) / np.array(self.half) ** 2
        return out / np.linalg.norm(out, axis=-1, keepdims=True)

    def shade(self, points: Vector) -> Vector:
        """As `Box.shade`."""
        return np.broadcast_to(np.array(self.colour), points.shape)


def first_hit(solids: tuple[Box | Ball, ...], origin: Vector, direction: Vector) -> tuple[np.ndarray, np.ndarray]:
    """Return the distance to the nearest solid along each ray (infinity: none) and its position in `solids` (-1)."""
    shape = np.broadcast_shapes(origin.shape, direction.shape)[:-1]
    nearest, which = np.full(shape, np.inf), np.full(shape, -1)
    for position, solid in enumerate(solids):
        distance = solid.meet(origin, direction)
        closer = distance < nearest
        nearest[closer] = distance[closer]
        which[closer] = position
    return nearest, which
