"""One writer per run folder."""

import atexit
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # Windows: runs are not locked there
    fcntl = None  # type: ignore[assignment]

LOCK_NAME = ".lock"
_locks: dict[Path, BinaryIO] = {}


class RunBusy(RuntimeError):
    """Another process is writing the run."""


def lock(path: Path) -> None:
    """Keep other processes from writing this run; the system lets go of the lock when the process ends, however.

    Raises:
        RunBusy: another process is writing it.
    """
    key = path.resolve()
    if fcntl is None or key in _locks:
        return
    handle = (path / LOCK_NAME).open("ab")
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        handle.close()
        raise RunBusy(f"Expected a run that nobody is writing, but another process has {path} open.") from error
    except OSError:  # a file system without locks
        handle.close()
        return
    _locks[key] = handle


@atexit.register
def _unlock_all() -> None:
    for key in list(_locks):
        unlock(key)


def unlock(path: Path) -> None:
    """Let other processes write this run."""
    handle = _locks.pop(path.resolve(), None)
    if handle is not None:
        handle.close()
