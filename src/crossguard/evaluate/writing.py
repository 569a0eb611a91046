"""Tasks whose model writes a text for each picture or question: what they share."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Int64

from crossguard.data import PairBatch
from crossguard.evaluate.batches import in_order
from crossguard.evaluate.captioning_attack import says
from crossguard.evaluate.examples import Example, Item, spread_evenly
from crossguard.evaluate.store import Arrays
from crossguard.evaluate.stored_batch import StoredBatch
from crossguard.evaluate.task import Part, Rows, SampleTask
from crossguard.threat import ThreatModel


@dataclass(frozen=True)
class WritingTask(SampleTask):
    """A task whose model writes a text for each row, which is attacked through a picture of its own.

    Attributes:
        target: a text that the attack is to make the model write; None: there is none.
        wrote: heads what the model writes in examples.
        people: heads what people wrote.
    """

    target: str | None = None

    wrote: ClassVar[str]
    people: ClassVar[str]

    @cached_property
    def batches(self) -> list[Int64[np.ndarray, " rows"]]:
        """Rows in order, `batch_size` at a time."""
        return in_order(self.rows, batch_size=self.batch_size)

    def samples_of(self, ids: Int64[np.ndarray, " rows"]) -> Int64[np.ndarray, " samples"]:
        """Return the rows: each is one sample."""
        return ids

    def beyond_budget(self, batch: PairBatch, found: Arrays, threat: ThreatModel) -> str:
        """Return how a stored batch leaves the threat."""
        return stored(found).beyond_budget(self.model, batch, threat)

    def reached(self, said: Mapping[str, str | None]) -> dict[str, bool | None]:
        """Return, by side, whether the target is written; nothing without a target."""
        if self.target is None:
            return {}
        return {f"{side}_target": None if text is None else says(text, self.target) for side, text in said.items()}

    @abstractmethod
    def shown(self, row: Mapping[str, Any]) -> tuple[str, Mapping[str, str], Sequence[str]]:
        """Return of a row how its picture is headed, what the model wrote by side, and what people wrote."""

    def examples(self, rows: Rows, part: Part, *, count: int) -> tuple[Example, ...]:
        """Return rows spread evenly over the data."""
        chosen, examples = spread_evenly(list(range(len(rows))), count=count), []
        for number, ids in enumerate(self.batches):
            here = [place for place in chosen if place in ids]
            if not here:
                continue
            found = part.store.read(number, ids)
            pixels = (self.load_batch(ids, torch.device("cpu")).pixels * 255).round().byte()
            for place in here:
                at = int(np.searchsorted(ids, place))
                title, wrote, people = self.shown(rows[place])
                clean = pixels[at].permute(1, 2, 0).numpy()
                picture = Item(title, picture=clean)
                said: dict[str, tuple[Item, ...]] = {self.wrote: (Item(text=wrote["clean"]),)}
                if found is not None:
                    picture = Item(title, picture=found["grey"][at].transpose(1, 2, 0), clean=clean)
                    said["Under attack"] = (Item(text=wrote["robust"], source=wrote["clean"]),)
                said[self.people] = tuple(Item(text=text) for text in people)
                examples.append(Example((picture,), said))
        return tuple(examples)


def stored(found: Arrays) -> StoredBatch:
    """Return the pixels of what an attack found, without what a task keeps beside them."""
    return StoredBatch.of_arrays({key: values for key, values in found.items() if key != "half"})
