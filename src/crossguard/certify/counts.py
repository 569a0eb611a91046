"""`Counts`: the only state of a certification. Integers that add up over batches, processes and interrupted runs."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
from jaxtyping import Int64

from crossguard.certify.arguments import sizes
from crossguard.certify.noise import AnyMargins, margins_with_noise
from crossguard.certify.thresholds import Scheme, margins_of
from crossguard.checks import check_choice
from crossguard.runs import DAMAGED, npz_bytes, read_npz, write_atomically

FORMAT = 4
Span = tuple[int, int]


@dataclass(frozen=True)
class Counts:
    """Votes of sub-samples for each label of each element, with what is needed to draw exactly the others later.

    Args:
        votes: int64 [..., labels]; along the last axis they add up to the number of draws.
        spans: the draws that voted, as (first, after the last) of their indices; disjoint, ascending.
        seed: seed of the masks.
        secret: the seed was drawn for these counts alone, and is told nowhere else.
        looks: numbers of draws at which certificates were given, ascending; more draws are paid for, see `looks`.
        n: number of elements of each modality, by its name.
        k: number of elements kept of each modality, by its name; of the scheme "rate" the chance that one is kept.
        source: fingerprint of the model and the inputs; counts of different ones do not add.
        scheme: how sub-samples were drawn: "independent" of each other, k_i of each modality; "joint", the sum of all
            k_i of all elements together; "fixed" or "product", see `published`.
        noise: sigma of each modality that is under noise instead of sub-sampled, by its name.

    Raises:
        ValueError: votes are negative, not whole, or do not add up to the number of draws; spans overlap; k > n; an
            unknown scheme.

    Example:
        >>> one = Counts(np.array([3, 1]), ((0, 4),), 0, {"x": 9}, {"x": 2}, "toy")
        >>> two = Counts(np.array([1, 1]), ((4, 6),), 0, {"x": 9}, {"x": 2}, "toy")
        >>> (one + two).votes, (one + two).spans
        (array([4, 2]), ((0, 6),))
    """

    votes: Int64[np.ndarray, "*elements labels"]
    spans: tuple[Span, ...]
    seed: int
    n: Mapping[str, int]
    k: Mapping[str, int | float]
    source: str
    scheme: Scheme = "independent"
    secret: bool = False
    looks: tuple[int, ...] = ()
    noise: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not np.issubdtype(np.asarray(self.votes).dtype, np.integer):
            raise ValueError(f"Expected votes of an integer type, but got {np.asarray(self.votes).dtype}.")
        votes = np.array(self.votes, dtype=np.int64)
        votes.setflags(write=False)
        object.__setattr__(self, "votes", votes)
        object.__setattr__(self, "spans", _joined(self.spans))
        if self.scheme == "rate":
            margins_of("rate", tuple(self.n.values()), tuple(self.k.values()))
        elif self.n or not self.noise:
            sizes(tuple(self.n.values()), tuple(self.k.values()))
        check_choice(self.scheme, get_args(Scheme), "scheme")
        if tuple(self.n) != tuple(self.k):
            raise ValueError(f"Expected `k` of the modalities {tuple(self.n)}, but got {tuple(self.k)}.")
        if votes.size and votes.min() < 0:
            raise ValueError(f"Expected votes >= 0, but got {votes.min()}.")
        totals = votes.sum(axis=-1)
        if (totals != self.draws).any():
            raise ValueError(
                f"Expected {self.draws} votes for every element, as many as draws, "
                f"but got {totals.min()}..{totals.max()}."
            )

    @property
    def draws(self) -> int:
        """N, the number of draws that voted."""
        return sum(stop - start for start, stop in self.spans)

    @property
    def published(self) -> bool:
        """Whether they are of a published design."""
        return self.scheme in ("fixed", "product")

    def margins(self, kinds: Mapping[str, str]) -> AnyMargins:
        """Return the margins that radii ask for, under edits of these kinds by modality.

        Raises:
            ValueError: some draws of a published design have not voted, as in a call that was interrupted.
        """
        if self.published and self.spans not in ((), ((0, self.draws),)):
            raise ValueError(
                f"Expected the votes of all draws of a published design, but got those of {self.spans}: what they can "
                "prove is known of all of them alone."
            )
        n, k = tuple(self.n.values()), tuple(self.k.values())
        own, noise = tuple(kinds[modality] for modality in self.n), tuple(self.noise.values())
        return margins_with_noise(self.scheme, n, k, own, noise=noise, draws=self.draws)

    def looked_at(self) -> "Counts":
        """Return the counts with a look at all these draws."""
        return self if self.draws in self.looks else replace(self, looks=(*self.looks, self.draws))

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities in the order of radius vectors: the sub-sampled ones, then those under noise."""
        return (*self.n, *self.noise)

    @property
    def told_seed(self) -> int | None:
        """The seed, or None if it is secret: what may be told of it."""
        return None if self.secret else self.seed

    def __add__(self, other: "Counts") -> "Counts":
        """Return the votes of both.

        Raises:
            ValueError: the two do not belong together, or share a draw.
        """
        for name in ("seed", "n", "k", "source", "scheme", "noise"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                raise ValueError(f"Expected counts of the same `{name}`, but got {mine!r} and {theirs!r}.")
        if self.votes.shape != other.votes.shape:
            raise ValueError(f"Expected votes of equal shape, but got {self.votes.shape} and {other.votes.shape}.")
        looks = tuple(sorted({*self.looks, *other.looks}))
        return replace(self, votes=self.votes + other.votes, spans=self.spans + other.spans, looks=looks)

    def missing(self, start: int, stop: int) -> tuple[Span, ...]:
        """Return the draws of [start, stop) that have not voted, as disjoint ascending spans."""
        gaps, at = [], start
        for first, last in self.spans:
            if last <= start or first >= stop:
                continue
            if first > at:
                gaps.append((at, first))
            at = max(at, last)
        return (*gaps, (at, stop)) if at < stop else tuple(gaps)

    def save(self, path: Path | str) -> None:
        """Write one compressed `.npz` file, so that a reader sees the old content or the new one, never a part."""
        about = {
            "format": FORMAT,
            "spans": self.spans,
            "seed": self.seed,
            "n": dict(self.n),
            "k": dict(self.k),
            "source": self.source,
            "scheme": self.scheme,
            "secret": self.secret,
            "looks": self.looks,
            "noise": dict(self.noise),
        }
        write_atomically(path, npz_bytes(votes=self.votes, about=np.array(json.dumps(about))))

    @classmethod
    def load(cls, path: Path | str) -> "Counts":
        """Read what `save` wrote; nothing is unpickled.

        Raises:
            ValueError: the file is missing, broken, or of another format.
        """
        try:
            file = read_npz(path)
            return cls._read(file["votes"], json.loads(str(file["about"])))
        except DAMAGED as error:
            raise ValueError(f"Expected counts in {path}, but they could not be read: {error}") from error

    @classmethod
    def _read(cls, votes: np.ndarray, about: dict[str, Any]) -> "Counts":
        if about["format"] != FORMAT:
            raise ValueError(f"Expected format {FORMAT}, but got {about['format']!r}.")
        spans = tuple((int(start), int(stop)) for start, stop in about["spans"])
        same = {name: about[name] for name in ("seed", "n", "k", "source", "scheme", "secret", "noise")}
        return cls(votes, spans, **same, looks=tuple(about["looks"]))


def share_of(span: Span, rank: int, processes: int) -> Span:
    """Return the draws of `span` that process `rank` of several takes; together they take each draw once."""
    start, stop = span
    size = stop - start
    return start + size * rank // processes, start + size * (rank + 1) // processes


def _joined(spans: Sequence[Span]) -> tuple[Span, ...]:
    joined: list[Span] = []
    for start, stop in sorted(spans):
        if start >= stop:
            continue
        if joined and start < joined[-1][1]:
            raise ValueError(
                f"Expected draws that are counted once, but {start}..{min(stop, joined[-1][1]) - 1} are twice."
            )
        if joined and start == joined[-1][1]:
            joined[-1] = (joined[-1][0], stop)
        else:
            joined.append((start, stop))
    return tuple(joined)
