"""Pictures as data URIs, so that the report needs no other file."""

import base64
import io

import numpy as np
from PIL import Image

from crossguard.evaluate.examples import Picture


def data_uri(picture: Picture, *, longest: int) -> str:
    """Return a picture as a PNG data URI, made smaller if a side is longer than `longest` pixels."""
    image = Image.fromarray(picture)
    image.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def amplified_difference(clean: Picture, adversarial: Picture) -> tuple[Picture, int]:
    """Return the change as a picture around middle grey, and the factor it was amplified by (a power of two).

    The factor is the largest at which no change leaves the range; it is 1 when nothing changed.
    """
    change = adversarial.astype(np.int16) - clean.astype(np.int16)
    largest = int(np.abs(change).max())
    factor = 1 if largest in (0, 255) else 1 << max(0, (127 // largest).bit_length() - 1)
    return np.clip(128 + factor * change, 0, 255).astype(np.uint8), factor
