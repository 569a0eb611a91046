"""`RunFolder`: a run on the disk that can be taken up again."""

import json
import os
import sys
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from crossguard.checks import expanded, visible
from crossguard.imports import imported
from crossguard.runs.files import PARTIAL, as_read_back, open_unlinked, safe_name, tidy_run, write_json
from crossguard.runs.lock import LOCK_NAME, lock, unlock
from crossguard.runs.provenance import git_revision, versions
from crossguard.runs.rows import Rows, read_rows

SCHEMA = 1
"""Version of `run.json` and `summary.json`; a reader refuses what is newer than itself."""


class RunFolder:
    """One run on the disk: what was asked, what came out, and what is needed to take it up again.

    `RunFolder(path)` reads a run; `RunFolder.open(path, settings=...)` starts one or takes it up.

    ===================  ==================================================================================
    `run.json`           settings, command, seed, imports, versions, device, git revision, times
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
        self.path = expanded(path)
        self._rows: Rows | None = None
        self._writable = False
        self._release: weakref.finalize[Any, Any] | None = None
        self.info: dict[str, Any] = _read_info(self.path)

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

        A run that ended before anything was computed, as after a mistyped setting, is started afresh.

        Args:
            path: the folder; made when missing.
            settings: everything that decides the outcome, as JSON values.
            seed: the run's seed.
            device: where it runs; may differ between parts of a run and is only noted.
            command: what was typed; default: `sys.argv`.

        Raises:
            ValueError: the run there has other settings or another seed (each difference is named), or the folder
                holds files of something else or cannot be made.
            RunBusy: another process is writing this run, or this one has it open.
        """
        path = expanded(path)
        wanted = as_read_back(settings)
        if path.exists() and not path.is_dir():
            raise ValueError(f"Expected a folder for the run, but {path} is a file.")
        if not (path / "run.json").exists():
            _refuse_strangers(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
            path = path.resolve()  # the working directory may change
            lock(path)
        except (PermissionError, NotADirectoryError, FileNotFoundError) as error:
            raise ValueError(
                f"Expected a run folder that can be written at {path}, but got: {error.strerror}."
            ) from error
        try:
            return cls._opened(path, wanted, seed, device, command)
        except BaseException:
            unlock(path)
            raise

    @classmethod
    def _opened(
        cls, path: Path, wanted: dict[str, Any], seed: int | None, device: str, command: Sequence[str] | None
    ) -> "RunFolder":
        tidy_run(path)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        info = _read_info(path) if os.path.lexists(path / "run.json") else None
        if info is not None and _entries(path) != ["run.json"]:
            there = {"seed": info.get("seed"), "imports": info.get("imports", {}), **info["settings"]}
            found = differences(there, {"seed": seed, "imports": imported(), **wanted})
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
                "imports": imported(),
                "command": list(sys.argv if command is None else command),
                "versions": versions(),
                "device": device,
                "git": git_revision(),
                "started": now,
                "resumed": [],
                "finished": None,
            }
        write_json(path / "run.json", info)
        run = cls(path)
        run._writable = True
        run._release = weakref.finalize(run, unlock, path)  # also where it is forgotten rather than closed
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
        path = self.path / "summary.json"
        if not os.path.lexists(path):
            return {"schema": SCHEMA}
        summary = _read_versioned(path)
        wrong = [
            visible(kind)
            for kind, named in summary.items()
            if kind != "schema" and not (isinstance(named, dict) and all(isinstance(v, dict) for v in named.values()))
        ]
        if wrong:
            raise ValueError(f"Expected objects by kind and name in {visible(path)}, but {', '.join(wrong)} is none.")
        return summary

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
        """Return a path inside the run, each part made safe for file systems (see `safe_name`).

        Raises:
            ValueError: a part of it is a link, which could lead anywhere.
        """
        path = self.path
        for part in parts:
            path = path / safe_name(part)
            if path.is_symlink():
                raise ValueError(f"Expected a file or folder of the run at {visible(path)}, but it is a link.")
        return path

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
        if self._release is not None:
            self._release()

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._writable:
            self.close()

    def _check_writable(self) -> None:
        if not self._writable:
            raise RuntimeError(f"Expected a run opened with RunFolder.open, but {self.path} was only read or closed.")


@contextmanager
def opened(run: "RunFolder | Path | str | None", *, verb: str, seed: int) -> Iterator["RunFolder | None"]:
    """Open a run given by its folder, and finish it; a run that is open already, or None, is left as it is."""
    if run is None or isinstance(run, RunFolder):
        yield run
        return
    with RunFolder.open(run, settings={"verb": verb}, seed=seed) as folder:
        yield folder
        folder.finish()


_INFO: dict[str, tuple[type, ...]] = {
    "settings": (dict,),
    "seed": (int, type(None)),
    "command": (list,),
    "versions": (dict,),
    "device": (str,),
    "git": (str, type(None)),
    "started": (str,),
    "resumed": (list,),
    "finished": (str, type(None)),
}
"""What `run.json` holds beside its schema."""


def _read_info(path: Path) -> dict[str, Any]:
    info = _read_versioned(path / "run.json")
    wrong = [key for key, kinds in _INFO.items() if key not in info or not isinstance(info[key], kinds)]
    if wrong:
        raise ValueError(
            f"Expected the run.json that crossguard writes in {visible(path)}, but {', '.join(wrong)} "
            f"{'is' if len(wrong) == 1 else 'are'} missing or of another kind."
        )
    return info


def _read_versioned(path: Path) -> dict[str, Any]:
    try:
        with os.fdopen(open_unlinked(path, os.O_RDONLY), encoding="utf-8") as file:
            value = json.load(file)
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"Expected the {path.name} of a run at {visible(path)}, but got: {error}") from error
    if not isinstance(value, dict) or not isinstance(value.get("schema"), int):
        raise ValueError(f"Expected an object with a `schema` number in {visible(path)}, but got {str(value)[:80]!r}.")
    if value["schema"] > SCHEMA:
        raise ValueError(
            f"Expected schema {SCHEMA} or older in {visible(path)}, but got {value['schema']}: a newer crossguard "
            "wrote it."
        )
    return value


def _refuse_strangers(path: Path) -> None:
    if not path.exists():
        return
    strangers = _entries(path)
    if strangers:
        raise ValueError(
            f"Expected a new or empty folder or a run, but {path} holds other files ({', '.join(strangers[:3])}, ...) "
            "and no run.json."
        )


def _entries(path: Path) -> list[str]:
    """Return what a folder holds beside its lock and half-written files."""
    return sorted(
        child.name for child in path.iterdir() if child.name != LOCK_NAME and not child.name.endswith(PARTIAL)
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
