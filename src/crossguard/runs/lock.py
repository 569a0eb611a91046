"""One writer per run folder."""

import atexit
import os
from pathlib import Path

from crossguard.runs.files import open_unlinked

try:
    import fcntl
except ImportError:  # Windows: runs are not locked there
    fcntl = None  # type: ignore[assignment]

LOCK_NAME = ".lock"
_locks: dict[Path, int] = {}


class RunBusy(RuntimeError):
    """Someone is writing the run already: another process, or this one."""


def lock(path: Path) -> None:
    """Keep others from writing this run; the system lets go of the lock when the process ends, however.

    Raises:
        RunBusy: another process is writing it, or this one has it open already.
        ValueError: the lock is a link, which is not followed.
    """
    key = path.resolve()
    if key in _locks:
        raise RunBusy(f"Expected a run that nobody is writing, but this process has {path} open: close it first.")
    handle = open_unlinked(path / LOCK_NAME, os.O_CREAT | os.O_WRONLY)
    if fcntl is not None:
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(handle)
            raise RunBusy(f"Expected a run that nobody is writing, but another process has {path} open.") from error
        except OSError:  # a file system without locks
            pass
    _locks[key] = handle


@atexit.register
def _unlock_all() -> None:
    for key in list(_locks):
        unlock(key)


def unlock(path: Path) -> None:
    """Let others write this run."""
    handle = _locks.pop(path.resolve(), None)
    if handle is not None:
        os.close(handle)
