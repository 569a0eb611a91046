"""Drawn road scenes: what stands where, drawn at random, in the axes of KITTI's colour camera.

A carriageway with curved edges lies between kerbs, pavements and verges that rise or fall; cars stand and drive on it,
houses, walls, poles and trees beside it. Pavements may have the road's own grey, and verges its height, so that neither
colour nor depth alone tells the road.
"""

from dataclasses import dataclass

import numpy as np

from crossguard.data.road_solids import Ball, Box

_ASPHALT = (0.30, 0.30, 0.31)


@dataclass(frozen=True)
class RoadScene:
    """One scene, in metres and radians, x right, y down, z forward; the origin is on the road below the camera.

    Args:
        category: "um" (marked, two lanes), "umm" (marked, several lanes) or "uu" (unmarked).
        height: of the camera above the road.
        pitch: of the camera, positive looks down.
        roll: of the camera.
        offset: of the road's middle from the camera, to the right.
        heading: tangent of the angle between the camera's axis and the road.
        bend: curvature of the road's middle, 1 / metre.
        width: of the carriageway.
        lanes: marked lanes; 0 where unmarked.
        kerb: height of the pavement over the road.
        pavement: width of the pavement on either side (left, right).
        bank: slope of the ground beyond the pavement (left, right).
        rough: height of the bumps in it.
        road: reflectance of the carriageway.
        paving: reflectance of the pavement.
        verge: reflectance of the ground beyond.
        solids: what stands on the ground.
        sun: direction towards the sun, a unit vector.
        light: brightness of the sun and of the sky's light.
        texture: seed of the surfaces' grain.
    """

    category: str
    height: float
    pitch: float
    roll: float
    offset: float
    heading: float
    bend: float
    width: float
    lanes: int
    kerb: float
    pavement: tuple[float, float]
    bank: tuple[float, float]
    rough: float
    road: tuple[float, float, float]
    paving: tuple[float, float, float]
    verge: tuple[float, float, float]
    solids: tuple[Box | Ball, ...]
    sun: tuple[float, float, float]
    light: tuple[float, float]
    texture: int

    def middle(self, z: np.ndarray | float) -> np.ndarray | float:
        """Return x of the road's middle at distance z."""
        return self.offset + self.heading * z + 0.5 * self.bend * z * z

    def beside(self, x: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Return the metres by which a point lies right of the road's middle (first order, as roads bend little)."""
        slope = self.heading + self.bend * z
        return (x - self.middle(z)) / np.sqrt(1 + slope * slope)

    def ground(self, x: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Return the height of the ground over the road's level."""
        q = self.beside(x, z)
        over = np.abs(q) - self.width / 2
        right = q > 0
        beyond = np.maximum(over - np.where(right, self.pavement[1], self.pavement[0]), 0)
        # A bank levels out, or far ground would hide the sky.
        bank = np.where(right, self.bank[1], self.bank[0]) * 4 * np.tanh(beyond / 4)
        bumps = self.rough * np.tanh(beyond) * np.sin(1.9 * x + 0.7 * z) * np.sin(0.8 * x - 1.3 * z + 1)
        return self.kerb * np.clip(over / 0.1, 0, 1) + bank + bumps


def draw_scene(category: str, generator: np.random.Generator) -> RoadScene:
    """Draw one scene of a category.

    Args:
        category: "um", "umm" or "uu".
        generator: source of all that is random in it.
    """
    uniform = generator.uniform
    lanes = {"um": 2, "umm": int(generator.integers(3, 6)), "uu": 0}[category]
    width = lanes * uniform(2.9, 3.8) if lanes else uniform(3.8, 8.0)
    grey = float(uniform(0.7, 1.4))
    road = _tinted(_ASPHALT, grey, 0.04, generator)
    paving = (
        _tinted(road, 1.0, 0.03, generator)
        if uniform() < 0.4
        else _tinted((0.48, 0.44, 0.42), uniform(0.7, 1.2), 0.1, generator)
    )
    green = uniform() < 0.7
    verge = _tinted((0.20, 0.30, 0.12) if green else (0.38, 0.31, 0.24), uniform(0.6, 1.3), 0.15, generator)
    paved = [float(uniform(0.8, 4.0)) if uniform() < 0.65 else 0.0 for _ in range(2)]
    azimuth, elevation = uniform(-np.pi, np.pi), uniform(0.3, 1.2)
    scene = RoadScene(
        category=category,
        height=float(uniform(1.5, 1.8)),
        pitch=float(generator.normal(0.01, 0.015)),
        roll=float(generator.normal(0, 0.012)),
        offset=float(uniform(-0.5, 0.5) * max(width - 2.4, 0.5)),
        heading=float(generator.normal(0, 0.07)),
        bend=float(generator.normal(0, 0.004)),
        width=float(width),
        lanes=lanes,
        kerb=float(uniform(0.06, 0.18)) if uniform() < 0.8 else 0.0,
        pavement=(paved[0], paved[1]),
        bank=(float(generator.normal(0.05, 0.15)), float(generator.normal(0.05, 0.15))),
        rough=float(uniform(0.02, 0.1)),
        road=road,
        paving=paving,
        verge=verge,
        solids=(),
        sun=(
            float(np.sin(azimuth) * np.cos(elevation)),
            float(-np.sin(elevation)),
            float(np.cos(azimuth) * np.cos(elevation)),
        ),
        light=(float(uniform(0.2, 1.1)), float(uniform(0.5, 0.9))),
        texture=int(generator.integers(2**31)),
    )
    solids = (*_cars(scene, generator), *_roadside(scene, generator))
    return RoadScene(**{**vars(scene), "solids": solids})


def _tinted(
    colour: tuple[float, float, float], brightness: float, spread: float, generator: np.random.Generator
) -> tuple[float, float, float]:
    values = np.clip(np.array(colour) * brightness * (1 + generator.normal(0, spread, 3)), 0.02, 0.95)
    return (float(values[0]), float(values[1]), float(values[2]))


def _placed(scene: RoadScene, beside: float, z: float) -> tuple[float, float, float]:
    """Return (x, height of the ground, yaw along the road) of a place beside the road's middle."""
    x = float(scene.middle(z)) + beside
    return x, float(scene.ground(np.array([x]), np.array([z]))[0]), float(np.arctan(scene.heading + scene.bend * z))


def _cars(scene: RoadScene, generator: np.random.Generator) -> list[Box | Ball]:
    """Return a body and a cabin for each of a few cars, in a lane or at the kerb."""
    parts: list[Box | Ball] = []
    for z in np.sort(generator.uniform(9, 55, generator.integers(0, 6))):
        edge = scene.width / 2 - 1.1
        beside = float(generator.choice([-1.0, 1.0]) * edge * generator.choice([0.5, 1.0]))
        x, level, yaw = _placed(scene, beside, float(z))
        long, wide, tall = generator.uniform(1.8, 2.4), generator.uniform(0.8, 0.95), generator.uniform(0.62, 0.85)
        colour = _tinted((0.4, 0.4, 0.42), generator.uniform(0.2, 2.0), 0.4, generator)
        parts.append(Box((x, -level - tall / 2 - 0.2, float(z)), (wide, tall / 2, long), yaw, colour))
        glass = _tinted((0.12, 0.13, 0.15), 1.0, 0.2, generator)
        parts.append(Box((x, -level - tall - 0.2 - 0.3, float(z)), (0.88 * wide, 0.3, 0.55 * long), yaw, glass))
    return parts


def _roadside(scene: RoadScene, generator: np.random.Generator) -> list[Box | Ball]:
    """Return houses, walls, poles and trees on both sides."""
    parts: list[Box | Ball] = []
    for side in (-1, 1):
        edge = scene.width / 2 + scene.pavement[side > 0]
        distance = float(generator.uniform(1.5, 9))
        z = float(generator.uniform(4, 14))
        while z < 75:
            what = generator.choice(["house", "tree", "tree", "pole", "wall", "nothing"])
            long = float(generator.uniform(3, 9)) if what in ("house", "wall") else 1.0
            away = edge + distance + (4.0 if what == "house" else 0.0)
            x, level, yaw = _placed(scene, side * away, z + long)
            if what == "house":
                tall = float(generator.uniform(4, 13))
                colour = _tinted((0.6, 0.5, 0.42), generator.uniform(0.5, 1.4), 0.15, generator)
                parts.append(
                    Box((x, 1 - level - tall / 2, z + long), (3.5, tall / 2 + 1, long), yaw, colour, "windows")
                )
            elif what == "wall":
                tall = float(generator.uniform(0.6, 2))
                colour = _tinted((0.45, 0.43, 0.4), generator.uniform(0.6, 1.3), 0.08, generator)
                parts.append(Box((x, 0.5 - level - tall / 2, z + long), (0.15, tall / 2 + 0.5, long), yaw, colour))
            elif what == "pole":
                parts.append(Box((x, -level - 2.5, z), (0.08, 2.5, 0.08), yaw, (0.4, 0.4, 0.4)))
            elif what == "tree":
                tall, crown = float(generator.uniform(1.5, 3)), float(generator.uniform(1, 2.6))
                leaves = _tinted((0.14, 0.24, 0.09), generator.uniform(0.6, 1.5), 0.15, generator)
                parts.append(Box((x, 0.2 - level - tall / 2, z), (0.15, tall / 2 + 0.2, 0.15), 0.0, (0.2, 0.15, 0.1)))
                parts.append(Ball((x, -level - tall - 0.8 * crown, z), (crown, 1.1 * crown, crown), leaves))
            z += 2 * long + float(generator.uniform(2, 9))
    return parts
