"""Heat maps laid over pictures, with the true box and the chosen one."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image, ImageDraw

from crossguard.evaluate.examples import Picture

HEAT = (255, 96, 0)
TRUTH, RIGHT, WRONG = (255, 255, 255), (64, 132, 244), (214, 48, 49)
_LONGEST = 448


def overlay(
    picture: UInt8[np.ndarray, "seen_height seen_width 3"],
    heat: Float32[np.ndarray, "rows columns"],
    *,
    size: tuple[int, int],
    truth: Sequence[float],
    chosen: Sequence[float] | None,
    right: bool,
) -> Picture:
    """Return the picture in the photo's shape, warm where the model looked, with boxes drawn on it.

    The true box is white, the chosen one blue if it is right and red if not. The map's largest value is drawn at full
    strength, so that colours are not to be compared between pictures.

    Args:
        picture: as the model saw it, squeezed to its square.
        heat: >= 0, over the whole picture; all zero leaves the picture as it is.
        size: (height, width) of the photo, in whose pixels the boxes are.
        truth: the true box, (left, top, width, height).
        chosen: the chosen one; None where there is none.
        right: whether the chosen one counts as right.
    """
    scale = min(1.0, _LONGEST / max(size))
    height, width = (max(1, round(side * scale)) for side in size)
    photo = np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC), dtype=np.float32)
    largest = float(heat.max()) or 1.0
    strength = Image.fromarray((heat / largest).astype(np.float32)).resize((width, height), Image.Resampling.BICUBIC)
    share = 0.65 * np.asarray(strength, dtype=np.float32).clip(0, 1)[..., None]
    mixed = (1 - share) * photo + share * np.array(HEAT, dtype=np.float32)
    drawn = Image.fromarray(mixed.round().clip(0, 255).astype(np.uint8))
    canvas = ImageDraw.Draw(drawn)
    line = max(2, round(max(height, width) / 150))
    _box(canvas, truth, scale, TRUTH, line)
    if chosen is not None:
        _box(canvas, chosen, scale, RIGHT if right else WRONG, line)
    return np.array(drawn)


def _box(
    canvas: ImageDraw.ImageDraw, box: Sequence[float], scale: float, colour: tuple[int, int, int], line: int
) -> None:
    left, top, wide, tall = (side * scale for side in box)
    right, bottom = max(left, left + wide - 1), max(top, top + tall - 1)
    canvas.rectangle((left, top, right, bottom), outline=colour, width=line)
