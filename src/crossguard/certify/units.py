"""What an element of a modality is called."""

from collections.abc import Mapping

import numpy as np

from crossguard.checks import lookup


def units_of(given: Mapping[str, str] | None, values: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Return what an element is called, by modality: as given, else a pixel of images, else an element.

    Raises:
        ValueError: an unknown modality.
    """
    found = {m: "pixel" if array.ndim == 4 else "element" for m, array in values.items()}
    for modality, unit in (given or {}).items():
        lookup(found, modality, what="modality in `units`")
        found[modality] = unit
    return found


def plural(unit: str) -> str:
    """Return the plural of what an element is called.

    Example:
        >>> plural("patch"), plural("time step")
        ('patches', 'time steps')
    """
    return unit + ("es" if unit.endswith(("ch", "sh", "s", "x")) else "s")
