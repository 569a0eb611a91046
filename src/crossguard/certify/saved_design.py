"""How sub-samples are drawn, kept in the folder of the model, so that what is deployed is one folder."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, get_args

from crossguard.certify.counts import Counts
from crossguard.certify.options import PRECISIONS, Ablation, CertifyOptions
from crossguard.certify.thresholds import Scheme
from crossguard.checks import check_choice
from crossguard.models.storage import DESIGN
from crossguard.runs import write_json

FORMAT = 2


@dataclass(frozen=True)
class SavedDesign:
    """A design beside a model, with all that its votes depend on.

    Args:
        design: the scheme: "fixed" or "product" of a published design, "independent" or "joint" of random draws.
        n: elements of each modality, by its name.
        k: elements kept of each.
        draws: N.
        seed: of a published design, for everybody to know; None of random draws, which are made anew.
        fill: what ablated elements become, as `certify` takes it.
        noise: sigma of each modality under noise.
        alpha: of the certificates that were given; 0 of a published design.
        precision: of the base model.
    """

    design: str
    n: Mapping[str, int]
    k: Mapping[str, int | float]
    draws: int
    seed: int | None
    fill: Ablation | None = None
    noise: Mapping[str, float] = field(default_factory=dict)
    alpha: float = 0.0
    precision: str = "float32"

    @property
    def published(self) -> bool:
        """Whether all that it says holds for certain."""
        return self.design in ("fixed", "product")

    @classmethod
    def of(cls, counts: Counts, *, fill: Ablation | None, alpha: float, precision: str = "float32") -> "SavedDesign":
        """Return the design that counts are of."""
        seed = counts.seed if counts.published else None
        return cls(counts.scheme, counts.n, counts.k, counts.draws, seed, fill, counts.noise, alpha, precision)

    def options(self, **others: Any) -> CertifyOptions:
        """Return the options that draw by it, with others that it says nothing about."""
        drawn: dict[str, Any] = {"scheme": "joint" if self.design == "joint" else "independent"}
        if self.published:
            drawn = {"design": self.design, "seed": self.seed}
        drawn |= {"noise": self.noise, "draws": self.draws, "fill": self.fill, "precision": self.precision}
        return CertifyOptions(keep=self.k, **(drawn | others))

    def save(self, folder: Path | str) -> None:
        """Write `design.json` into the folder of the model.

        Raises:
            ValueError: there is no such folder.
        """
        if not Path(folder).is_dir():
            raise ValueError(f"Expected the folder of a model, to keep the design with it, but got {str(folder)!r}.")
        write_json(Path(folder) / DESIGN, {"format": FORMAT, **asdict(self)})

    @classmethod
    def load(cls, folder: Path | str) -> "SavedDesign":
        """Read what `save` wrote.

        Raises:
            ValueError: it is broken, or of another format.
        """
        path = Path(folder) / DESIGN
        try:
            held: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            if held.pop("format") != FORMAT:
                raise ValueError("another format")
            found = cls(**held)
            check_choice(found.design, get_args(Scheme), "design")
            check_choice(found.precision, PRECISIONS, "precision")
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"Expected a design in {path}, but it could not be read: {error}") from error
        return found
