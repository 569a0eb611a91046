"""Potholes: stereo photographs of roads with disparity and pothole masks.

    ROOT/rgb/1_02.jpg      RGB
    ROOT/disp/1_02.png     16-bit disparity, transformed so that an even road is flat; 0 not known
    ROOT/label/1_02.png    8-bit mask, 255 pothole, 0 none

The stereo pothole data sets of Fan et al. ("Pothole detection based on disparity transformation and road surface
modeling", IEEE TIP 2020). The number before the underscore is the recording: one road, one drive.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from crossguard.checks import lookup
from crossguard.data.depth import read_pixels, read_u16
from crossguard.data.samples import MultiModalSamples

CLASSES = ("even", "pothole")
RECORDINGS = {"train": (2,), "val": (3,), "test": (1,)}

_STEM = re.compile(r"(\d+)_(\d+)")


def load_pothole(*, root: Path | str, split: str = "test", size: Sequence[int] | None = None) -> MultiModalSamples:
    """Load RGB, disparity and pothole masks, split by recording: train 2, val 3, test 1.

    Args:
        root: folder that holds `rgb`, `disp` and `label`, whose files share their stems.
        split: "train", "val" or "test".
        size: (height, width) to resize to (RGB by area, the others to the nearest pixel); None keeps the files' own.

    Returns:
        Modalities "rgb", float32 [samples, 3, height, width] in [0, 1], and "disparity", float32 [samples, 1, height,
        width], each image's values less their median over the known pixels, in units of the file / 256, so that what
        remains is how far the surface lies off the road; exactly 0 where it is not known. `groups` is the recording.

    Raises:
        ValueError: an unknown split, no images of it, files missing (all are counted), other sizes, a label that is
            neither 0 nor 255, a disparity that is not of 16 bits.
    """
    recordings = lookup(RECORDINGS, split, what="split")
    folder = Path(root)
    found = sorted((m[0], int(m[1])) for path in (folder / "rgb").glob("*.jpg") if (m := _STEM.fullmatch(path.stem)))
    chosen = [(stem, recording) for stem, recording in found if recording in recordings]
    if not chosen:
        raise ValueError(f"Expected images such as {recordings[0]}_01.jpg in {folder / 'rgb'}, but got none.")
    files = {stem: (folder / "disp" / f"{stem}.png", folder / "label" / f"{stem}.png") for stem, _ in chosen}
    missing = [str(path.relative_to(folder)) for pair in files.values() for path in pair if not path.is_file()]
    if missing:
        named = ", ".join(missing[:6]) + (", ..." if len(missing) > 6 else "")
        raise ValueError(
            f"Expected disparity and label of {len(chosen)} images, but {len(missing)} are missing: {named}"
        )
    wanted = None if size is None else (size[0], size[1])
    rows = [_read(folder / "rgb" / f"{stem}.jpg", *files[stem], wanted) for stem, _ in chosen]
    if len({row[2].shape for row in rows}) > 1:
        raise ValueError(f"Expected images of one size in {folder}, but got several: give `size`.")
    return MultiModalSamples(
        name="pothole",
        split=split,
        modalities={"rgb": np.stack([row[0] for row in rows]), "disparity": np.stack([row[1] for row in rows])},
        labels=np.stack([row[2] for row in rows]),
        classes=CLASSES,
        groups=np.array([recording for _, recording in chosen], dtype=np.int64),
    )


def _read(
    rgb: Path, disparity: Path, label: Path, size: tuple[int, int] | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    pixels, values, mask = read_pixels(rgb), read_u16(disparity), read_pixels(label)[..., 0]
    if not pixels.shape[:2] == values.shape == mask.shape:
        raise ValueError(
            f"Expected RGB, disparity and label of {rgb.stem} of one size, but got {pixels.shape[:2]}, {values.shape} "
            f"and {mask.shape}."
        )
    if not np.isin(mask, (0, 255)).all():
        raise ValueError(f"Expected 0 and 255 in {label}, but got {np.unique(mask)[:8].tolist()}.")
    known = values > 0
    if not known.any():
        raise ValueError(f"Expected disparity in {disparity}, but no pixel has any.")
    offset = (values.astype(np.float32) - np.float32(np.median(values[known]))) / np.float32(256)
    # A known pixel on the road itself must not look like an unknown one.
    offset = np.where(known, np.where(offset == 0, np.float32(1 / 512), offset), np.float32(0))
    if size is not None:
        height, width = size
        pixels = np.array(Image.fromarray(pixels).resize((width, height), Image.Resampling.BOX))
        nearest = tuple(((np.arange(to) + 0.5) * of / to).astype(int) for to, of in zip(size, mask.shape, strict=True))
        offset, mask = offset[np.ix_(*nearest)], mask[np.ix_(*nearest)]
    return pixels.transpose(2, 0, 1) / np.float32(255), offset[None], (mask == 255).astype(np.int64)
