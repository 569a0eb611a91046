"""Checks on arguments: every refusal says what was expected and what came."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import TypeVar

T = TypeVar("T")


def nearest(name: str, known: Iterable[str]) -> str:
    """Say which known name is nearest to a mistyped one.

    Example:
        >>> nearest("emojy", ["emoji", "watch"])
        "did you mean 'emoji'? (known: emoji, watch)"
    """
    names = sorted(known)
    hits = get_close_matches(name, names, n=1, cutoff=0.5)
    listing = f"known: {', '.join(names)}"
    return f"did you mean {hits[0]!r}? ({listing})" if hits else listing


def lookup(table: Mapping[str, T], name: str, *, what: str) -> T:
    """Return the row of a table, or raise an error that names the nearest known one.

    Raises:
        ValueError: no row has this name.
    """
    if name not in table:
        raise ValueError(f"Unknown {what} {name!r}: {nearest(name, table)}.")
    return table[name]
