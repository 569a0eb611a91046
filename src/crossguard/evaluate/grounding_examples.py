"""A few expressions with where the model looked and what it chose, before and after the attack."""

import io
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

from crossguard.evaluate.grounding_boxes import RIGHT
from crossguard.runs import write_atomically

_FIELDS = ("truth", "clean_box", "robust_box", "clean_iou", "robust_iou", "text", "adversarial_text", "index")


@dataclass(frozen=True)
class GroundingExample:
    """One expression before and after.

    Args:
        row: the expression's row: texts, true box, chosen boxes and their overlaps.
        size: (height, width) of the photo, in whose pixels the boxes are.
        pictures: uint8 [sides, height, width, 3]: the clean picture and, if attacked, the adversarial one, as the model
            saw them.
        maps: float32 [sides, rows, columns]: where the model looked, over the whole picture.
    """

    row: Mapping[str, Any]
    size: tuple[int, int]
    pictures: UInt8[np.ndarray, "sides height width 3"]
    maps: Float32[np.ndarray, "sides rows columns"]


@dataclass(frozen=True)
class GroundingExamples:
    """Examples; texts and boxes go to the summary, pictures and maps to a file."""

    examples: tuple[GroundingExample, ...]

    def to_dict(self) -> list[dict[str, Any]]:
        """Return texts, boxes and sizes as JSON values."""
        return [
            {"size": list(example.size), **{field: example.row[field] for field in _FIELDS}}
            for example in self.examples
        ]

    def save_pictures(self, path: Path) -> None:
        """Write pictures and maps as npz, whole or not at all."""
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer,
            pictures=np.array([example.pictures for example in self.examples], dtype=np.uint8),
            maps=np.array([example.maps for example in self.examples], dtype=np.float32),
        )
        write_atomically(path, buffer.getvalue())

    @classmethod
    def load(cls, values: Sequence[Mapping[str, Any]], path: Path) -> "GroundingExamples":
        """Read what `to_dict` and `save_pictures` gave.

        Raises:
            ValueError: the file is missing or damaged.
        """
        try:
            with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
                shown = list(zip(file["pictures"], file["maps"], strict=True))
            return cls(
                tuple(
                    GroundingExample(row, (row["size"][0], row["size"][1]), pictures, maps)
                    for row, (pictures, maps) in zip(values, shown, strict=True)
                )
            )
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"Expected example pictures at {path}, but got: {error}") from error


def choose_expressions(rows: Sequence[Mapping[str, Any]], *, count: int) -> list[int]:
    """Choose up to `count` expressions, evenly spaced among those answered right without attack (all, if none is).

    The choice does not look at the attack's outcome, so that the examples show its success neither better nor worse.
    """
    right = [place for place, row in enumerate(rows) if row["clean_iou"] >= RIGHT] or list(range(len(rows)))
    spots = np.linspace(0, len(right) - 1, min(count, len(right))).round().astype(int)
    return [right[spot] for spot in spots]
