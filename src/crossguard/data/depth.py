"""Cameras and depth images: a pinhole's four numbers, KITTI's calibration files, and metres from 16-bit PNG files."""

from dataclasses import dataclass
from math import isfinite
from pathlib import Path

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

from crossguard.data.pictures import UNREADABLE, open_image

MILLIMETRES = 1000.0
FARTHEST = 65.535  # metres: the largest number of millimetres in 16 bits


@dataclass(frozen=True)
class Camera:
    """A pinhole camera: x = (u - cx) / fx * z and y = (v - cy) / fy * z, with x right, y down, z forward.

    Args:
        fx: focal length in pixels along a row.
        fy: focal length in pixels along a column.
        cx: column of the principal point.
        cy: row of the principal point.

    Raises:
        ValueError: a number is not finite, or a focal length is not > 0.
    """

    fx: float
    fy: float
    cx: float
    cy: float

    def __post_init__(self) -> None:
        if not all(map(isfinite, (self.fx, self.fy, self.cx, self.cy))) or self.fx <= 0 or self.fy <= 0:
            raise ValueError(f"Expected finite numbers with focal lengths > 0, but got {self}.")

    def scaled(self, rows: float, columns: float) -> "Camera":
        """Return the camera of an image with so many times the rows and columns (centres of pixels are whole numbers).

        Example:
            >>> Camera(fx=700, fy=700, cx=599.5, cy=199.5).scaled(0.5, 0.5)
            Camera(fx=350.0, fy=350.0, cx=299.5, cy=99.5)
        """
        return Camera(self.fx * columns, self.fy * rows, (self.cx + 0.5) * columns - 0.5, (self.cy + 0.5) * rows - 0.5)


def read_calibration(path: Path | str, *, size: tuple[int, int]) -> Camera:
    """Read the colour camera (`P2`, a 3 x 4 projection by rows) from a calibration file of KITTI.

    Args:
        path: text file with lines `P2: ` and 12 numbers; other lines are not read.
        size: (height, width) of the image that the camera took.

    Raises:
        ValueError: no file, no P2, not 12 finite numbers, not the projection of a rectified pinhole, a principal
            point outside the image.
    """
    path = Path(path)
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"Expected a calibration file at {path}, but got: {error}") from error
    found = [line.partition(":")[2] for line in lines if line.partition(":")[0].strip() == "P2"]
    if len(found) != 1:
        raise ValueError(f"Expected one line 'P2:' in {path}, but got {len(found)}.")
    try:
        projection = np.array([float(word) for word in found[0].split()])
    except ValueError as error:
        raise ValueError(f"Expected numbers after 'P2:' in {path}, but got {found[0]!r}.") from error
    if projection.shape != (12,) or not np.isfinite(projection).all():
        raise ValueError(f"Expected 12 finite numbers after 'P2:' in {path}, but got {found[0]!r}.")
    matrix = projection.reshape(3, 4)
    fx, fy, cx, cy = (float(matrix[place]) for place in ((0, 0), (1, 1), (0, 2), (1, 2)))
    height, width = size
    skewed = bool(matrix[0, 1] or matrix[1, 0] or (matrix[2, :3] != (0, 0, 1)).any())
    if skewed or fx <= 0 or fy <= 0 or not (0 <= cx < width and 0 <= cy < height):
        raise ValueError(
            f"Expected P2 of a rectified camera with its principal point in an image of {height} x {width}, but {path} "
            f"has\n{matrix[:, :3]}."
        )
    return Camera(fx, fy, cx, cy)


def read_pixels(path: Path) -> UInt8[np.ndarray, "height width 3"]:
    """Decode an image file to RGB.

    Raises:
        ValueError: the file does not decode.
    """
    try:
        with open_image(path) as image:
            return np.array(image.convert("RGB"))
    except UNREADABLE as error:
        raise ValueError(f"Expected an image at {path}, but it could not be read: {error}") from error


def read_u16(path: Path) -> np.ndarray:
    """Decode a 16-bit grey PNG to uint16 [height, width].

    Raises:
        ValueError: the file does not decode, or is not of 16 bits and one channel.
    """
    try:
        with open_image(path) as image:
            mode, values = image.mode, np.array(image)
    except UNREADABLE as error:
        raise ValueError(f"Expected a 16-bit PNG at {path}, but it could not be read: {error}") from error
    if mode not in ("I;16", "I;16B", "I") or values.min() < 0 or values.max() > 2**16 - 1:
        raise ValueError(f"Expected one channel of 16 bits in {path}, but got an image of mode {mode!r}.")
    return values.astype(np.uint16)


def read_depth(path: Path) -> Float32[np.ndarray, "height width"]:
    """Read depth in metres from 16-bit millimetres; 0 where it is not known (0 or saturated in the file).

    Raises:
        ValueError: as `read_u16`, or no pixel with a known depth.
    """
    values = read_u16(path)
    known = (values > 0) & (values < 2**16 - 1)
    if not known.any():
        raise ValueError(f"Expected depth in millimetres in {path}, but no pixel has any.")
    return np.where(known, values / np.float32(MILLIMETRES), np.float32(0)).astype(np.float32)


def write_depth(path: Path, depth: Float32[np.ndarray, "height width"]) -> None:
    """Write metres as 16-bit millimetres; what is not in (0, 65.535) m becomes 0, not known."""
    millimetres = np.rint(depth.astype(np.float64) * MILLIMETRES)
    known = (millimetres >= 1) & (millimetres < 2**16 - 1)
    Image.fromarray(np.where(known, millimetres, 0).astype(np.uint16)).save(path)
