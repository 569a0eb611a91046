"""Files and folders that are whole or not there."""

import errno
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Any

from crossguard.checks import shown, visible

try:
    import fcntl
except ImportError:  # Windows: leftovers stay until a run that nobody else writes is opened
    fcntl = None  # type: ignore[assignment]

PARTIAL = ".partial"
"""How the names of half-written files and folders end."""

_OLD = ".replaced"
_TORCH = ("PytorchStreamWriter", "inline_container", "iostream error")
"""How PyTorch says that a file could not be written; not why."""
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)


@contextmanager
def atomic_folder(target: Path | str) -> Iterator[Path]:
    """Fill a temporary folder beside `target`; on success it takes `target`'s place, on error nothing is left.

    A folder already at `target` is replaced only once the new one is whole.

    Raises:
        ValueError: `target` is the working directory or holds it, which cannot be replaced.
        OSError: the disk is full or the parent not writable.
    """
    target = Path(target)
    if Path.cwd().is_relative_to(target.resolve()):
        raise ValueError(
            f"Expected a folder of its own, to be replaced as a whole, but got {str(target)!r}, the working directory "
            "or one that holds it."
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    _clear(target.parent, name=target.name, sure=True)
    with _draft(lambda: tempfile.mkdtemp(**_named(target))) as temporary:
        try:
            yield temporary
            _put(temporary, target)
        except BaseException as error:
            shutil.rmtree(temporary, ignore_errors=True)
            tidy(target.parent, name=target.name)
            if told := _disk_error(error):
                raise not_written(target, told) from error
            raise


def _put(temporary: Path, target: Path) -> None:
    """Make a whole folder outlast a loss of power, and give it its name."""
    temporary.chmod(0o755)
    for home, _, files in os.walk(temporary):
        for file in files:
            _sync(Path(home, file))
        sync_folder(home)
    if target.exists():
        old = target.parent / f".{target.name}{_OLD}"
        if old.exists():
            shutil.rmtree(old)
        target.replace(old)  # from here to the next line a kill leaves only `old`, which `tidy` puts back
        temporary.replace(target)
        shutil.rmtree(old)
    else:
        temporary.replace(target)
    sync_folder(target.parent)


def tidy(folder: Path | str, *, name: str = "") -> None:
    """Clear what killed writers left in a folder: half-written files go, a folder caught between old and new returns.

    Call it only where no other process is writing.

    Args:
        folder: where they wrote.
        name: of one file or folder, whose leftovers alone are cleared.
    """
    _clear(Path(folder), name=name, sure=False)


def _clear(folder: Path, *, name: str, sure: bool) -> None:
    """As `tidy`; with `sure`, others may be writing: only what is surely left by the dead goes."""
    drafts = rf"\.{re.escape(name)}-[a-z0-9_]{{8}}" if name else r"\..*"  # as `tempfile` names them
    olds = rf"\.{re.escape(name) or '.+'}"
    for left in os.listdir(folder):
        path = folder / left
        if not left.startswith("."):
            continue
        if re.fullmatch(drafts + re.escape(PARTIAL), left, re.DOTALL):
            with _held(path, wait=False) as ours:
                if ours or (ours is None and not sure):
                    _remove(path)
        elif re.fullmatch(olds + re.escape(_OLD), left, re.DOTALL):
            target = folder / left[1 : -len(_OLD)]
            if target.exists():
                _remove(path)
            else:
                path.replace(target)


def _named(target: Path) -> dict[str, Any]:
    return {"prefix": f".{target.name}-", "suffix": PARTIAL, "dir": target.parent}


@contextmanager
def _draft(make: Callable[[], str]) -> Iterator[Path]:
    """Make a temporary file or folder, and hold it so that nobody takes it for a leftover."""
    while True:
        path = Path(make())
        with _held(path, wait=True):
            if path.exists():  # else it was cleared before it was held
                yield path
                return


@contextmanager
def _held(path: Path, *, wait: bool) -> Iterator[bool | None]:
    """Hold a temporary file or folder for as long as the process lives, or say that another process does (False), or
    that it cannot be told here (None)."""
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except OSError:  # it is gone, or a link; Windows opens no folders
        yield None
        return
    try:
        ours: bool | None = None
        if fcntl is not None:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
                ours = True
            except BlockingIOError:
                ours = False
            except OSError:  # a file system without locks
                pass
        yield ours
    finally:
        os.close(handle)


def tidy_run(folder: Path | str) -> None:
    """As `tidy`, in all folders of a run; those inside that are runs of their own are left to their own writers."""
    tidy(folder)
    for child in os.scandir(folder):
        if child.is_dir(follow_symlinks=False) and not os.path.lexists(os.path.join(child.path, "run.json")):
            tidy_run(child.path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def write_atomically(target: Path | str, content: str | bytes) -> None:
    """Write a file so that a reader sees the old content or the new one, never a part.

    Raises:
        OSError: the disk is full or the folder not writable; what stood at `target` before still stands.
    """
    target = Path(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _clear(target.parent, name=target.name, sure=True)
        with _draft(lambda: _empty(target)) as temporary:
            try:
                with temporary.open("wb") as file:
                    file.write(content.encode() if isinstance(content, str) else content)
                    file.flush()
                    os.fsync(file.fileno())
                temporary.chmod(0o644)
                os.replace(temporary, target)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
        sync_folder(target.parent)
    except OSError as error:
        raise not_written(target, error) from error


def _empty(target: Path) -> str:
    handle, path = tempfile.mkstemp(**_named(target))
    os.close(handle)
    return path


def not_written(target: Path, error: OSError) -> OSError:
    """Return the error of a failed write, with what it means for the file."""
    reason = f"could not write ({error.strerror or error}); what stood there before is unchanged"
    return OSError(error.errno, reason, str(target))


def open_unlinked(path: Path, flags: int) -> int:
    """Open a file that may not be a link, which could lead anywhere.

    Raises:
        ValueError: it is one.
        OSError: it cannot be opened.
    """
    try:
        return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o644)
    except OSError as error:
        if os.path.islink(path):
            raise ValueError(f"Expected a file of the run at {visible(path)}, but it is a link.") from error
        raise


def _disk_error(error: BaseException) -> OSError | None:
    """Return the error of the disk behind another: writers of tensors give it in words of their own."""
    if isinstance(error, OSError):
        return error if error.errno in _DISK else None
    told = next((number for number in _DISK if os.strerror(number) in str(error)), None)
    if told is None and isinstance(error, RuntimeError) and any(words in str(error) for words in _TORCH):
        told = errno.EIO
    return None if told is None else OSError(told, os.strerror(told))


def sync_folder(folder: Path | str) -> None:
    """Make what was renamed in a folder outlast a loss of power, where the system can."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows opens no folders
        return
    try:
        os.fsync(handle)
    except OSError:  # some file systems do not sync folders
        pass
    finally:
        os.close(handle)


def _sync(file: Path) -> None:
    with file.open("rb+") as handle:
        os.fsync(handle.fileno())


def as_read_back(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as `write_json` followed by reading gives them: tuples as lists, names as strings.

    Raises:
        TypeError: a value that JSON has no form for.
        ValueError: an infinite number or NaN.
    """
    plain: dict[str, Any] = json.loads(as_json(dict(settings)))
    return plain


def as_json(value: Any, *, indent: int | None = None) -> str:
    """Return a value as JSON; NumPy's numbers and paths are written as Python's own.

    Raises:
        TypeError: something that JSON has no form for.
        ValueError: an infinite number or NaN.

    Example:
        >>> import numpy as np
        >>> as_json({"seed": np.int64(3), "run": Path("runs/a")})
        '{"seed": 3, "run": "runs/a"}'
    """
    return json.dumps(value, indent=indent, allow_nan=False, default=_as_python)


def _as_python(value: Any) -> Any:
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "item") and not getattr(value, "ndim", 0):
        return value.item()
    raise TypeError(f"Expected a value that JSON can hold, but got a {type(value).__name__}: {shown(value, most=80)}.")


def write_json(target: Path | str, value: Any) -> None:
    """Write a value as indented JSON, atomically; NaN and infinity are refused."""
    write_atomically(target, as_json(value, indent=2) + "\n")


def safe_name(text: str) -> str:
    """Return a file name that keeps what is readable of `text`; a digest tells texts apart that would share one.

    Example:
        >>> safe_name("mat+"), safe_name("mat+ (joint)")
        ('mat+', 'mat+_joint-084b2a8d')
    """
    name = re.sub(r"[^\w.+=-]+", "_", text).strip("._")
    if name and name == text:
        return name
    digest = blake2b(text.encode(errors="surrogatepass"), digest_size=4).hexdigest()
    return f"{name}-{digest}" if name else digest
