"""A few forward passes before anything is drawn: is every sub-sample answered for itself, and how long does it take."""

import time
from dataclasses import replace

import numpy as np
import torch

from crossguard.certify.preflight import Preflight
from crossguard.certify.sampling import Asked, class_logits, class_votes, in_precision, pixel_logits, pixel_votes
from crossguard.memory import told_of_memory
from crossguard.progress import Reporter, Silent
from crossguard.world import join

PASSES = 3
"""Forward passes that are made; the first warms up and is not timed."""
WORTH = 20
"""Batches below which nothing is timed: the draws would be done as soon."""


TOGETHER = 4
"""Sub-samples that are asked about together, to see whether one of them is answered as it is alone."""
NEAR = 0.05
"""Share of the range of logits that rounding may move one of them by, half precision included."""


def show_preflight(found: Preflight, asked: Asked, *, rows: int, progress: Reporter | None) -> Preflight:
    """Show the pre-flight before anything is drawn, with the expected time where somebody looks and it takes a while.

    The model is looked at first, see `check_answers`.

    Args:
        found: what the setting can reach.
        asked: the model, in evaluation mode, on the design's device.
        rows: sub-samples that are to be drawn.
        progress: where it is shown; None shows and times nothing.

    Returns:
        The pre-flight, with `seconds` where passes were timed.
    """
    if rows:
        check_answers(asked)
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


@torch.no_grad()
def check_answers(asked: Asked) -> None:
    """Refuse a model that does not answer to a sub-sample by itself: nothing would be proven of it.

    An attacker who edits one element would change the answers to sub-samples that do not hold it.

    Args:
        asked: the model, in evaluation mode, on the design's device.

    Raises:
        ValueError: what else is in a batch changes an answer; or, with a published design, the same sub-sample gets
            different answers.
    """
    design, name = asked.design, asked.model.name

    def logits(rows: int) -> torch.Tensor:
        draw = torch.arange(rows, device=design.device) % design.draws
        inputs, kept = asked.sub_samples(np.array([0]), torch.zeros_like(draw), draw)
        with in_precision(design.precision, design.device), told_of_memory(asked.model, batch_size=rows):
            if design.mask_size is not None:
                return pixel_logits(asked.model, inputs, kept, size=design.mask_size).float()
            return class_logits(asked.model, inputs, kept).float()

    first, again, among = logits(1), logits(1), logits(min(TOGETHER, design.batch_size))
    near = NEAR * float(among.max() - among.min())
    if float((first - again).abs().max()) > near:
        if design.plan is not None:
            raise ValueError(
                f"Expected a model whose answers are always the same, for a published design, but {name!r} answers to "
                "one sub-sample twice and differs: it draws at random in evaluation mode, or keeps what it saw."
            )
    elif float((first - among[:1]).abs().max()) > near:
        raise ValueError(
            f"Expected a model that answers to every sub-sample by itself, but {name!r} gives other logits for one "
            "when others are in its batch, as a normalisation over the batch does: nothing can be certified of it."
        )


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
