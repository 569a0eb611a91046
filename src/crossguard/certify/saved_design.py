"""How sub-samples are drawn, kept in the folder of the model, so that what is deployed is one folder.

The folder answers only as long as it is the one that was certified: its model must be the certificate's when the design
is saved, and its files those that lay there then. A folder may be moved and its model renamed.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any, get_args

from crossguard.certify.counts import Counts
from crossguard.certify.options import PRECISIONS, Ablation, CertifyOptions
from crossguard.certify.thresholds import Scheme
from crossguard.checks import check_choice
from crossguard.models.storage import DESIGN, NAME, model_files
from crossguard.runs import write_json

FORMAT = 4


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
        """Write `design.json` into the folder of the model, with digests of it and of the model's files."""
        held = asdict(self) | {"files": _digests(Path(folder))}
        write_json(Path(folder) / DESIGN, {"format": FORMAT, **held, "digest": _digest(held)})

    @classmethod
    def load(cls, folder: Path | str) -> "SavedDesign":
        """Read what `save` wrote.

        Raises:
            ValueError: it is broken, of another format, or was changed; or the files of the model are not those that it
                was saved with.
        """
        path = Path(folder) / DESIGN
        try:
            held: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            if held.pop("format") != FORMAT:
                raise ValueError("another format")
            if held.pop("digest") != _digest(held):
                raise ValueError("it was changed after it was saved")
            files = held.pop("files")
            found = cls(**held)
            check_choice(found.design, get_args(Scheme), "design")
            check_choice(found.precision, PRECISIONS, "precision")
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"Expected a design in {path}, but it could not be read: {error}") from error
        now = _digests(Path(folder))
        other = sorted(name for name in {*files, *now} if files.get(name) != now.get(name))
        if other:
            raise ValueError(
                f"Expected the model that the design in {folder} was saved with, but {', '.join(other)} "
                "is not what it was: what it answers was not certified."
            )
        return found


def _digests(folder: Path) -> dict[str, str]:
    """Return a digest of every file that a model is read from; not of what only says its name."""
    found = {}
    for path in model_files(folder):
        if path.name not in (DESIGN, NAME):
            with path.open("rb") as file:
                found[path.name] = file_digest(file, "sha256").hexdigest()
    return found


def _digest(held: Mapping[str, Any]) -> str:
    return sha256(json.dumps(held, sort_keys=True).encode()).hexdigest()
