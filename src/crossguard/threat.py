"""What an attacker may do: frozen value objects that attacks, training, certificates and reports share.

Nothing here computes. A budget belongs to one modality; a `ThreatModel` holds one budget per attacked modality.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from math import isfinite
from numbers import Integral, Real
from typing import Any, Literal, TypeAlias, get_args

from crossguard.checks import lookup, nearest

EditKind = Literal["substitution", "insertion", "deletion", "edit"]
WordEdit = Literal["substitution", "insertion", "deletion"]
Target = Literal["query", "gallery", "both"]


@dataclass(frozen=True)
class LInf:
    """Every value moves by at most `eps`; values are pixels in [0, 1], so 2/255 is two grey levels.

    Raises:
        ValueError: `eps` is not in [0, 1].
    """

    eps: float

    def __post_init__(self) -> None:
        number = isinstance(self.eps, Real) and not isinstance(self.eps, bool)
        if not (number and isfinite(self.eps) and 0 <= self.eps <= 1):
            raise ValueError(
                f"Expected `eps` in [0, 1] (pixels are in [0, 1]; write 2/255 for two grey levels), "
                f"but got {self.eps!r}."
            )
        object.__setattr__(self, "eps", float(self.eps))

    def __str__(self) -> str:
        return f"L-inf {self.eps * 255:g}/255"


@dataclass(frozen=True)
class L2:
    """All values of a modality move by at most `eps` together, in Euclidean norm; each is in [0, 1], as are pixels.

    A change of every value by d has the norm d * sqrt(number of values): 2/255 on 3 x 224 x 224 pixels is 3.04.

    Raises:
        ValueError: `eps` is not a finite number >= 0.
    """

    eps: float

    def __post_init__(self) -> None:
        number = isinstance(self.eps, Real) and not isinstance(self.eps, bool)
        if not (number and isfinite(self.eps) and self.eps >= 0):
            raise ValueError(f"Expected `eps` of L2 to be a finite number >= 0, but got {self.eps!r}.")
        object.__setattr__(self, "eps", float(self.eps))

    def __str__(self) -> str:
        return f"L2 {self.eps:g}"


@dataclass(frozen=True)
class Patch:
    """One rectangle of at most `height` x `width` pixels, anywhere in the image, takes any values.

    Of a series of time steps the height is 1, and the width counts consecutive steps.

    Raises:
        ValueError: a side is not a whole number >= 0.
    """

    height: int
    width: int

    def __post_init__(self) -> None:
        for side in ("height", "width"):
            object.__setattr__(self, side, _whole_number(getattr(self, side), side))

    def __str__(self) -> str:
        return f"a patch of {self.height} x {self.width}"


@dataclass(frozen=True)
class WordEdits:
    """At most `words` words of a text are edited: substituted and, if `kinds` says so, inserted or deleted.

    Words are white-space pieces; what counts is the Levenshtein distance in words with the allowed kinds of edit.

    Raises:
        ValueError: `words` is not a whole number >= 0, or `kinds` is empty or names an unknown kind.
    """

    words: int
    kinds: tuple[WordEdit, ...] = ("substitution",)

    def __post_init__(self) -> None:
        object.__setattr__(self, "words", _whole_number(self.words, "words"))
        known = get_args(WordEdit)
        if isinstance(self.kinds, str) or not self.kinds:
            raise ValueError(f"Expected `kinds` of edit, some of {', '.join(known)}, but got {self.kinds!r}.")
        for kind in self.kinds:
            if kind not in known:
                raise ValueError(f"Unknown kind of word edit {kind!r}: {nearest(str(kind), known)}.")
        object.__setattr__(self, "kinds", tuple(kind for kind in known if kind in self.kinds))

    def __str__(self) -> str:
        plural = "" if self.words == 1 else "s"
        if self.kinds == ("substitution",):
            return f"{self.words} word{plural}"
        return f"{self.words} word edit{plural} ({', '.join(self.kinds)})"


@dataclass(frozen=True)
class Elements:
    """At most `r` basic elements (pixels, patches, frames, time steps, words) of a modality are edited, freely.

    `kind="edit"` allows any mix of substitutions, insertions and deletions, at most `r` together.

    Raises:
        ValueError: `r` is not a whole number >= 0, or `kind` is unknown.
    """

    r: int
    kind: EditKind = "substitution"

    def __post_init__(self) -> None:
        object.__setattr__(self, "r", _whole_number(self.r, "r"))
        if self.kind not in get_args(EditKind):
            raise ValueError(f"Unknown `kind` of edit {self.kind!r}: {nearest(str(self.kind), get_args(EditKind))}.")

    def __str__(self) -> str:
        return f"{self.r} {self.kind}" + ("" if self.r == 1 else "s")


Budget: TypeAlias = LInf | L2 | Patch | Elements | WordEdits
_BUDGETS: dict[str, type[Budget]] = {
    "l-inf": LInf,
    "l2": L2,
    "patch": Patch,
    "word-edits": WordEdits,
    "elements": Elements,
}


@dataclass(frozen=True, init=False)
class ThreatModel(Mapping[str, Budget]):
    """Budgets by modality name; a modality without one is not attacked.

    Args:
        target: in retrieval, who is attacked: the queries, the gallery, or both.
        budgets: one budget per modality, by its name.

    Raises:
        ValueError: a budget is not a budget object, or `target` is unknown.

    Example:
        >>> threat = ThreatModel(image=LInf(eps=2 / 255), text=WordEdits(words=1))
        >>> str(threat)
        'image: L-inf 2/255, text: 1 word (both sides)'
        >>> str(threat.only("text"))
        'text: 1 word (both sides)'
    """

    target: Target
    budgets: tuple[tuple[str, Budget], ...]

    def __init__(self, *, target: Target = "both", **budgets: Budget) -> None:
        if target not in get_args(Target):
            raise ValueError(f"Unknown `target` {target!r}: {nearest(str(target), get_args(Target))}.")
        for modality, budget in budgets.items():
            if not isinstance(budget, Budget):
                raise ValueError(
                    f"Expected the budget of {modality!r} to be LInf, L2, Patch, Elements or WordEdits, but got "
                    f"{budget!r}."
                )
        object.__setattr__(self, "target", target)
        object.__setattr__(self, "budgets", tuple(budgets.items()))

    def __getitem__(self, modality: str) -> Budget:
        return dict(self.budgets)[modality]

    def __iter__(self) -> Iterator[str]:
        return (modality for modality, _ in self.budgets)

    def __len__(self) -> int:
        return len(self.budgets)

    def __str__(self) -> str:
        if not self.budgets:
            return "nothing attacked"
        sides = {"both": "both sides", "query": "queries only", "gallery": "gallery only"}[self.target]
        return ", ".join(f"{modality}: {budget}" for modality, budget in self.budgets) + f" ({sides})"

    def only(self, *modalities: str) -> "ThreatModel":
        """Return the same threat with the budgets of the named modalities alone.

        Raises:
            ValueError: a named modality has no budget here.
        """
        known = dict(self.budgets)
        return ThreatModel(target=self.target, **{m: lookup(known, m, what="modality") for m in modalities})

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON or YAML; `from_dict` reads them back."""
        names = {cls: name for name, cls in _BUDGETS.items()}
        rows = {
            m: {"type": names[type(budget)]}
            | {field: list(v) if isinstance(v, tuple) else v for field, v in asdict(budget).items()}
            for m, budget in self.budgets
        }
        return {"target": self.target, **rows}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ThreatModel":
        """Read what `to_dict` wrote.

        Raises:
            ValueError: an unknown budget type or field.
        """
        budgets: dict[str, Budget] = {}
        for modality, row in values.items():
            if modality == "target":
                continue
            kind = lookup(_BUDGETS, row["type"], what="budget type")
            given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in row.items() if k != "type"}
            for key in given:
                lookup({f.name: f for f in fields(kind)}, key, what=f"field of {row['type']}")
            budgets[modality] = kind(**given)
        return cls(target=values.get("target", "both"), **budgets)


def _whole_number(value: object, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 0:
        raise ValueError(f"Expected `{name}` to be a whole number >= 0, but got {value!r}.")
    return int(value)
