"""`Picture`: where one image lies, in a file of its own or inside a shard, and how it becomes RGB."""

import struct
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

ORIENTATION = int(ExifTags.Base.Orientation)
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_TELL_ORIENTATION = ("exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp")


@dataclass(frozen=True, slots=True)
class Picture:
    """One image of a data set.

    Args:
        key: its stable name.
        path: its file, or the shard (an uncompressed tar) that holds it.
        style: the art style or source it is of.
        offset: where its bytes begin in a shard; None: it is the whole file.
        size: how many bytes it has there.
    """

    key: str
    path: Path
    style: str = ""
    offset: int | None = None
    size: int | None = None

    def read(self) -> bytes:
        """Return the encoded bytes.

        Raises:
            ValueError: the file is missing, or the shard shorter than it was when it was indexed.
        """
        try:
            if self.offset is None:
                return self.path.read_bytes()
            with self.path.open("rb") as shard:
                shard.seek(self.offset)
                content = shard.read(self.size)
        except OSError as error:
            raise ValueError(f"Expected an image file at {self.path}, but it could not be read: {error}") from error
        if self.size is not None and len(content) != self.size:
            raise ValueError(f"Expected {self.size} bytes of {self.key} in {self.path}, but the shard ends before.")
        return content

    def load(self) -> Image.Image:
        """Decode to RGB, upright (EXIF rotation applied), transparency on white, 16-bit grey scaled to 8.

        Raises:
            ValueError: the file is missing or does not decode.
        """
        try:
            with Image.open(self.path if self.offset is None else BytesIO(self.read())) as image:
                return as_rgb(image)
        except UNREADABLE as error:
            where = self.path if self.offset is None else f"{self.key} in {self.path}"
            raise ValueError(f"Expected an image file at {where}, but it could not be read: {error}") from error


UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)
"""What Pillow raises for files that are no image, cut off, or absurdly large."""


def as_rgb(image: Image.Image) -> Image.Image:
    """Return a picture of any mode as RGB: upright by its EXIF, transparency on white, 16-bit grey scaled to 8."""
    upright = _upright(image)
    if upright.mode.startswith("I"):
        grey = np.asarray(upright)
        if upright.mode != "I" or grey.max() > 255:  # Pillow's own conversion would cut everything above 255 off
            return Image.fromarray((grey.clip(0, 65535) / 257).round().astype(np.uint8)).convert("RGB")
    if {"A", "a"} & set(upright.getbands()) or "transparency" in upright.info:
        upright = upright.convert("RGBA")
        white = Image.new("RGBA", upright.size, "white")
        return Image.alpha_composite(white, upright).convert("RGB")
    return upright.convert("RGB")


def orientation(image: Image.Image) -> int:
    """Return how a picture lies by its EXIF, from 1 (upright) to 8; 1 where that cannot be read."""
    try:
        found = image.getexif().get(ORIENTATION, 1)
    except UNREADABLE:
        return 1
    return found if found in _TURNS else 1


def _upright(image: Image.Image) -> Image.Image:
    image.load()  # a TIFF is turned by this
    method = _TURNS.get(orientation(image))
    if method is None:
        return image
    # Pillow's `exif_transpose` writes the whole EXIF anew, which fails for tags of unusual types.
    turned = image.transpose(method)
    for key in _TELL_ORIENTATION:
        turned.info.pop(key, None)  # it lies upright now
    return turned
