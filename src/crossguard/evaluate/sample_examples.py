"""A few samples of a task with what the model saw, before and after the attack, for people to look at."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float32, UInt8

from crossguard.data.pairs import evenly
from crossguard.runs import DAMAGED, npz_bytes, read_npz, write_atomically

Item = TypeVar("Item")


@dataclass(frozen=True)
class SampleExample:
    """One sample before and after.

    Args:
        row: the sample's row: texts, answers, and whatever else the task says of it.
        size: (height, width) of the photo in pixels.
        pictures: uint8 [sides, height, width, 3]: the clean picture and, if attacked, the adversarial one, as the model
            saw them.
        maps: float32 [sides, rows, columns]: where the model looked, over the whole picture; of size 0 for tasks
            without maps.
    """

    row: Mapping[str, Any]
    size: tuple[int, int]
    pictures: UInt8[np.ndarray, "sides height width 3"]
    maps: Float32[np.ndarray, "sides rows columns"]


@dataclass(frozen=True)
class SampleExamples:
    """Examples; rows go to the summary, pictures and maps to a file."""

    examples: tuple[SampleExample, ...]

    def to_dict(self) -> list[dict[str, Any]]:
        """Return rows and sizes as JSON values."""
        return [{"size": list(example.size), "row": dict(example.row)} for example in self.examples]

    def save_pictures(self, path: Path) -> None:
        """Write pictures and maps as npz, whole or not at all."""
        content = npz_bytes(
            pictures=np.array([example.pictures for example in self.examples], dtype=np.uint8),
            maps=np.array([example.maps for example in self.examples], dtype=np.float32),
        )
        write_atomically(path, content)

    @classmethod
    def load(cls, values: Sequence[Mapping[str, Any]], path: Path) -> "SampleExamples":
        """Read what `to_dict` and `save_pictures` gave.

        Raises:
            ValueError: the file is missing or damaged.
        """
        try:
            file = read_npz(path)
            shown = list(zip(file["pictures"], file["maps"], strict=True))
            return cls(
                tuple(
                    SampleExample(value["row"], (value["size"][0], value["size"][1]), pictures, maps)
                    for value, (pictures, maps) in zip(values, shown, strict=True)
                )
            )
        except DAMAGED as error:
            raise ValueError(f"Expected example pictures at {path}, but got: {error}") from error


def spread_evenly(items: Sequence[Item], *, count: int) -> list[Item]:
    """Return up to `count` of the items, evenly spaced: a choice that does not look at the attack's outcome.

    Example:
        >>> spread_evenly([2, 3, 5, 7, 11], count=3)
        [2, 5, 11]
    """
    return [items[spot] for spot in evenly(count, len(items))]
