"""A published design kept in the folder of its model, so that what is deployed is one folder."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from crossguard.certify.design import Ablation
from crossguard.checks import check_choice
from crossguard.models.storage import DESIGN
from crossguard.runs import write_json

FORMAT = 1


@dataclass(frozen=True)
class SavedDesign:
    """A published design beside a model, with all that its votes depend on.

    Args:
        design: "fixed" or "product".
        n: elements of each modality, by its name.
        k: elements kept of each.
        draws: N.
        seed: of the design; public.
        fill: what ablated elements become, as `certify` takes it.
    """

    design: str
    n: Mapping[str, int]
    k: Mapping[str, int]
    draws: int
    seed: int
    fill: Ablation | None = None

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
            check_choice(found.design, ("fixed", "product"), "design")
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"Expected a design in {path}, but it could not be read: {error}") from error
        return found
