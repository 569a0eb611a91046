"""Pictures as data URIs, so that the report needs no other file."""

import base64
import io

import numpy as np
from PIL import Image

from crossguard.evaluate.examples import Picture

MOST_BYTES = 15 * 2**20
"""Of all pictures in a page together; what stands around them takes little."""


class Album:
    """The pictures of one page, until there are too many: then a page says how many are left out.

    Args:
        most: bytes of all of them.
    """

    def __init__(self, most: int = MOST_BYTES) -> None:
        self._left, self.left_out = most, 0

    def add(self, picture: Picture, *, longest: int) -> str:
        """Return a picture as `data_uri` does; an empty string where there is no room for it any more."""
        if self._left > 0:
            found = data_uri(picture, longest=longest)
            self._left -= len(found)
            if self._left >= 0:
                return found
        self.left_out += 1
        return ""


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
