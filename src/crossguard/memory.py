"""Saying what would fit where a GPU runs out of memory."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

_UNITS = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_SPARE = 0.9  # of the memory: an allocator never fills all of it


@contextmanager
def told_of_memory(model: Any, *, batch_size: int, option: str = "batch_size") -> Iterator[None]:
    """Turn a GPU that runs out of memory within the block into a sentence that says which batch size would fit.

    The peak that was measured, and what was asked for on top of it, beyond the model's own weights, are taken as what a
    batch of this size needs.

    Args:
        model: what computes.
        batch_size: samples of one pass.
        option: what the batch size is called where it is set.

    Raises:
        RuntimeError: the GPU ran out of memory.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        held = sum(p.numel() * p.element_size() for p in getattr(model, "parameters", tuple)())
        total, peak = _measured()
        raise RuntimeError(_sentence(str(error), total, peak, held, batch_size, option)) from error


def _measured() -> tuple[int, int]:
    """Return the bytes of this process's GPU, and the most that it has held at once."""
    return torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory, torch.cuda.max_memory_allocated()


def _sentence(error: str, total: int, peak: int, held: int, batch_size: int, option: str) -> str:
    asked = re.search(r"Tried to allocate ([\d.]+) (\w+)", error)
    needed = peak + (0 if asked is None else int(float(asked[1]) * _UNITS.get(asked[2], 1)))
    fits = int(batch_size * (_SPARE * total - held) / max(1, needed - held))
    fits = min(fits, batch_size - 1)
    said = (
        f"Expected a {option} of {batch_size} to fit into the {total / 2**30:.1f} GiB of the GPU, but it takes "
        f"{needed / 2**30:.1f} GiB or more, {held / 2**30:.1f} GiB of them the model's weights"
    )
    if fits < 1:
        return f"{said}: not even one sample fits. Use a smaller model, a lower precision or more GPUs."
    return f"{said}: by what was measured, {option}={1 << (fits.bit_length() - 1)} fits."
