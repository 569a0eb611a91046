"""The pre-flight with its expected time, from a few forward passes that are timed before anything is drawn."""

import time
from dataclasses import replace

import numpy as np

from crossguard.certify.preflight import Preflight
from crossguard.certify.sampling import Asked, class_votes, pixel_votes
from crossguard.progress import Reporter, Silent
from crossguard.world import join

PASSES = 3
"""Forward passes that are made; the first warms up and is not timed."""
WORTH = 20
"""Batches below which nothing is timed: the draws would be done as soon."""


def show_preflight(found: Preflight, asked: Asked, *, rows: int, progress: Reporter | None) -> Preflight:
    """Show the pre-flight before anything is drawn, with the expected time where somebody looks and it takes a while.

    Args:
        found: what the setting can reach.
        asked: the model, in evaluation mode, on the design's device.
        rows: sub-samples that are to be drawn.
        progress: where it is shown; None shows and times nothing.

    Returns:
        The pre-flight, with `seconds` where passes were timed.
    """
    if progress is None or isinstance(progress, Silent):
        return found
    timed = rows > WORTH * asked.design.batch_size
    with progress.task("pre-flight", total=PASSES if timed else 1) as task:
        if timed:
            seconds: list[float] = []
            for _ in range(PASSES):
                if seconds:
                    task.advance()
                seconds.append(_seconds_per_row(asked))
            found = replace(found, seconds=min(seconds[1:]) * rows / join(asked.design.device).size)
        task.advance(note=str(found))
    return found


def _seconds_per_row(asked: Asked) -> float:
    """Return the time that drawing, asking about and counting take, per sub-sample of one batch."""
    segments, most = asked.design.mask_size is not None, asked.design.batch_size
    ids = np.arange(1 if segments else min(len(asked), most))
    draws = most // len(ids)
    with Silent().task("", total=1) as task:
        start = time.perf_counter()  # votes end on the CPU, so a GPU has done its work by then
        if segments:
            pixel_votes((0, draws), asked=asked, image=0, task=task)
        else:
            class_votes((0, draws), asked=asked, ids=ids, task=task)
        return (time.perf_counter() - start) / (draws * len(ids))
