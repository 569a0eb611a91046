"""How the values of a modality are stored: their range and, where they are stored as whole numbers, their step."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite

import numpy as np
from jaxtyping import Shaped

from crossguard.checks import lookup


@dataclass(frozen=True)
class Storage:
    """The values that a modality can hold: an attack may choose any of them, and nothing else.

    Args:
        low: the smallest value.
        high: the largest value.
        step: distance of neighbouring values, counted from `low`; None where any number in between can be stored, as
            the array's own type rounds it.
        symbols: values are codes of things without an order (words); they may be exchanged but not moved a little.

    Raises:
        ValueError: no finite range, a step that is not > 0, or symbols without a step.

    Example:
        >>> Storage.of(np.array([[0, 7]], dtype=np.uint16))
        Storage(low=0.0, high=65535.0, step=1.0, symbols=False)
    """

    low: float
    high: float
    step: float | None = None
    symbols: bool = False

    def __post_init__(self) -> None:
        if not (isfinite(self.low) and isfinite(self.high) and self.low < self.high):
            raise ValueError(f"Expected a finite range low < high, but got {self.low}..{self.high}.")
        if self.step is not None and not (isfinite(self.step) and self.step > 0):
            raise ValueError(f"Expected `step` > 0 or None, but got {self.step}.")
        if self.symbols and self.step is None:
            raise ValueError("Expected a `step` where values are symbols, but got None.")

    @property
    def sizes(self) -> int:
        """How many values can be stored; 0 where there is no step."""
        return 0 if self.step is None else round((self.high - self.low) / self.step) + 1

    @classmethod
    def pixels(cls) -> "Storage":
        """Return that of 8-bit pixels scaled to [0, 1]."""
        return cls(0.0, 1.0, 1 / 255)

    @classmethod
    def millimetres(cls) -> "Storage":
        """Return that of 16-bit depth in millimetres, read as metres; 0 means "not known"."""
        return cls(0.0, 65.535, 0.001)

    @classmethod
    def of(cls, values: Shaped[np.ndarray, "samples ..."]) -> "Storage":
        """Guess from data: whole numbers have their type's range; 8-bit pixels in [0, 1] are recognised by their steps.

        Any other numbers can be stored as they are, within the range that the data show.

        Raises:
            ValueError: no values, or all equal.
        """
        if np.issubdtype(values.dtype, np.integer):
            bounds = np.iinfo(values.dtype)
            return cls(float(bounds.min), float(bounds.max), 1.0)
        if not values.size or values.min() == values.max():
            raise ValueError("Expected data of different values, from which to read their range; give a `Storage`.")
        low, high = float(values.min()), float(values.max())
        if low >= 0 and high <= 1 and high > 0.5:
            grey = values * 255
            if float(np.abs(grey - np.round(grey)).max()) < 1e-3:
                return cls.pixels()
        return cls(low, high)

    def scaled(self, values: Shaped[np.ndarray, "*shape"]) -> np.ndarray:
        """Return values as float32 shares of the range."""
        return ((values.astype(np.float64) - self.low) / (self.high - self.low)).clip(0, 1).astype(np.float32)

    def stored(
        self,
        shares: Shaped[np.ndarray, "*shape"],
        source: Shaped[np.ndarray, "*shape"],
        *,
        moved: Shaped[np.ndarray, "*shape"],
        eps: float | None = None,
        inwards: bool = False,
    ) -> np.ndarray:
        """Return values of the source's type that can be stored, nearest to what an attack asks for.

        Args:
            shares: what the attack asks for, as shares of the range.
            source: the clean values; their type is kept, and not changed.
            moved: bool, where the attack changed anything; elsewhere the source's values are returned bit for bit.
            eps: largest change as a share of the range. A value that has nothing storable within it keeps its source.
            inwards: take the next value towards the source instead of the nearest, so that no change grows.
        """
        span = self.high - self.low
        clean = source.astype(np.float64)
        wanted = self.low + shares.astype(np.float64) * span
        low, high = np.full_like(clean, self.low), np.full_like(clean, self.high)
        if eps is not None:
            low, high = np.maximum(low, clean - eps * span), np.minimum(high, clean + eps * span)
        if self.step is not None:
            slack = 1e-3  # of a step; sources come as float32 multiples of it
            first = np.ceil((low - self.low) / self.step - slack)
            last = np.floor((high - self.low) / self.step + slack)
            steps = (wanted - self.low) / self.step
            if inwards:
                number = np.where(wanted > clean, np.floor(steps + slack), np.ceil(steps - slack))
                possible = np.abs(self.low + number * self.step - clean) <= np.abs(wanted - clean) + slack * self.step
            else:
                number, possible = np.clip(np.round(steps), first, last), first <= last
            values = (self.low + number * self.step).astype(source.dtype)
        else:
            values = np.clip(wanted, low, high).astype(source.dtype)
            outside = (values < low) | (values > high)
            values = np.where(outside, np.nextafter(values, source), values)
            possible = low <= high
        return np.where(moved & possible, values, source)


def check_stored(names: tuple[str, ...], given: Mapping[str, Storage] | None) -> None:
    """Refuse a `storage` of a modality that is not there.

    Raises:
        ValueError: naming the nearest.
    """
    for name in given or {}:
        lookup(dict.fromkeys(names), name, what="modality in `storage`")


def storages(
    modalities: Mapping[str, Shaped[np.ndarray, "samples ..."]],
    names: tuple[str, ...],
    given: Mapping[str, Storage] | None = None,
) -> dict[str, Storage]:
    """Return how each named modality is stored: as given, or as its data show.

    Raises:
        ValueError: `given` names a modality that is not there, or data that show no range.
    """
    check_stored(names, given)
    return {name: (given or {}).get(name) or Storage.of(modalities[name]) for name in names}
