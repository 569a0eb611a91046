"""`Job`: one measurement of retrieval that is asked for, checked before any work."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossguard import __version__
from crossguard.attacks.base import Attack
from crossguard.attacks.saved import Saved
from crossguard.attacks.saved_set import check_savable
from crossguard.data import OneToManyPairs
from crossguard.evaluate.asked import check_budgets, part_name
from crossguard.evaluate.features import check_model
from crossguard.evaluate.fingerprint import describe, pairs_fingerprint, weights_fingerprint
from crossguard.evaluate.ranking import candidates_of
from crossguard.evaluate.saving import check_target
from crossguard.models import VisionLanguageModel
from crossguard.progress import Reporter
from crossguard.runs import RunFolder
from crossguard.threat import ThreatModel


@dataclass(frozen=True)
class Job:
    """What is measured, how, and where it is kept; see `evaluate`."""

    model: VisionLanguageModel
    pairs: OneToManyPairs
    attack: Attack | None
    threat: ThreatModel | None
    seed: int
    batch_size: int
    label: str | None
    run: RunFolder | None
    progress: Reporter
    examples: int
    save_to: Path | None
    rerank: int | None

    @property
    def candidates(self) -> int:
        """How many items per query are re-ranked by match; 0: none."""
        return candidates_of(self.model, self.rerank)

    @property
    def name(self) -> str:
        """What the measurement is called in tables."""
        return self.model.name if self.label is None else self.label

    @property
    def part(self) -> str:
        """What is attacked: "clean", "image", "text" or "joint"."""
        return part_name(self.threat)

    @property
    def section(self) -> str:
        """The section of its rows in the run."""
        return f"{self.name}/{self.part}"

    def check(self) -> None:
        """Refuse what cannot be measured.

        Raises:
            WrongKind: the model lacks members of the protocol.
            ValueError: as `evaluate`.
        """
        check_model(self.model)
        if not self.pairs.images or not self.pairs.texts:
            raise ValueError(
                f"Expected pairs to evaluate, but {self.pairs.name} ({self.pairs.split}) has "
                f"{len(self.pairs.images)} images and {len(self.pairs.texts)} texts."
            )
        if self.batch_size < 1 or self.examples < 0:
            raise ValueError(
                f"Expected `batch_size` >= 1 and `examples` >= 0, but got {self.batch_size} and {self.examples}."
            )
        candidates_of(self.model, self.rerank)
        check_budgets(self.attack, self.threat)
        if isinstance(self.attack, Saved) and self.threat is not None:
            self.attack.check(self.model, self.pairs, self.threat)
        if self.save_to is not None:
            if self.attack is None:
                raise ValueError("Expected an attack whose findings go to `save_to`, but `attack` is None.")
            check_savable(self.threat or ThreatModel())
            check_target(self.save_to)

    def settings(self, shared: "Shared") -> dict[str, Any]:
        """Return everything that decides the outcome, as JSON values."""
        return {
            "label": self.name,
            "part": self.part,
            "model": self.model.name,
            "weights": shared.get("weights", lambda: weights_fingerprint(check_model(self.model))),
            "data": self.pairs.name,
            "split": self.pairs.split,
            "content": shared.get("content", lambda: pairs_fingerprint(self.pairs, progress=self.progress)),
            "data_notes": list(self.pairs.notes),
            "attack": None if self.attack is None else self.attack.name,
            "attack_options": {} if self.attack is None else describe(vars(self.attack)),
            "threat": None if self.threat is None else self.threat.to_dict(),
            "seed": self.seed,
            "batch_size": self.batch_size,
            "rerank": self.candidates,
            "crossguard": __version__,
        }


class Shared:
    """What several evaluations of one model on one data set have in common, computed at most once."""

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}

    def get(self, name: str, make: Callable[[], Any]) -> Any:
        """Return the value of a name; `make` gives it where there is none yet."""
        if name not in self._values:
            self._values[name] = make()
        return self._values[name]
