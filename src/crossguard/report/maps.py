"""Maps of a segmentation as pictures: classes in fixed colours, abstention in a colour of its own."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int64, UInt8

from crossguard.evaluate.examples import Picture

# Okabe and Ito's colours, which people with any kind of colour vision tell apart; yellow is kept for abstention.
_CLASSES = (
    (38, 42, 56),
    (86, 180, 233),
    (0, 158, 115),
    (213, 94, 0),
    (204, 121, 167),
    (0, 114, 178),
    (230, 159, 0),
    (160, 160, 160),
)
ABSTAIN = (250, 228, 66)
NOT_JUDGED = (255, 255, 255)


def label_map(
    labels: Int64[np.ndarray, "height width"], *, certified: Bool[np.ndarray, "height width"] | None = None
) -> Picture:
    """Return labels as colours.

    Args:
        labels: class indices; -1 marks what is not judged.
        certified: where the label is certified; elsewhere the colour of abstention is shown. None shows all labels.

    Returns:
        uint8 [height, width, 3]. Of more than 8 classes, colours come again.
    """
    palette: UInt8[np.ndarray, "colours 3"] = np.array([*_CLASSES, NOT_JUDGED, ABSTAIN], dtype=np.uint8)
    chosen = np.where(labels < 0, len(_CLASSES), labels % len(_CLASSES))
    if certified is not None:
        chosen = np.where(certified, chosen, len(_CLASSES) + 1)
    return palette[chosen]


def legend(classes: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Return (what, colour as #rrggbb) of each class, of abstention and of what is not judged."""
    colours = [(name, _CLASSES[index % len(_CLASSES)]) for index, name in enumerate(classes)]
    colours += [("abstains: not certified", ABSTAIN), ("not judged", NOT_JUDGED)]
    return tuple((name, "#{:02x}{:02x}{:02x}".format(*colour)) for name, colour in colours)
