"""Run folders: files that are whole or not there, rows that survive a kill, and a run that can be taken up again."""

import atexit
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, BinaryIO

try:
    import fcntl
except ImportError:  # Windows: runs are not locked there
    fcntl = None  # type: ignore[assignment]

SCHEMA = 1
"""Version of `run.json` and `summary.json`; a reader refuses what is newer than itself."""

_PARTIAL = ".partial"
_OLD = ".replaced"


@contextmanager
def atomic_folder(target: Path | str) -> Iterator[Path]:
    """Fill a temporary folder beside `target`; on success it takes `target`'s place, on error nothing is left.

    A folder already at `target` is replaced only once the new one is whole.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}-", suffix=_PARTIAL, dir=target.parent))
    try:
        yield temporary
        temporary.chmod(0o755)
        for file in temporary.rglob("*"):
            if file.is_file():
                _sync(file)
        if target.exists():
            old = target.parent / f".{target.name}{_OLD}"
            if old.exists():
                shutil.rmtree(old)
            target.replace(old)  # from here to the next line a kill leaves only `old`, which `tidy` puts back
            temporary.replace(target)
            shutil.rmtree(old)
        else:
            temporary.replace(target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        tidy(target.parent)
        raise


def tidy(folder: Path | str) -> None:
    """Clear what killed writers left in a folder: half-written files go, a folder caught between old and new returns.

    Call it only where no other process is writing.
    """
    for old in Path(folder).glob(f".*{_OLD}"):
        target = old.parent / old.name[1 : -len(_OLD)]
        if target.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.replace(target)
    for left in Path(folder).glob(f".*{_PARTIAL}"):
        shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)


def write_atomically(target: Path | str, content: str | bytes) -> None:
    """Write a file so that a reader sees the old content or the new one, never a part.

    Raises:
        OSError: the disk is full or the folder not writable; what stood at `target` before still stands.
    """
    target = Path(target)
    temporary: str | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{target.name}-", suffix=_PARTIAL, dir=target.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, target)
    except BaseException as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise _not_written(target, error) from error
        raise


def _not_written(target: Path, error: OSError) -> OSError:
    reason = f"could not write ({error.strerror or error}); what stood there before is unchanged"
    return OSError(error.errno, reason, str(target))


def _sync(file: Path) -> None:
    with file.open("rb+") as handle:
        os.fsync(handle.fileno())


def write_json(target: Path | str, value: Any) -> None:
    """Write a value as indented JSON, atomically; NaN and infinity are refused."""
    write_atomically(target, json.dumps(value, indent=2, allow_nan=False) + "\n")


class Rows:
    """An append-only file of JSON rows (`rows.jsonl`); each row is flushed to the disk before `append` returns.

    A last line cut off by a kill is dropped when the file is opened again; all earlier rows stay.

    Args:
        path: the file; made with its folder when missing.

    Raises:
        ValueError: a line other than the last is not JSON.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.touch()
        whole = self._cut_torn_end()
        self._rows = [_parse(line, number, self.path) for number, line in enumerate(whole, start=1)]

    def _cut_torn_end(self) -> list[bytes]:
        content = self.path.read_bytes()
        end = content.rfind(b"\n") + 1
        if end < len(content):
            os.truncate(self.path, end)
        return content[:end].split(b"\n")[:-1]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def append(self, *rows: Mapping[str, Any]) -> None:
        """Add rows and flush them to the disk.

        Raises:
            OSError: the disk is full; the file is as it was before, without any of these rows.
            ValueError: a row holds NaN or infinity; nothing is written.
        """
        size = self.path.stat().st_size
        block = "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows).encode()
        try:
            with self.path.open("ab") as file:
                file.write(block)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            os.truncate(self.path, size)
            raise _not_written(self.path, error) from error
        self._rows.extend(dict(row) for row in rows)


def _parse(line: bytes, number: int, path: Path) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ValueError(f"Expected JSON in line {number} of {path}, but got {line[:60]!r}.") from error
    if not isinstance(row, dict):
        raise ValueError(f"Expected an object in line {number} of {path}, but got {line[:60]!r}.")
    return row


def read_rows(path: Path | str) -> list[dict[str, Any]]:
    """Read the whole rows of a file that another process may be appending to; the file is not touched.

    Raises:
        ValueError: a whole line is not a JSON object.
    """
    path = Path(path)
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]  # what follows the last newline is still being written
    return [_parse(line, number, path) for number, line in enumerate(lines, start=1)]


class RunFolder:
    """One run on the disk: what was asked, what came out, and what is needed to take it up again.

    `RunFolder(path)` reads a run; `RunFolder.open(path, settings=...)` starts one or takes it up.

    ===================  ==================================================================================
    `run.json`           settings, command, seed, versions, device, git revision, times
    `rows.jsonl`         one row per query, sample or certificate, appended and flushed
    `summary.json`       `{"schema": 1, "<kind>": {"<name>": {...}}}`, what the report is built from
    `model/`             a trained model
    `counts/`            counts of certificates
    `adversarial/`       adversarial pictures and texts, one file per batch
    `report.html`        the report
    ===================  ==================================================================================

    Args:
        path: the folder.

    Raises:
        ValueError: no readable `run.json` there, or one of a newer version.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._rows: Rows | None = None
        self._writable = False
        self.info: dict[str, Any] = _read_versioned(self.path / "run.json")

    @classmethod
    def open(
        cls,
        path: Path | str,
        *,
        settings: Mapping[str, Any],
        seed: int | None = None,
        device: str = "cpu",
        command: Sequence[str] | None = None,
    ) -> "RunFolder":
        """Start a run in a new or empty folder, or take up the one that is there if its settings are the same.

        Args:
            path: the folder; made when missing.
            settings: everything that decides the outcome, as JSON values.
            seed: the run's seed.
            device: where it runs; may differ between parts of a run and is only noted.
            command: what was typed; default: `sys.argv`.

        Raises:
            ValueError: the run there has other settings or another seed (each difference is named), or the folder
                holds files of something else or cannot be made.
            RuntimeError: another process is writing this run.
        """
        path = Path(path)
        wanted = json.loads(json.dumps(dict(settings), allow_nan=False))
        if path.exists() and not path.is_dir():
            raise ValueError(f"Expected a folder for the run, but {path} is a file.")
        if not (path / "run.json").exists():
            _refuse_strangers(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
            _lock(path)
        except (PermissionError, NotADirectoryError, FileNotFoundError) as error:
            raise ValueError(
                f"Expected a run folder that can be written at {path}, but got: {error.strerror}."
            ) from error
        tidy(path)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        if (path / "run.json").exists():
            info = _read_versioned(path / "run.json")
            found = differences({"seed": info.get("seed"), **info["settings"]}, {"seed": seed, **wanted})
            if found:
                raise ValueError(
                    f"Expected the settings of the run in {path}, but they differ: {'; '.join(found)}. "
                    "Choose another folder, or the same settings to take the run up."
                )
            info = {**info, "resumed": [*info.get("resumed", []), now], "finished": None}
        else:
            info = {
                "schema": SCHEMA,
                "settings": wanted,
                "seed": seed,
                "command": list(sys.argv if command is None else command),
                "versions": _versions(),
                "device": device,
                "git": _git_revision(),
                "started": now,
                "resumed": [],
                "finished": None,
            }
        write_json(path / "run.json", info)
        run = cls(path)
        run._writable = True
        return run

    @property
    def settings(self) -> dict[str, Any]:
        """The resolved settings of the run."""
        return dict(self.info["settings"])

    @property
    def rows(self) -> Rows:
        """The rows, for appending; for a run that was only read use `read_rows`.

        Raises:
            RuntimeError: the run was not opened with `RunFolder.open`.
        """
        self._check_writable()
        if self._rows is None:
            self._rows = Rows(self.path / "rows.jsonl")
        return self._rows

    def read_rows(self) -> list[dict[str, Any]]:
        """Read the rows without touching the file."""
        return read_rows(self.path / "rows.jsonl")

    @property
    def summary(self) -> dict[str, Any]:
        """The content of `summary.json`; only its schema when nothing is summarised yet.

        Raises:
            ValueError: the file is broken or of a newer version.
        """
        if not (self.path / "summary.json").exists():
            return {"schema": SCHEMA}
        return _read_versioned(self.path / "summary.json")

    def summarise(self, kind: str, name: str, value: Mapping[str, Any]) -> None:
        """Put one result into `summary.json`, in place of an earlier one of the same kind and name.

        Args:
            kind: "retrieval", "certificates", ...
            name: name of the result within its kind.
            value: JSON values; NaN and infinity are refused.
        """
        self._check_writable()
        summary = self.summary
        write_json(self.path / "summary.json", {**summary, kind: {**summary.get(kind, {}), name: dict(value)}})

    def file(self, *parts: str) -> Path:
        """Return a path inside the run, each part made safe for file systems (see `safe_name`)."""
        return self.path.joinpath(*(safe_name(part) for part in parts))

    def finish(self) -> None:
        """Note the time of completion and let other processes open the run."""
        self._check_writable()
        self.info = {**self.info, "finished": datetime.now(UTC).isoformat(timespec="seconds")}
        write_json(self.path / "run.json", self.info)
        self.close()

    def close(self) -> None:
        """Stop writing; an unfinished run can be taken up later."""
        self._writable = False
        self._rows = None
        _unlock(self.path)

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._writable:
            self.close()

    def _check_writable(self) -> None:
        if not self._writable:
            raise RuntimeError(f"Expected a run opened with RunFolder.open, but {self.path} was only read or closed.")


def safe_name(text: str) -> str:
    """Return a file name that keeps what is readable of `text`; different texts may share one.

    Example:
        >>> safe_name("mat+ (joint)")
        'mat+_joint'
    """
    return re.sub(r"[^A-Za-z0-9.+=-]+", "_", text).strip("._") or "_"


def _read_versioned(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"Expected the {path.name} of a run at {path}, but got: {error}") from error
    if not isinstance(value, dict) or not isinstance(value.get("schema"), int):
        raise ValueError(f"Expected an object with a `schema` number in {path}, but got {str(value)[:80]}.")
    if value["schema"] > SCHEMA:
        raise ValueError(
            f"Expected schema {SCHEMA} or older in {path}, but got {value['schema']}: a newer crossguard wrote it."
        )
    return value


def _refuse_strangers(path: Path) -> None:
    if not path.exists():
        return
    strangers = sorted(
        child.name for child in path.iterdir() if child.name != _LOCK_NAME and not child.name.endswith(_PARTIAL)
    )
    if strangers:
        raise ValueError(
            f"Expected a new or empty folder or a run, but {path} holds other files ({', '.join(strangers[:3])}, ...) "
            "and no run.json."
        )


def differences(there: Mapping[str, Any], now: Mapping[str, Any], *, prefix: str = "") -> list[str]:
    """Name every difference between two nested settings, one phrase each; empty when they are the same.

    Example:
        >>> differences({"attack": {"name": "sga"}, "seed": 0}, {"attack": {"name": "pgd"}, "seed": 0})
        ["`attack.name` is 'sga' there and 'pgd' now"]
    """
    found = []
    for key in sorted({*there, *now}):
        name = f"{prefix}{key}"
        if key not in now:
            found.append(f"`{name}` is {there[key]!r} there and missing now")
        elif key not in there:
            found.append(f"`{name}` is missing there and {now[key]!r} now")
        elif isinstance(there[key], dict) and isinstance(now[key], dict):
            found.extend(differences(there[key], now[key], prefix=f"{name}."))
        elif there[key] != now[key]:
            found.append(f"`{name}` is {there[key]!r} there and {now[key]!r} now")
    return found


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in ("crossguard", "torch", "transformers", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def _git_revision() -> str | None:
    """Return the revision of the checkout this code runs from ("+" when it has changes), or None outside one."""
    here = Path(__file__).parent
    try:
        tracked = _git(here, "ls-files", "--error-unmatch", Path(__file__).name)
        revision = _git(here, "rev-parse", "HEAD")
        changed = _git(here, "status", "--porcelain", "--untracked-files=no", "--", ".")
    except (OSError, subprocess.SubprocessError):
        return None
    return revision + ("+" if changed else "") if tracked else None


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=True
    )
    return done.stdout.strip()


_LOCK_NAME = ".lock"
_locks: dict[Path, BinaryIO] = {}


def _lock(path: Path) -> None:
    """Keep other processes from writing this run; the system lets go of the lock when the process ends, however."""
    key = path.resolve()
    if fcntl is None or key in _locks:
        return
    handle = (path / _LOCK_NAME).open("ab")
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        handle.close()
        raise RuntimeError(f"Expected a run that nobody is writing, but another process has {path} open.") from error
    except OSError:  # a file system without locks
        handle.close()
        return
    _locks[key] = handle


@atexit.register
def _unlock_all() -> None:
    for key in list(_locks):
        _unlock(key)


def _unlock(path: Path) -> None:
    handle = _locks.pop(path.resolve(), None)
    if handle is not None:
        handle.close()
