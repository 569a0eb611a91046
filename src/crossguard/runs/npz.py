"""Arrays by name as one compressed npz without pickles, and reading it where its bytes may be damaged."""

import io
import struct
import zipfile
import zlib
from lzma import LZMAError
from pathlib import Path
from typing import Any

import numpy as np

# RuntimeError: a wrong bit in a header asks for a password or for another kind of compression. MemoryError: it claims
# more than there is.
DAMAGED = (
    *(OSError, EOFError, ValueError, KeyError, TypeError, RuntimeError, MemoryError),
    *(zipfile.BadZipFile, zlib.error, LZMAError, struct.error),
)
"""What reading a damaged npz, and making something of its arrays, raises."""


RATIO, SPARED = 32, 2**29
"""Arrays may be 32 times as large as their file; up to 512 MB are not counted."""


def npz_bytes(**arrays: np.ndarray) -> bytes:
    """Return arrays as the content of a compressed npz."""
    buffer = io.BytesIO()
    named: dict[str, Any] = dict(arrays)
    np.savez_compressed(buffer, **named)
    return buffer.getvalue()


def read_npz(path: Path | str, *, max_bytes: int | None = None) -> dict[str, np.ndarray]:
    """Return the arrays of an npz by name, none of them pickled.

    The checksum of each is compared before its header is read: NumPy alone reads the header first, as Python. What is
    claimed to be larger than allowed is refused before it is unpacked.

    Args:
        path: the file.
        max_bytes: the most bytes of all arrays together; default: `RATIO` times the file's, or `SPARED` if that is
            more.

    Raises:
        OSError, ValueError, ...: it is missing, damaged, too large or pickled, see `DAMAGED`.
    """
    with zipfile.ZipFile(path) as file:
        members = file.infolist()
        limit = max(SPARED, RATIO * Path(path).stat().st_size) if max_bytes is None else max_bytes
        claimed = sum(member.file_size for member in members)
        if claimed > limit:
            raise ValueError(f"its arrays take {claimed:,} bytes, more than {limit:,} (max_bytes)")
        names = [member.filename for member in members]
        if len(set(names)) < len(names):
            raise ValueError("an array comes twice")
        return {member.filename.removesuffix(".npy"): _array(file, member) for member in members}


def _array(file: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    content = bytearray(file.read(member))
    stream = io.BytesIO(content)
    version = np.lib.format.read_magic(stream)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, in_columns, dtype = read_header(stream)
    if dtype.hasobject:
        raise ValueError(f"{member.filename!r} holds Python objects, which are pickled and not read")
    values = np.frombuffer(content, dtype, offset=stream.tell())
    return values.reshape(shape[::-1]).transpose() if in_columns else values.reshape(shape)
