"""`Picture`: where one image lies, in a file of its own or inside a shard, and how it becomes RGB."""

import os
import struct
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from crossguard.checks import visible

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""What is opened. Pillow knows many more, some of which start other programs (EPS: Ghostscript), whatever the name."""
SUFFIXES = frozenset({"jpg", "jpeg", "jpe", "jfif", "png", "webp", "gif", "bmp", "tif", "tiff"})
MAX_PIXELS = 2**26
"""The most pixels of a picture (67 million), where `CROSSGUARD_MAX_PIXELS` does not set another number."""

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
        file: its file, or the shard (an uncompressed tar) that holds it; a string, of which there may be millions.
        style: the art style or source it is of.
        offset: where its bytes begin in a shard; None: it is the whole file.
        size: how many bytes it has there.
    """

    key: str
    file: str | os.PathLike[str]
    style: str = ""
    offset: int | None = None
    size: int | None = None

    def __post_init__(self) -> None:
        if type(self.file) is not str:
            object.__setattr__(self, "file", os.fspath(self.file))

    @property
    def path(self) -> Path:
        """Its file, or the shard that holds it."""
        return Path(self.file)

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
            raise ValueError(
                f"Expected an image file at {visible(self.path)}, but it could not be read: {error}"
            ) from error
        if self.size is not None and len(content) != self.size:
            raise ValueError(
                f"Expected {self.size} bytes of {visible(self.key)} in {visible(self.path)}, but the shard ends before."
            )
        return content

    def load(self) -> Image.Image:
        """Decode to RGB, upright (EXIF rotation applied), transparency on white, 16-bit grey scaled to 8.

        Raises:
            ValueError: the file is missing or does not decode.
        """
        try:
            with open_image(self.path if self.offset is None else BytesIO(self.read())) as image:
                return as_rgb(image)
        except UNREADABLE as error:
            where = self.path if self.offset is None else f"{self.key} in {self.path}"
            raise ValueError(
                f"Expected an image file at {visible(where)}, but it could not be read: {error}"
            ) from error


UNREADABLE = (
    *(OSError, SyntaxError, ValueError, EOFError, struct.error),
    *(Image.DecompressionBombError, Image.DecompressionBombWarning),
)
"""What Pillow raises for files that are no image, cut off, or absurdly large."""


def open_image(source: Path | str | BytesIO) -> Image.Image:
    """Open a picture of one of `FORMATS` whose size is within the limit; its pixels are not decoded yet.

    Raises:
        ValueError, OSError, ...: no such picture, or more pixels than `MAX_PIXELS` (see `UNREADABLE`).
    """
    limit = max_pixels()
    image = Image.open(source, formats=FORMATS)
    if image.width * image.height > limit:
        image.close()
        raise ValueError(
            f"it has {image.width} x {image.height} pixels, more than {limit:,} (CROSSGUARD_MAX_PIXELS sets the limit)"
        )
    return image


def max_pixels() -> int:
    """Return the most pixels that a picture may have.

    Raises:
        ValueError: `CROSSGUARD_MAX_PIXELS` is no whole number above 0.
    """
    given = os.environ.get("CROSSGUARD_MAX_PIXELS")
    if given is None:
        return MAX_PIXELS
    if not given.isdecimal() or int(given) < 1:
        raise ValueError(f"Expected a whole number above 0 in CROSSGUARD_MAX_PIXELS, but got {given!r}.")
    return int(given)


def as_rgb(image: Image.Image) -> Image.Image:
    """Return a picture of any mode as RGB: upright by its EXIF, transparency on white, 16-bit grey scaled to 8.

    Raises:
        ValueError: values without a known range: floating point, or whole numbers of 12 or 32 bits.
    """
    inverted = _check_range(image)
    upright = _upright(image)
    if upright.mode.startswith("I"):
        grey = np.asarray(upright)
        if upright.mode == "I" and (grey.min() < 0 or grey.max() > 65535):
            raise ValueError(f"its values are {grey.min()}..{grey.max()}, but pictures have 8 or 16 bits")
        if upright.mode != "I" or grey.max() > 255:  # Pillow's own conversion would cut everything above 255 off
            eight = (grey / 257).round().astype(np.uint8)
            return Image.fromarray(255 - eight if inverted else eight).convert("RGB")
    if {"A", "a"} & set(upright.getbands()) or "transparency" in upright.info:
        upright = upright.convert("RGBA")
        white = Image.new("RGBA", upright.size, "white")
        return Image.alpha_composite(white, upright).convert("RGB")
    return upright.convert("RGB")


_BITS, _PHOTOMETRIC = 258, 262  # tags of TIFF


def _check_range(image: Image.Image) -> bool:
    """Refuse values that have no known white; return whether 0 is white, which Pillow does not heed in 16 bits."""
    deep = image.mode == "F" or image.mode.startswith("I")
    tags = getattr(image, "tag_v2", None) if deep else None
    bits = {} if tags is None else set(tags.get(_BITS, (1,)))
    if image.mode == "F" or (tags is not None and (image.mode == "I" or bits != {16})):
        raise ValueError(
            f"its values are {'floating point' if image.mode == 'F' else 'whole numbers of an unusual size'}, of which "
            "nobody knows which one is white: convert it to 8 or 16 bits"
        )
    return tags is not None and tags.get(_PHOTOMETRIC) == 0


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
