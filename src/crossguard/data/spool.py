"""`Spool`: pictures that are in memory alone, kept in one file of the cache, where everything else can read them."""

import io
import os
import tempfile
import time
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from crossguard.data.cache import place_in_cache
from crossguard.data.pictures import FORMATS, UNREADABLE, as_rgb, open_image
from crossguard.runs.files import PARTIAL, not_written, sync_folder

_CHANNELS = (1, 3, 4)
_DAY = 24 * 3600


class InMemory(NamedTuple):
    """A picture in memory: a digest of what it shows, and the bytes of its file or its pixels."""

    digest: str
    content: bytes | Image.Image

    def encoded(self) -> bytes:
        """Return the bytes of an image format; pixels become a PNG, which loses nothing."""
        if isinstance(self.content, bytes):
            return self.content
        file = io.BytesIO()
        self.content.save(file, "PNG", compress_level=1)
        return file.getvalue()


class Spool:
    """Writes pictures one after the other into a file of the cache that is named after all of them.

    The same pictures have the same file, in this process and in any other, so that a run can be taken up again and
    workers read what the main process wrote. Use it as a context manager; without `close` nothing is left.

    Raises:
        OSError: the cache cannot be written.
    """

    def __init__(self) -> None:
        self._file: IO[bytes] | None = None
        self._draft = self._folder = Path()
        self._all = blake2b(digest_size=16)

    def _open(self) -> IO[bytes]:
        if self._file is None:
            self._folder = place_in_cache("pictures")
            self._folder.mkdir(exist_ok=True)
            _clear(self._folder)
            handle, name = tempfile.mkstemp(prefix=".", suffix=PARTIAL, dir=self._folder)
            self._file, self._draft = os.fdopen(handle, "wb"), Path(name)
        return self._file

    def put(self, picture: InMemory) -> tuple[int, int]:
        """Write a picture; return where its bytes begin and how many there are."""
        file, content = self._open(), picture.encoded()
        begin = file.tell()
        try:
            file.write(content)
        except OSError as error:
            raise not_written(self._draft, error) from error
        self._all.update(f"{picture.digest} {len(content)};".encode())
        return begin, len(content)

    def close(self) -> Path:
        """Give the file its name, and return it."""
        file = self._open()
        target = self._folder / f"{self._all.hexdigest()}.bin"
        try:
            file.flush()
            os.fsync(file.fileno())
            file.close()
            os.replace(self._draft, target)
            sync_folder(self._folder)
        except OSError as error:
            raise not_written(target, error) from error
        return target

    def __enter__(self) -> "Spool":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
            self._draft.unlink(missing_ok=True)


def take(picture: Any) -> InMemory:
    """Take a picture that is in memory.

    Args:
        picture: a PIL image; the bytes of an image file; an open file; or an array or tensor, uint8 or floating point
            in [0, 1] (rounded to 8 bits): [height, width], [height, width, channels] or [channels, height, width] with
            1, 3 or 4 channels. Where both could be meant, arrays have their channels last and tensors first.

    Raises:
        ValueError: something else; the message completes "a picture ...".
    """
    if isinstance(picture, bytes | bytearray | memoryview):
        return _checked(bytes(picture))
    if hasattr(picture, "read") and not isinstance(picture, Image.Image):
        content = picture.read()
        if not isinstance(content, bytes):
            raise ValueError(f"in a file that gives {type(content).__name__} instead of bytes")
        return _checked(content)
    if isinstance(picture, Image.Image):
        try:
            return _pixels(as_rgb(picture))
        except UNREADABLE as error:
            raise ValueError(f"that cannot be read ({error})") from error
    if hasattr(picture, "__array__") or hasattr(picture, "detach"):
        return _pixels(_from_array(picture))
    raise ValueError(f"that is a PIL image, an array, bytes or a path, but it is a {type(picture).__name__}")


def _checked(content: bytes) -> InMemory:
    try:
        open_image(io.BytesIO(content)).close()
    except UnidentifiedImageError as error:
        raise ValueError(f"whose bytes are of no known image format ({', '.join(FORMATS)})") from error
    except UNREADABLE as error:
        raise ValueError(f"that cannot be read ({error})") from error
    return InMemory(blake2b(content, digest_size=10).hexdigest(), content)


def _pixels(image: Image.Image) -> InMemory:
    return InMemory(blake2b(f"{image.size};".encode() + image.tobytes(), digest_size=10).hexdigest(), image)


def _from_array(given: Any) -> Image.Image:
    is_tensor = hasattr(given, "detach")
    if np.ma.is_masked(given):
        raise ValueError("with a mask, which a picture has not")
    try:
        values = np.asarray(given.detach().cpu().float() if is_tensor and given.is_floating_point() else given)
    except (TypeError, RuntimeError) as error:
        raise ValueError(f"that is no plain array ({error})") from error
    first = values.ndim == 3 and values.shape[0] in _CHANNELS
    last = values.ndim == 3 and values.shape[-1] in _CHANNELS
    if values.ndim != 2 and not first and not last:
        raise ValueError(
            f"of shape {list(values.shape)} instead of [height, width], [height, width, channels] or [channels, "
            "height, width] with 1, 3 or 4 channels"
        )
    if values.size == 0:
        raise ValueError(f"of shape {list(values.shape)}, which is empty")
    if first and (is_tensor or not last):
        values = values.transpose(1, 2, 0)
    if values.dtype.kind == "f":
        low, high = float(values.min()), float(values.max())
        if not (low >= 0 and high <= 1):
            raise ValueError(
                f"of floating point in [{low:.3g}, {high:.3g}] instead of [0, 1] (before the model's normalisation)"
            )
        values = np.rint(values * np.float32(255)).astype(np.uint8)
    if values.dtype != np.uint8:
        raise ValueError(f"of {values.dtype} instead of uint8, or of floating point in [0, 1]")
    return as_rgb(Image.fromarray(np.ascontiguousarray(values[..., 0] if values.shape[2:] == (1,) else values)))


def _clear(folder: Path) -> None:
    """Remove what writers left that were killed a day ago or longer; younger ones may still be writing."""
    for left in folder.glob(f".*{PARTIAL}"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > _DAY:
                left.unlink()
