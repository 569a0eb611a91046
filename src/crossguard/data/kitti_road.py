"""KITTI Road: RGB, depth and road masks in the benchmark's own folder layout.

    ROOT/training/image_2/um_000000.png            RGB
    ROOT/training/calib/um_000000.txt              camera (line P2)
    ROOT/training/gt_image_2/um_road_000000.png    magenta road, red not road, black not judged
    ROOT/training/depth_u16/um_000000.png          depth in millimetres, 0 not known

Images, calibration and masks are the benchmark's download (Fritsch et al., ITSC 2013); the dense depth images are those
published with SNE-RoadSeg (Fan et al., ECCV 2020). The benchmark's `testing` folder has no masks and is not read.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from PIL import Image

from crossguard.checks import check_choice, lookup
from crossguard.data.depth import Camera, read_calibration, read_depth, read_pixels
from crossguard.data.pictures import UNREADABLE, open_image
from crossguard.data.samples import MultiModalSamples

CLASSES = ("not road", "road")
CATEGORIES = ("um", "umm", "uu")  # urban marked, urban multiple marked lanes, urban unmarked
SIZE = (375, 1242)
ROAD, NOT_ROAD, NOT_JUDGED = (255, 0, 255), (255, 0, 0), (0, 0, 0)

Geometry = Literal["depth", "normals"]
SPLITS = ("train", "val", "test", "all")
_STEM = re.compile(rf"({'|'.join(CATEGORIES)})_(\d{{6}})")


def load_kitti_road(
    *,
    root: Path | str,
    split: str = "test",
    categories: Sequence[str] = CATEGORIES,
    size: Sequence[int] = SIZE,
    geometry: Geometry = "depth",
    name: str = "kitti-road",
) -> MultiModalSamples:
    """Load RGB, depth (or surface normals) and road masks.

    The labelled images are split within each category, in order of their numbers: the last fifth (rounded) is
    "test", the tenth before it "val", the rest "train". Blocks rather than every fifth image, since neighbours are
    often frames of one drive. Of the benchmark's 289 images (95, 96, 98) 58 are for testing, 30 for validation.

    Args:
        root: folder that holds `training/`.
        split: "train", "val", "test", or "all".
        categories: which of "um", "umm", "uu".
        size: (height, width) of the arrays. The benchmark's images differ by a few pixels; those of another size are
            resized: RGB by area, depth and masks to the nearest pixel.
        geometry: "depth", or "normals" computed from it with each image's calibration, before any resizing. One depth
            pixel takes part in 9 normals, so a certificate for 9 r of those is one for r depth pixels.
        name: name of the data set.

    Returns:
        Modalities "rgb", float32 [samples, 3, height, width] in [0, 1], and "depth", float32 [samples, 1, height,
        width] in metres with 0 where it is not known, or "normals", float32 [samples, 3, height, width]; masks in the
        order of `CLASSES`, -1 where not judged; `groups` numbers the images. About 11 MB per image of 375 x 1242.

    Raises:
        ValueError: no such folder, files missing (all are counted, the first named), an image, mask or depth that
            does not decode or is of another size than its RGB image, a wrong calibration, another colour in a mask.
    """
    folder = Path(root) / "training"
    check_choice(geometry, get_args(Geometry), "geometry")
    if len(size) != 2 or min(size) < 2:
        raise ValueError(f"Expected `size` (height, width) of 2 or more each, but got {size}.")
    size = (size[0], size[1])
    for category in categories:
        lookup(dict.fromkeys(CATEGORIES), category, what="category")
    lookup(dict.fromkeys(SPLITS), split, what="split")
    stems = _stems(folder, categories)
    _check_files(folder, stems)
    chosen = [(number, stem) for number, (stem, where) in enumerate(stems) if split in (where, "all")]
    if not chosen:
        raise ValueError(f"Expected images of the split {split!r}, but {folder} has only {len(stems)}: too few.")
    cameras = [_check_sizes(folder, stem) for _, stem in chosen]
    rgb = np.empty((len(chosen), 3, *size), dtype=np.float32)
    shape = np.empty((len(chosen), 1 if geometry == "depth" else 3, *size), dtype=np.float32)
    labels = np.empty((len(chosen), *size), dtype=np.int64)
    for row, ((_, stem), camera) in enumerate(zip(chosen, cameras, strict=True)):
        pixels = _resized(read_pixels(folder / "image_2" / f"{stem}.png"), size, smooth=True)
        rgb[row] = pixels.transpose(2, 0, 1) / np.float32(255)
        depth = read_depth(folder / "depth_u16" / f"{stem}.png")
        for channel, plane in enumerate(depth[None] if geometry == "depth" else _normals(depth, camera)):
            shape[row, channel] = _resized(plane, size, smooth=False)
        labels[row] = _resized(read_mask(_mask_file(folder, stem)), size, smooth=False)
    return MultiModalSamples(
        name=name,
        split=split,
        modalities={"rgb": rgb, geometry: shape},
        labels=labels,
        classes=CLASSES,
        groups=np.array([number for number, _ in chosen], dtype=np.int64),
    )


def split_of(position: int, members: int) -> str:
    """Return the split of the image at a position (from 0) among all of its category."""
    test, val = round(members / 5), round(members / 10)
    return "train" if position < members - test - val else "val" if position < members - test else "test"


def read_mask(path: Path) -> np.ndarray:
    """Read a road mask: int8 [height, width], 1 road, 0 not road, -1 not judged.

    Raises:
        ValueError: the file does not decode, or has another colour than the three.
    """
    colours = read_pixels(path)
    label = np.full(colours.shape[:2], -2, dtype=np.int8)
    for colour, value in ((NOT_ROAD, 0), (ROAD, 1), (NOT_JUDGED, -1)):
        label[(colours == colour).all(axis=2)] = value
    other = label == -2
    if other.any():
        raise ValueError(
            f"Expected {path} to have the colours {ROAD} (road), {NOT_ROAD} (not road) and {NOT_JUDGED} (not "
            f"judged) only, but {int(other.sum())} pixels have others, such as {tuple(colours[other][0].tolist())}."
        )
    return label


def write_mask(path: Path, label: np.ndarray) -> None:
    """Write a mask of 1, 0 and -1 in KITTI's colours."""
    colours = np.array([NOT_ROAD, ROAD, NOT_JUDGED], dtype=np.uint8)
    Image.fromarray(colours[label]).save(path)


def _normals(depth: np.ndarray, camera: Camera) -> np.ndarray:
    import torch  # loaded by those who need it

    from crossguard.data.normals import normals_from_depth

    return normals_from_depth(torch.from_numpy(depth)[None], camera)[0].numpy()


def _stems(folder: Path, categories: Sequence[str]) -> list[tuple[str, str]]:
    """Return (stem, split) of every labelled image, by category and number."""
    if not (folder / "image_2").is_dir():
        raise ValueError(f"Expected RGB images in {folder / 'image_2'}, but there is no such folder.")
    found = sorted(m[0] for path in (folder / "image_2").glob("*.png") if (m := _STEM.fullmatch(path.stem)))
    rows = []
    for category in categories:
        members = [stem for stem in found if stem.startswith(f"{category}_")]
        rows += [(stem, split_of(i, len(members))) for i, stem in enumerate(members)]
    if not rows:
        raise ValueError(f"Expected images such as um_000000.png in {folder / 'image_2'}, but got none.")
    return rows


def _mask_file(folder: Path, stem: str) -> Path:
    category, number = stem.split("_")
    return folder / "gt_image_2" / f"{category}_road_{number}.png"


def _check_files(folder: Path, stems: Sequence[tuple[str, str]]) -> None:
    missing = [
        str(path.relative_to(folder))
        for stem, _ in stems
        for path in (folder / "calib" / f"{stem}.txt", folder / "depth_u16" / f"{stem}.png", _mask_file(folder, stem))
        if not path.is_file()
    ]
    if missing:
        named = ", ".join(missing[:6]) + (", ..." if len(missing) > 6 else "")
        raise ValueError(
            f"Expected calibration, depth and mask of {len(stems)} images in {folder}, but {len(missing)} files are "
            f"missing: {named}"
        )


def _check_sizes(folder: Path, stem: str) -> Camera:
    """Return the image's camera, once depth and mask are known to be of the image's size."""
    sizes = {}
    for path in (folder / "image_2" / f"{stem}.png", folder / "depth_u16" / f"{stem}.png", _mask_file(folder, stem)):
        try:
            with open_image(path) as image:
                sizes[str(path.relative_to(folder))] = (image.height, image.width)
        except UNREADABLE as error:
            raise ValueError(f"Expected an image at {path}, but it could not be read: {error}") from error
    if len(set(sizes.values())) > 1:
        raise ValueError(f"Expected RGB, depth and mask of {stem} of one size, but got {sizes} (height, width).")
    return read_calibration(folder / "calib" / f"{stem}.txt", size=next(iter(sizes.values())))


def _resized(values: np.ndarray, size: tuple[int, int], *, smooth: bool) -> np.ndarray:
    """Resize: colours by area, anything else to the nearest pixel."""
    if values.shape[:2] == size:
        return values
    if smooth:
        return np.array(Image.fromarray(values).resize((size[1], size[0]), Image.Resampling.BOX))
    rows, columns = ((np.arange(new) + 0.5) * old / new for new, old in zip(size, values.shape[:2], strict=True))
    return values[rows.astype(int)[:, None], columns.astype(int)]
