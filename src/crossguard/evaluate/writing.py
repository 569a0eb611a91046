"""Tasks whose model writes a text for each picture or question: what they share."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from crossguard.attacks.ascent import LossPerSample
from crossguard.attacks.base import Attack, frozen
from crossguard.attacks.pgd import GradientAttack
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

    Args:
        target: a text that the attack is to make the model write; None: there is none.
        half_first: take gradients in half precision (bfloat16) first, and attack again in single precision what still
            stands (see `fallen`). What is written is the model's own throughout.

    Attributes:
        wrote: heads what the model writes in examples.
        people: heads what people wrote.
        asked: what rows are of, in words.
    """

    target: str | None = None
    half_first: bool = False

    wrote: ClassVar[str]
    people: ClassVar[str]
    asked: ClassVar[str]

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
    def loss(self, batch: PairBatch, clean: Any) -> LossPerSample:
        """Return what an attack raises, per row of a batch whose clean answers are known."""

    @abstractmethod
    def fallen(self, batch: PairBatch, pixels: Float[Tensor, "rows 3 height width"]) -> Bool[np.ndarray, " rows"]:
        """Return for which rows pixels that an attack found are all that it could wish for, in single precision."""

    def attack(self, batch: PairBatch, clean: Any, attack: Attack, threat: ThreatModel, seed: int) -> Arrays:
        """Attack each picture for its row; in half precision first, where that is asked for."""
        if not self.half_first:
            return StoredBatch.from_pixels(batch, self._raised(batch, clean, attack, threat, seed, half=False)).arrays()
        pixels = self._raised(batch, clean, attack, threat, seed, half=True)
        kept = StoredBatch.from_pixels(batch, pixels).pixels.to(batch.pixels.device)
        done = self.fallen(batch, kept)
        left = np.flatnonzero(~done)
        if len(left):
            part = self.load_batch(batch.image_ids.cpu().numpy()[left], batch.pixels.device)
            again = self._raised(part, [clean[place] for place in left], attack, threat, seed, half=False)
            pixels = pixels.index_copy(0, torch.from_numpy(left).to(pixels.device), again)
        return {**StoredBatch.from_pixels(batch, pixels).arrays(), "half": done}

    def _raised(
        self, batch: PairBatch, clean: Any, attack: Attack, threat: ThreatModel, seed: int, *, half: bool
    ) -> Float[Tensor, "rows 3 height width"]:
        """Return adversarial pixels within the budget, on the 8-bit grid."""
        assert isinstance(attack, GradientAttack)
        ball, loss = attack.budgets(threat).ball(self.model, batch.pixels), self.loss(batch, clean)

        def computed(pixels: Float[Tensor, "rows 3 height width"]) -> Float[Tensor, " rows"]:
            with torch.autocast(pixels.device.type, dtype=torch.bfloat16) if half else nullcontext():
                return loss(pixels).float()

        with frozen(self.model):
            found = attack.raised(computed, ball, batch.image_ids, seed=seed)
            return ball.to_pixels(found.detach())

    def told_half(self, rows: Rows) -> list[str]:
        """Return for how many rows half precision was enough, where it came first."""
        if not rows or "half" not in rows[0]:
            return []
        return [f"Half precision was enough for {sum(row['half'] for row in rows)} of {len(rows)} {self.asked}."]

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
