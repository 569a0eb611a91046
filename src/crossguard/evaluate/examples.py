"""A few samples with what the model answered, before and after the attack, for people to look at."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jaxtyping import UInt8

from crossguard.data.pairs import evenly
from crossguard.runs import DAMAGED, npz_bytes, read_npz, write_atomically

Choice = TypeVar("Choice")
Picture = UInt8[np.ndarray, "height width 3"]


@dataclass(frozen=True)
class Item:
    """A text or a picture of an example.

    Args:
        title: what it is, in a few words; "" where its place says it.
        text: the words; "" says that there is nothing, None that it is a picture.
        source: the text before the attack; words that differ from it are marked.
        picture: uint8 [height, width, 3].
        clean: the picture before the attack; the difference is shown beside.
        right: whether it is a right answer; None where that is no question.
    """

    title: str = ""
    text: str | None = None
    source: str | None = None
    picture: Picture | None = None
    clean: Picture | None = None
    right: bool | None = None


@dataclass(frozen=True)
class Example:
    """One sample: what was asked, and what was answered.

    Args:
        asked: the question, before and under attack.
        answers: by what they are ("without attack", "under attack", ...), the answers.
    """

    asked: tuple[Item, ...]
    answers: Mapping[str, tuple[Item, ...]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the words as JSON values; pictures go to a file by `save_pictures`, in the order of the items."""
        return {
            "asked": [_words(item) for item in self.asked],
            "answers": [[title, [_words(item) for item in items]] for title, items in self.answers.items()],
        }

    @property
    def items(self) -> list[Item]:
        """All items, those that were asked first."""
        return [*self.asked, *(item for items in self.answers.values() for item in items)]


def _words(item: Item) -> dict[str, Any]:
    held = {"picture": item.picture is not None, "clean": item.clean is not None}
    return {"title": item.title, "text": item.text, "source": item.source, "right": item.right, **held}


def save_pictures(examples: Sequence[Example], path: Path) -> None:
    """Write the pictures of examples as npz, whole or not at all; equal ones once."""
    place: dict[tuple[bytes, tuple[int, ...]], int] = {}
    kept: list[np.ndarray] = []
    order: list[int] = []
    for example in examples:
        for item in example.items:
            for picture in (item.picture, item.clean):
                if picture is None:
                    continue
                key = (picture.tobytes(), picture.shape)
                if key not in place:
                    place[key] = len(kept)
                    kept.append(picture)
                order.append(place[key])
    named = {f"picture{number}": picture for number, picture in enumerate(kept)}
    write_atomically(path, npz_bytes(order=np.array(order, dtype=np.int64), **named))


def load_examples(values: Sequence[Mapping[str, Any]], path: Path) -> tuple[Example, ...]:
    """Read what `Example.to_dict` and `save_pictures` gave.

    Raises:
        ValueError: the file is missing or damaged.
    """
    if not values:
        return ()
    try:
        file = read_npz(path)
        pictures = (file[f"picture{number}"] for number in file["order"].tolist())
        return tuple(
            Example(
                tuple(_item(item, pictures) for item in value["asked"]),
                {title: tuple(_item(item, pictures) for item in items) for title, items in value["answers"]},
            )
            for value in values
        )
    except (*DAMAGED, StopIteration) as error:
        raise ValueError(f"Expected example pictures at {path}, but got: {error}") from error


def _item(value: Mapping[str, Any], pictures: Any) -> Item:
    shown = {key: next(pictures) if value[key] else None for key in ("picture", "clean")}
    return Item(value["title"], value["text"], value["source"], right=value["right"], **shown)


def spread_evenly(items: Sequence[Choice], *, count: int) -> list[Choice]:
    """Return up to `count` of the items, evenly spaced: a choice that does not look at the attack's outcome.

    Example:
        >>> spread_evenly([2, 3, 5, 7, 11], count=3)
        [2, 5, 11]
    """
    return [items[spot] for spot in evenly(count, len(items))]
