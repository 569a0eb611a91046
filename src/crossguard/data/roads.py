"""Road scenes drawn into the cache, in KITTI Road's own folder layout: RGB, depth and masks without any download."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import get_args

import numpy as np
from PIL import Image

from crossguard.checks import check_choice, lookup
from crossguard.data.cache import place_in_cache, whole_folder
from crossguard.data.depth import Camera, write_depth
from crossguard.data.kitti_road import CATEGORIES, SPLITS, Geometry, load_kitti_road, write_mask
from crossguard.data.kitti_road import SIZE as KITTI_SIZE
from crossguard.data.road_render import render
from crossguard.data.road_scenes import draw_scene
from crossguard.data.samples import MultiModalSamples
from crossguard.progress import Bars, Reporter

SIZE = (96, 320)
KITTI_CAMERA = Camera(fx=721.5377, fy=721.5377, cx=609.5593, cy=172.8540)
_VERSION = "roads-v1"


def load_roads(
    *,
    split: str = "test",
    size: Sequence[int] = SIZE,
    scenes: int = 300,
    seed: int = 0,
    geometry: Geometry = "depth",
    progress: Reporter | None = None,
) -> MultiModalSamples:
    """Load a split of the drawn roads; they are drawn once for each size, number and seed.

    Scenes are independent of each other, a third of each of KITTI's categories, and split by the same rule: of 300
    there are 210 for training, 30 for validation and 60 for testing.

    Args:
        split: "train", "val", "test" or "all".
        size: (height, width); KITTI's is (375, 1242).
        scenes: how many, over all splits.
        seed: of the scenes.
        geometry: "depth" or "normals", as `load_kitti_road`.
        progress: where the progress of drawing is shown; None shows bars on standard error.

    Raises:
        ValueError: fewer than 3 scenes, an image smaller than 32 x 32, an unknown split or geometry.
        OSError: the cache cannot be written.
    """
    if scenes < len(CATEGORIES) or len(size) != 2 or min(size) < 32:
        raise ValueError(f"Expected 3 scenes or more of 32 x 32 or more, but got {scenes} of {list(size)}.")
    lookup(dict.fromkeys(SPLITS), split, what="split")  # before anything is drawn
    check_choice(geometry, get_args(Geometry), "geometry")
    target = place_in_cache(f"{_VERSION}-{size[0]}x{size[1]}-{scenes}-seed{seed}")
    build = partial(write_roads, size=(size[0], size[1]), scenes=scenes, seed=seed, progress=progress)
    root = whole_folder(target, build)
    return load_kitti_road(root=root, split=split, size=size, geometry=geometry, name="roads")


def write_roads(
    root: Path, *, size: tuple[int, int] = SIZE, scenes: int = 300, seed: int = 0, progress: Reporter | None = None
) -> None:
    """Draw scenes into `root/training` as `load_kitti_road` reads them.

    A scene depends on the seed, its category, its number and the size alone, not on how many there are.

    Args:
        root: an existing folder.
        size: (height, width); the camera is KITTI's, scaled.
        scenes: how many; categories take turns.
        seed: of the scenes.
        progress: where progress is shown; None shows bars on standard error.
    """
    folder = root / "training"
    for part in ("image_2", "calib", "gt_image_2", "depth_u16"):
        (folder / part).mkdir(parents=True)
    camera = KITTI_CAMERA.scaled(size[0] / KITTI_SIZE[0], size[1] / KITTI_SIZE[1])
    with (progress or Bars()).task("Drawing roads (once)", total=scenes) as task:
        for index in range(scenes):
            category, number = CATEGORIES[index % len(CATEGORIES)], index // len(CATEGORIES)
            generator = np.random.default_rng([seed, index % len(CATEGORIES), number])
            scene = draw_scene(category, generator)
            seen = render(scene, camera, size, generator)
            stem = f"{category}_{number:06d}.png"
            Image.fromarray(seen.rgb).save(folder / "image_2" / stem)
            write_depth(folder / "depth_u16" / stem, seen.depth)
            write_mask(folder / "gt_image_2" / f"{category}_road_{number:06d}.png", seen.mask)
            (folder / "calib" / f"{category}_{number:06d}.txt").write_text(
                calibration_text(camera, scene.height), "utf-8"
            )
            task.advance(note=category)


def calibration_text(camera: Camera, height: float) -> str:
    """Return a calibration file as KITTI Road has it, for one camera in the place of all four.

    Args:
        camera: the colour camera.
        height: of the camera above the road, in metres.
    """
    projection = (camera.fx, 0, camera.cx, 0, 0, camera.fy, camera.cy, 0, 0, 0, 1, 0)
    rows: dict[str, tuple[float, ...]] = {f"P{number}": projection for number in range(4)}
    rows["R0_rect"] = (1, 0, 0, 0, 1, 0, 0, 0, 1)
    rows["Tr_velo_to_cam"] = (0, -1, 0, 0, 0, 0, -1, 0, 1, 0, 0, 0)
    rows["Tr_imu_to_velo"] = (1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0)
    rows["Tr_cam_to_road"] = (1, 0, 0, 0, 0, 1, 0, -height, 0, 0, 1, 0)
    return "".join(f"{name}: {' '.join(f'{value:.12e}' for value in row)}\n" for name, row in rows.items())
