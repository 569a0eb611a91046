"""Arrays by name as one compressed npz without pickles, and reading it where its bytes may be damaged."""

import io
import struct
import zipfile
import zlib
from lzma import LZMAError
from pathlib import Path
from typing import Any

import numpy as np

# RuntimeError: a wrong bit in a header asks for a password or for another kind of compression.
DAMAGED = (
    *(OSError, EOFError, ValueError, KeyError, TypeError, RuntimeError),
    *(zipfile.BadZipFile, zlib.error, LZMAError, struct.error),
)
"""What reading a damaged npz, and making something of its arrays, raises."""


def npz_bytes(**arrays: np.ndarray) -> bytes:
    """Return arrays as the content of a compressed npz."""
    buffer = io.BytesIO()
    named: dict[str, Any] = dict(arrays)
    np.savez_compressed(buffer, **named)
    return buffer.getvalue()


def read_npz(path: Path | str) -> dict[str, np.ndarray]:
    """Return the arrays of an npz by name, none of them pickled.

    The checksum of each is compared before its header is read: NumPy alone reads the header first, as Python.

    Raises:
        OSError, ValueError, ...: it is missing or damaged, see `DAMAGED`.
    """
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    return {
        name.removesuffix(".npy"): np.load(io.BytesIO(content), allow_pickle=False) for name, content in members.items()
    }
