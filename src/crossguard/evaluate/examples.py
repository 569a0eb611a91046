"""A few queries with what they found before and after the attack, for people to look at."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from crossguard.evaluate.retrieval import DIRECTIONS, Direction
from crossguard.evaluate.sample_examples import spread_evenly
from crossguard.runs import DAMAGED, npz_bytes, read_npz, write_atomically

TOP = 5
"""How many results an example shows."""


@dataclass(frozen=True)
class Example:
    """One query and the best of its gallery, before and after.

    Args:
        direction: "tr" (the query is an image) or "ir" (the query is a text).
        query: index of the query.
        right: indices of its true partners in the gallery.
        before: indices of the best gallery items without attack, best first.
        after: the same under attack.
    """

    direction: Direction
    query: int
    right: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]

    @property
    def images(self) -> set[int]:
        """Indices of the pictures that show this example, with its true partners."""
        return {self.query} if self.direction == "tr" else {*self.before, *self.after, *self.right[:1]}

    @property
    def texts(self) -> set[int]:
        """Indices of the texts that show this example, with its true partners."""
        return {self.query} if self.direction == "ir" else {*self.before, *self.after, *self.right[:1]}


@dataclass(frozen=True)
class Examples:
    """Example queries with the pictures and texts that show them.

    Args:
        queries: the examples.
        texts: by index, the clean and the adversarial text.
        pictures: by index, the clean and the adversarial picture, uint8 [height, width, 3].
    """

    queries: tuple[Example, ...]
    texts: Mapping[int, tuple[str, str]]
    pictures: Mapping[int, tuple[UInt8[np.ndarray, "height width 3"], UInt8[np.ndarray, "height width 3"]]]

    def to_dict(self) -> dict[str, Any]:
        """Return queries and texts as JSON values; the pictures go to a file by `save_pictures`."""
        return {
            "queries": [
                {
                    "direction": example.direction,
                    "query": example.query,
                    "right": list(example.right),
                    "before": list(example.before),
                    "after": list(example.after),
                }
                for example in self.queries
            ],
            "texts": {str(index): list(pair) for index, pair in sorted(self.texts.items())},
        }

    def save_pictures(self, path: Path) -> None:
        """Write the pictures as npz, whole or not at all."""
        ids = sorted(self.pictures)
        content = npz_bytes(
            ids=np.array(ids, dtype=np.int64),
            clean=np.array([self.pictures[i][0] for i in ids], dtype=np.uint8),
            adversarial=np.array([self.pictures[i][1] for i in ids], dtype=np.uint8),
        )
        write_atomically(path, content)

    @classmethod
    def load(cls, values: Mapping[str, Any], pictures: Path) -> "Examples":
        """Read what `to_dict` and `save_pictures` gave.

        Raises:
            ValueError: the file is missing or damaged.
        """
        try:
            file = read_npz(pictures)
            both = zip(file["clean"], file["adversarial"], strict=True)
            shown = {int(i): pair for i, pair in zip(file["ids"], both, strict=True)}
        except DAMAGED as error:
            raise ValueError(f"Expected example pictures at {pictures}, but got: {error}") from error
        return cls(
            queries=tuple(
                Example(
                    direction=cast(Direction, row["direction"]),
                    query=row["query"],
                    right=tuple(row["right"]),
                    before=tuple(row["before"]),
                    after=tuple(row["after"]),
                )
                for row in values["queries"]
            ),
            texts={int(i): (pair[0], pair[1]) for i, pair in values["texts"].items()},
            pictures=shown,
        )


def choose_queries(
    clean_ranks: Mapping[Direction, Int64[Tensor, " queries"]], *, count: int
) -> list[tuple[Direction, int]]:
    """Choose up to `count` queries per direction, evenly spaced among those answered right without attack.

    The choice does not look at the attack's outcome, so that the examples show its success neither better nor worse.
    """
    chosen: list[tuple[Direction, int]] = []
    for direction in DIRECTIONS:
        right = torch.nonzero(clean_ranks[direction] == 1).flatten().tolist()
        chosen.extend((direction, query) for query in spread_evenly(right, count=count))
    return chosen
