"""Checks on the arguments of the certificate's mathematics; needs neither torch nor a model."""

import operator
from collections.abc import Sequence
from typing import SupportsIndex, TypeVar

import numpy as np
import numpy.typing as npt
from jaxtyping import Int64

from crossguard.checks import check_choice

KINDS = ("substitution", "insertion", "deletion", "edit")
Radii = Sequence[Sequence[int | float]] | Int64[np.ndarray, "radii modalities"]
Value = TypeVar("Value")
MOST_VOTES = 2**53
"""More votes than anybody counts; up to here they are whole as float64 too, and sums of several labels fit int64."""


def whole_number(value: SupportsIndex | float, name: str, *, least: int = 0) -> int:
    """Return `value` as an int.

    Raises:
        ValueError: it is not a whole number >= `least`.
    """
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = least - 1
    if number < least or isinstance(value, bool):
        raise ValueError(f"Expected `{name}` to be a whole number >= {least}, but got {value!r}.")
    return number


def sizes(n: Sequence[int], k: Sequence[int | float]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return `n` and `k` as tuples of ints, one entry per modality, with 0 <= k <= n and n >= 1.

    Raises:
        ValueError: no modality, different lengths, or k > n.
    """
    n, k = _tuple(n, "n", least=1), _tuple(k, "k", least=0)
    if not n:
        raise ValueError("Expected at least one modality in `n`, but got none.")
    if len(n) != len(k):
        raise ValueError(f"Expected `k` with one entry per modality ({len(n)}, as `n`), but got {len(k)}.")
    for i, (size, keep) in enumerate(zip(n, k, strict=True)):
        if keep > size:
            raise ValueError(f"Expected k <= n in modality {i}, but got k = {keep} kept of n = {size} elements.")
    return n, k


def _tuple(values: Sequence[int | float], name: str, *, least: int) -> tuple[int, ...]:
    try:
        items = tuple(values)
    except TypeError:
        raise ValueError(f"Expected `{name}` to be a sequence, one entry per modality, but got {values!r}.") from None
    return tuple(whole_number(value, f"{name}[{i}]", least=least) for i, value in enumerate(items))


def probability(alpha: float) -> float:
    """Return `alpha` as a float.

    Raises:
        ValueError: it is not in (0, 0.5).
    """
    if not 0 < alpha < 0.5:
        raise ValueError(f"Expected `alpha` in (0, 0.5), but got {alpha!r}.")
    return float(alpha)


def edit_kinds(kind: str | Sequence[str], modalities: int) -> tuple[str, ...]:
    """Return one kind of edit per modality; a single word stands for all of them.

    Raises:
        ValueError: an unknown kind, or not one per modality.
    """
    kinds = (kind,) * modalities if isinstance(kind, str) else tuple(kind)
    if len(kinds) != modalities:
        raise ValueError(f"Expected `kind` with one entry per modality ({modalities}), but got {len(kinds)}.")
    return tuple(check_choice(word, KINDS, "kind") for word in kinds)


def radius_vectors(radii: Radii, n: tuple[int, ...], kinds: tuple[str, ...]) -> Int64[np.ndarray, "radii modalities"]:
    """Return the radius vectors as an array, each r whole, >= 0, and <= n unless elements are only inserted.

    Raises:
        ValueError: none, a vector of another length, a radius that is not whole, or r > n.
    """
    if isinstance(radii, np.ndarray) and _fits(radii, n, kinds):  # a row at a time takes long for large grids
        return radii.astype(np.int64)
    rows = [_tuple(row, f"radii[{j}]", least=0) for j, row in enumerate(radii)]
    if not rows:
        raise ValueError("Expected at least one radius vector in `radii`, but got none.")
    for j, row in enumerate(rows):
        if len(row) != len(n):
            raise ValueError(f"Expected {len(n)} entries in radii[{j}], one per modality, but got {len(row)}: {row}.")
        for i, (r, size, kind) in enumerate(zip(row, n, kinds, strict=True)):
            if r > size and kind != "insertion":
                raise ValueError(f"Expected r <= n in modality {i}, but radii[{j}] has r = {r} of n = {size} elements.")
    return np.array(rows, dtype=np.int64)


def _fits(radii: np.ndarray, n: tuple[int, ...], kinds: tuple[str, ...]) -> bool:
    if not (np.issubdtype(radii.dtype, np.integer) and radii.size and radii.shape[1:] == (len(n),)):
        return False
    limited = [i for i, kind in enumerate(kinds) if kind != "insertion"]
    return bool(radii.min() >= 0 and (radii[:, limited] <= np.array(n, dtype=np.int64)[limited]).all())


def vote_counts(counts: npt.ArrayLike, name: str = "counts") -> tuple[Int64[np.ndarray, "*elements labels"], int]:
    """Return the counts as int64 [..., labels] and N, the number of votes of every element.

    Raises:
        ValueError: not integers, negative, fewer than two labels, no element, no votes, or N differs among elements.
    """
    votes = np.asarray(counts)
    if votes.ndim == 0 or votes.shape[-1] < 2 or votes.size == 0:
        raise ValueError(f"Expected `{name}` of shape [..., labels] with at least 2 labels, but got {votes.shape}.")
    if not np.issubdtype(votes.dtype, np.integer):
        raise ValueError(f"Expected `{name}` of an integer type (votes are whole), but got {votes.dtype}.")
    if votes.min() < 0:
        raise ValueError(f"Expected `{name}` >= 0, but got {votes.min()}.")
    if int(votes.max()) > MOST_VOTES:
        raise ValueError(f"Expected `{name}` of at most {MOST_VOTES} votes, but got {votes.max()}.")
    votes = votes.astype(np.int64, copy=False)
    totals = votes[..., 0].copy()
    for label in range(1, votes.shape[-1]):  # a pass per label is much faster than a sum along a short last axis
        totals += votes[..., label]
    draws = int(totals.max())
    if draws == 0:
        raise ValueError(f"Expected `{name}` of at least one vote, but all are 0.")
    if int(totals.min()) != draws:
        raise ValueError(
            f"Expected the same number of votes N for every element in `{name}`, but got {totals.min()}..{draws}."
        )
    return votes, draws
