"""What a training costs, in floating-point operations: the same number on every machine, unlike seconds."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch.utils.flop_counter import FlopCounterMode

from crossguard.attacks.candidates import Candidates, CandidateSource
from crossguard.models import VisionLanguageModel


@dataclass(frozen=True)
class TrainingCost:
    """What a training costs, inner attacks included.

    Args:
        per_step: operations of a step whose texts were all met before.
        per_text: operations of finding a text's candidates, which a training does when it first meets the text.
        texts: texts that are trained on.
        new_texts: texts of a step at most that were not met before.
    """

    per_step: float
    per_text: float
    texts: int
    new_texts: float

    def of(self, steps: int) -> float:
        """Return the operations of a whole training."""
        return self.per_step * steps + self.per_text * min(self.texts, self.new_texts * steps)

    def steps_within(self, allowed: float) -> int:
        """Return how many steps cost what is allowed, at least one.

        Example:
            >>> cost = TrainingCost(per_step=10.0, per_text=1.0, texts=20, new_texts=5.0)
            >>> cost.of(2), cost.of(4), cost.of(6)
            (30.0, 60.0, 80.0)
            >>> [cost.steps_within(allowed) for allowed in (30.0, 60.0, 80.0)]
            [2, 4, 6]
        """
        while_new = allowed / (self.per_step + self.per_text * self.new_texts)
        after = (allowed - self.per_text * self.texts) / self.per_step
        return max(1, round(max(while_new, after)))


class CountedSource:
    """A candidate source that counts the texts it is asked about and the operations that the answers take."""

    def __init__(self, source: CandidateSource) -> None:
        self.name = source.name
        self._source = source
        self._asked, self._flop = 0, 0

    @property
    def asked(self) -> int:
        """Texts so far."""
        return self._asked

    @property
    def flop(self) -> int:
        """Operations so far."""
        return self._flop

    def candidates(self, texts: Sequence[str], *, model: VisionLanguageModel) -> list[Candidates]:
        """Ask the source."""
        with FlopCounterMode(display=False) as counter:
            found = self._source.candidates(texts, model=model)
        self._asked += len(texts)
        self._flop += counter.get_total_flops()
        return found
