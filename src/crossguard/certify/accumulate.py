"""Adding up votes: over parts that are saved, over interrupted runs, over processes."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64

from crossguard.certify.counts import Counts, Span, share_of

Seen = tuple[tuple[Span, ...], str]
Vote = Callable[[Span], Int64[np.ndarray, "*elements labels"]]


def add_draws(
    counts: Counts, vote: Vote, span: Span, *, path: Path | None = None, least: int = 1, saves: int = 10
) -> Counts:
    """Return the counts with those draws of `span` added that have not voted yet.

    Under torch.distributed every process draws its share and all return the same sum; one of them saves it.

    Args:
        counts: what was counted before; not changed.
        vote: gives the votes of a span of draws.
        span: the draws that are wanted.
        path: where the counts are saved after each part, so that an interrupted run loses at most one; None draws all
            at once.
        least: draws that fill a forward pass; no part is smaller.
        saves: about how many parts there are.
    """
    rank, processes = process_rank()
    size = span[1] - span[0] if path is None else max(math.ceil((span[1] - span[0]) / saves), least * processes)
    for missing in counts.missing(*span):
        for part in _parts(missing, size):
            votes = _summed(vote(share_of(part, rank, processes)))
            counts = counts + replace(counts, votes=votes, spans=(part,))
            if path is not None and rank == 0:
                counts.save(path)
    if path is not None and processes > 1:
        torch.distributed.barrier()  # whoever goes on reads what was saved
    return counts


def looked_at(counts: Counts, path: Path | None) -> Counts:
    """Return the counts with a look at all their draws, which the file keeps; without one there is no other look."""
    if path is None:
        return counts
    looked = counts.looked_at()
    if looked.looks != counts.looks and process_rank()[0] == 0:
        looked.save(path)
    if process_rank()[1] > 1:
        torch.distributed.barrier()
    return looked


def resume(path: Path | None, empty: Counts, draws: int) -> Counts:
    """Return the counts that a file holds, or `empty` where there is none.

    Under torch.distributed all processes must see the same file: one that did not would draw again what others do not.

    Raises:
        ValueError: the file is broken, its counts are not of this model, data and design, or has more than `draws`; or
            processes see different files. It is raised in every process.
    """
    if path is None:
        return empty
    found, refused = empty, ""
    if path.exists():
        try:
            found = _checked(path, empty, draws)
        except ValueError as error:
            refused = str(error)
    seen = _gathered((found.spans, refused))
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


def process_rank() -> tuple[int, int]:
    """Return which process of how many this is; (0, 1) without torch.distributed."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def _parts(span: Span, size: int) -> Iterator[Span]:
    for start in range(span[0], span[1], size):
        yield start, min(start + size, span[1])


def _gathered(value: Seen) -> list[Seen]:
    """Return the values of all processes."""
    values: list[Any] = [value] * process_rank()[1]
    if len(values) > 1:
        torch.distributed.all_gather_object(values, value)
    return values


def _summed(votes: Int64[np.ndarray, "*elements labels"]) -> Int64[np.ndarray, "*elements labels"]:
    if process_rank()[1] == 1:
        return votes
    nccl = torch.distributed.get_backend() == "nccl"
    total = torch.from_numpy(votes).to("cuda" if nccl else "cpu")
    torch.distributed.all_reduce(total)
    return total.cpu().numpy()
