"""Drawing a road scene by casting one ray per pixel: colours, true depth, and the road mask."""

from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Float32, Int8, UInt8

from crossguard.data.depth import FARTHEST, Camera
from crossguard.data.road_scenes import RoadScene
from crossguard.data.road_solids import first_hit

FAR = 140.0  # metres: beyond it there is only sky
JUDGED = 90.0  # metres: road beyond it is thinner than a pixel can tell, and is not judged
_STEPS = 96


@dataclass(frozen=True)
class Rendered:
    """What the camera sees.

    Args:
        rgb: uint8 [height, width, 3], with the sensor's noise.
        exact: float32 [height, width], the true depth in metres, 0 in the sky.
        depth: the same as a stereo camera would measure it: noise that grows with the square of depth, holes, and
            nothing beyond 65 m.
        mask: int8 [height, width], 1 road, 0 not road, -1 not judged.
    """

    rgb: UInt8[np.ndarray, "height width 3"]
    exact: Float32[np.ndarray, "height width"]
    depth: Float32[np.ndarray, "height width"]
    mask: Int8[np.ndarray, "height width"]


def render(scene: RoadScene, camera: Camera, size: tuple[int, int], generator: np.random.Generator) -> Rendered:
    """Draw one scene.

    Args:
        scene: what stands where.
        camera: its calibration; depth is along its axis, as in a rectified stereo pair.
        size: (height, width).
        generator: of the sensors' noise.
    """
    origin = np.array([0.0, -scene.height, 0.0])
    rays = _rays(scene, camera, size)
    floor = _floor(scene, origin, rays)
    solid, which = first_hit(scene.solids, origin, rays)
    depth = np.minimum(floor, solid)
    seen = np.isfinite(depth)
    on_ground = seen & (floor <= solid)
    points = origin + rays * np.where(seen, depth, 0)[..., None]
    x, z = points[..., 0], points[..., 2]
    aside = scene.beside(x, z)
    road = on_ground & (np.abs(aside) <= scene.width / 2)
    colour = _sky(scene, rays)
    colour[on_ground] = _ground_colour(scene, x[on_ground], z[on_ground], aside[on_ground])
    sun, upward = np.array(scene.sun), np.array([0.0, -1.0, 0.0])
    normal = np.broadcast_to(upward, points.shape).copy()
    for position, part in enumerate(scene.solids):
        hit = seen & ~on_ground & (which == position)
        if hit.any():
            normal[hit] = part.normal(points[hit])
            grain = 1 + 0.25 * (
                _noise(points[hit][:, 0] + points[hit][:, 2], points[hit][:, 1], 0.5, scene.texture) - 0.5
            )
            colour[hit] = part.shade(points[hit]) * grain[:, None]
    lit = np.zeros(size)
    lit[seen] = first_hit(scene.solids, points[seen] + 0.01 * normal[seen], sun[None])[1] < 0
    direct = scene.light[0] * lit * np.maximum((normal * sun).sum(axis=-1), 0)
    colour = np.where(seen[..., None], colour * (direct + scene.light[1])[..., None], colour)
    haze = 1 - np.exp(-np.where(seen, depth, 0) / 400)
    colour += haze[..., None] * (np.array([0.75, 0.8, 0.85]) - colour)
    exact = np.where(seen, depth, 0).astype(np.float32)
    mask = np.where(road, np.where(z > JUDGED, -1, 1), 0).astype(np.int8)
    return Rendered(_exposed(colour, generator), exact, _measured(exact, generator), mask)


def _rays(scene: RoadScene, camera: Camera, size: tuple[int, int]) -> np.ndarray:
    """Return each pixel's ray [height, width, 3] in the scene's axes, one metre long along the camera's axis."""
    v, u = np.mgrid[: size[0], : size[1]].astype(np.float64)
    rays = np.stack([(u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy, np.ones(size)], axis=-1)
    cos, sin = np.cos(scene.roll), np.sin(scene.roll)
    roll = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    cos, sin = np.cos(scene.pitch), np.sin(scene.pitch)
    pitch = np.array([[1, 0, 0], [0, cos, sin], [0, -sin, cos]])
    return rays @ (pitch @ roll).T


def _floor(scene: RoadScene, origin: np.ndarray, rays: np.ndarray) -> np.ndarray:
    """Return the depth at which each ray enters the ground: stepped to the first point below it, then bisected."""
    flat = rays.reshape(-1, 3)
    top = scene.kerb + 4 * max(0.0, *scene.bank) + scene.rough

    def below(which: np.ndarray, t: np.ndarray | float) -> np.ndarray:
        part = flat[which]
        return origin[1] + t * part[:, 1] + scene.ground(t * part[:, 0], t * part[:, 2]) >= 0

    low, high = np.full(len(flat), np.inf), np.full(len(flat), np.inf)
    still = np.arange(len(flat))
    last = 0.5
    for step in np.geomspace(1.0, FAR, _STEPS):
        under = below(still, step)
        low[still[under]], high[still[under]] = last, step
        # A ray that rises and is over everything will meet no ground.
        rising = (flat[still, 1] < 0) & (-origin[1] - step * flat[still, 1] > top)
        still = still[~under & ~rising]
        last = step
    hit = np.flatnonzero(np.isfinite(high))
    lower, upper = low[hit], high[hit]
    for _ in range(12):
        middle = (lower + upper) / 2
        under = below(hit, middle)
        upper, lower = np.where(under, middle, upper), np.where(under, lower, middle)
    high[hit] = upper
    return high.reshape(rays.shape[:2])


def _ground_colour(scene: RoadScene, x: np.ndarray, z: np.ndarray, aside: np.ndarray) -> np.ndarray:
    over = np.abs(aside) - scene.width / 2
    paved = over <= np.where(aside > 0, scene.pavement[1], scene.pavement[0])
    colour = np.where(paved[:, None], np.array(scene.paving), np.array(scene.verge))
    colour = np.where((over <= 0)[:, None], np.array(scene.road), colour)
    fine = 1 / (1 + z / 12)  # grain too small for a far pixel averages out
    grain = np.where(over <= 0, 0.2, np.where(paved, 0.2, 0.8))
    speckle = (_noise(x, z, 0.15, scene.texture) - 0.5) * fine + 0.6 * (_noise(x, z, 1.5, scene.texture + 1) - 0.5)
    colour = colour * (1 + grain * speckle)[:, None]
    return np.where(
        _marked(scene, aside, z)[:, None], 0.78 * (0.8 + 0.4 * _noise(x, z, 0.4, scene.texture + 2))[:, None], colour
    )


def _marked(scene: RoadScene, aside: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Return where there is paint: solid lines near the edges, dashes between the lanes."""
    if not scene.lanes:
        return np.zeros(aside.shape, dtype=bool)
    edge = np.abs(np.abs(aside) - (scene.width / 2 - 0.25)) < 0.07
    lane = (aside + scene.width / 2) / (scene.width / scene.lanes)
    inner = (np.rint(lane) > 0) & (np.rint(lane) < scene.lanes)
    dashes = inner & (np.abs(lane - np.rint(lane)) * scene.width / scene.lanes < 0.07) & (z % 9 < 4)
    return edge | dashes


def _sky(scene: RoadScene, rays: np.ndarray) -> np.ndarray:
    """Return the sky over a far line of trees."""
    up = -rays[..., 1] / np.linalg.norm(rays, axis=-1)
    azimuth = np.arctan2(rays[..., 0], rays[..., 2])
    cloud = _noise(azimuth * 3, up * 12, 1.0, scene.texture + 3)[..., None]
    sky = np.array([0.55, 0.72, 0.95]) * (1 - cloud) + 0.95 * cloud
    skyline = 0.02 + 0.08 * _noise(azimuth * 6, np.zeros_like(up), 1.0, scene.texture + 4)
    trees = (
        np.array([0.25, 0.33, 0.24]) * (0.7 + 0.6 * _noise(azimuth * 90, up * 90, 1.0, scene.texture + 5))[..., None]
    )
    return np.where((up < skyline)[..., None], trees, sky * min(1.0, sum(scene.light)))


@cache
def _lattice(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random((64, 64))


def _noise(x: np.ndarray, y: np.ndarray, scale: float, seed: int) -> np.ndarray:
    """Return smooth noise in [0, 1] whose bumps are about `scale` wide."""
    table = _lattice(seed % 97)
    x, y = x / scale + seed % 1009, y / scale + seed % 911
    column, row = np.floor(x).astype(int), np.floor(y).astype(int)
    fx, fy = x - column, y - row
    fx, fy = fx * fx * (3 - 2 * fx), fy * fy * (3 - 2 * fy)
    left, right, top, bottom = column % 64, (column + 1) % 64, row % 64, (row + 1) % 64
    upper = table[top, left] * (1 - fx) + table[top, right] * fx
    lower = table[bottom, left] * (1 - fx) + table[bottom, right] * fx
    return upper * (1 - fy) + lower * fy


def _exposed(colour: np.ndarray, generator: np.random.Generator) -> UInt8[np.ndarray, "height width 3"]:
    """Return what the sensor stores: exposure, white balance, noise, gamma, 8 bits."""
    level = np.quantile(colour.mean(axis=-1), 0.8)
    gain = generator.uniform(0.5, 0.95) / max(level, 1e-3) * (1 + generator.normal(0, 0.04, 3))
    noisy = colour * gain + generator.normal(0, generator.uniform(0.004, 0.02), colour.shape)
    return np.rint(255 * np.clip(noisy, 0, 1) ** (1 / 1.8)).astype(np.uint8)


def _measured(
    exact: Float32[np.ndarray, "height width"], generator: np.random.Generator
) -> Float32[np.ndarray, "height width"]:
    """Return depth as stereo matching gives it; 0 where it gives none."""
    noise = generator.normal(0, 1, exact.shape)
    depth = exact + 0.0008 * exact**2 * noise
    v, u = np.mgrid[: exact.shape[0], : exact.shape[1]].astype(np.float64)
    holes = _noise(u, v, max(4.0, exact.shape[1] / 60), int(generator.integers(2**20))) > 0.86
    known = (exact > 0) & (depth > 0) & (depth < FARTHEST - 0.01) & ~holes
    return np.where(known, depth, 0).astype(np.float32)
