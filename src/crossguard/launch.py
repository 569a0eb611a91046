"""How this process was started: alone, or with others by `torchrun`, `accelerate launch` or SLURM's `srun`.

Nothing here needs PyTorch, so that the command line knows it before anything is loaded.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

_LAUNCHED = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_SLURM = {"RANK": "SLURM_PROCID", "LOCAL_RANK": "SLURM_LOCALID", "WORLD_SIZE": "SLURM_STEP_NUM_TASKS"}
_apart = False


class ProcessLost(RuntimeError):
    """Another of several processes has ended, or cannot be reached."""


def launched() -> int:
    """Return how many processes were launched together; 1 in a single one, and within `alone`.

    Those of a job step of SLURM are told from its variables, unless a launcher has said so already.
    """
    if _apart:
        return 1
    if "RANK" not in os.environ and int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        _read_slurm()
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main() -> bool:
    """Return whether this is the process that writes and shows: the first of those launched together, or the only."""
    return launched() == 1 or os.environ.get("RANK", "0") == "0"


def is_apart() -> bool:
    """Return whether this is within `alone`."""
    return _apart


@contextmanager
def alone() -> Iterator[None]:
    """Work without the other processes within the block: for work that only some of them do."""
    global _apart
    launched()  # reads SLURM's variables, which are hidden too
    before = {name: os.environ.pop(name) for name in _LAUNCHED if name in os.environ}
    was, _apart = _apart, True
    try:
        yield
    finally:
        _apart = was
        os.environ.update(before)


def _read_slurm() -> None:
    """Take the place of this process from the variables of SLURM's job step.

    Raises:
        ValueError: they do not say where the first process is.
    """
    nodes = os.environ.get("SLURM_STEP_NODELIST") or os.environ.get("SLURM_JOB_NODELIST") or ""
    if "MASTER_ADDR" not in os.environ and not nodes:
        raise ValueError("Expected MASTER_ADDR, or SLURM_STEP_NODELIST, to say where process 0 is, but got neither.")
    for ours, theirs in _SLURM.items():
        os.environ[ours] = os.environ[theirs]
    os.environ.setdefault("MASTER_ADDR", first_node(nodes))
    job = int(os.environ.get("SLURM_JOB_ID", "0")) * 31 + int(os.environ.get("SLURM_STEP_ID", "0") or 0)
    os.environ.setdefault("MASTER_PORT", str(20_000 + job % 20_000))
    os.environ.setdefault("OMP_NUM_THREADS", os.environ.get("SLURM_CPUS_PER_TASK", "1"))


def first_node(nodes: str) -> str:
    """Return the first name of a list of nodes as SLURM writes it.

    Example:
        >>> first_node("gpu[07-09,12],cpu1"), first_node("login,gpu2"), first_node("r[1-2]n[03,05]")
        ('gpu07', 'login', 'r1n03')
    """
    name = re.split(r",(?![^\[]*\])", nodes)[0]
    return re.sub(r"\[([^\]]*)\]", lambda inner: re.split("[,-]", inner[1])[0], name)
