"""Adding up votes: over parts that are saved, over interrupted runs, over processes."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64

from crossguard.certify.counts import Counts, Span, share_of
from crossguard.world import World, join

Vote = Callable[[Span], Int64[np.ndarray, "*elements labels"]]


def add_draws(
    counts: Counts, vote: Vote, span: Span, *, path: Path | None = None, least: int = 1, saves: int = 10
) -> Counts:
    """Return the counts with those draws of `span` added that have not voted yet.

    Of several processes every one draws its share and all return the same sum; the main one saves it.

    Args:
        counts: what was counted before; not changed.
        vote: gives the votes of a span of draws.
        span: the draws that are wanted.
        path: where the counts are saved after each part, so that an interrupted run loses at most one; None draws all
            at once.
        least: draws that fill a forward pass; no part is smaller.
        saves: about how many parts there are.
    """
    world = join("cpu")
    size = span[1] - span[0] if path is None else max(math.ceil((span[1] - span[0]) / saves), least * world.size)
    for missing in counts.missing(*span):
        for part in _parts(missing, size):
            votes = _summed(world, vote(share_of(part, world.rank, world.size)))
            counts = counts + replace(counts, votes=votes, spans=(part,))
            if path is not None and world.main:
                counts.save(path)
    if path is not None:
        world.wait()  # whoever goes on reads what was saved
    return counts


def looked_at(counts: Counts, path: Path | None) -> Counts:
    """Return the counts with a look at all their draws, which the file keeps; without one there is no other look."""
    if path is None:
        return counts
    looked = counts.looked_at()
    world = join("cpu")
    if looked.looks != counts.looks and world.main:
        looked.save(path)
    world.wait()
    return looked


def resume(path: Path | None, empty: Counts, draws: int) -> Counts:
    """Return the counts that a file holds, or `empty` where there is none.

    All processes must see the same file: one that did not would draw again what others do not.

    Raises:
        ValueError: the file is broken, its counts are not of this model, data and design, or has more than `draws`; or
            processes see different files. It is raised in every process.
    """
    world = join("cpu")
    world.same("model, data and design", {"source": empty.source, "seed": empty.seed, "k": empty.k, "draws": draws})
    if path is None:
        return empty
    found, refused = empty, ""
    if path.exists():
        try:
            found = _checked(path, empty, draws)
        except ValueError as error:
            refused = str(error)
    seen = world.every((found.spans, refused))
    if refused:
        raise ValueError(refused)
    if len(set(seen)) > 1:
        told = "; ".join(f"process {rank}: {refused or spans or 'none'}" for rank, (spans, refused) in enumerate(seen))
        raise ValueError(
            f"Expected all processes to see the same counts in {path}, on a disk that they share, but got {told}."
        )
    return found


def _checked(path: Path, empty: Counts, draws: int) -> Counts:
    found = Counts.load(path)
    for name in ("n", "k", "noise", "scheme", "seed", "source"):
        if getattr(found, name) != getattr(empty, name):
            what = "model and data" if name == "source" else f"`{name}`"
            raise ValueError(
                f"Expected counts of the same {what} in {path}; choose another folder, or remove the file."
            )
    if found.draws > draws:
        raise ValueError(
            f"Expected at most {draws} draws in {path}, but it has {found.draws}: ask for as many or more."
        )
    return found


def _parts(span: Span, size: int) -> Iterator[Span]:
    for start in range(span[0], span[1], size):
        yield start, min(start + size, span[1])


def _summed(world: World, votes: Int64[np.ndarray, "*elements labels"]) -> Int64[np.ndarray, "*elements labels"]:
    total = torch.from_numpy(votes)
    world.wait()
    world.add([total])
    return total.numpy()
