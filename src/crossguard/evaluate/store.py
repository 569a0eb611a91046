"""What an attack found, kept batch by batch, so that an interrupted evaluation goes on where it stopped."""

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from crossguard.runs import (
    DAMAGED,
    RunFolder,
    as_read_back,
    differences,
    npz_bytes,
    read_npz,
    write_atomically,
    write_json,
)
from crossguard.world import ALONE, World

Arrays = Mapping[str, np.ndarray]
"""What an attack found for one batch: arrays by name."""
Ids = Int64[np.ndarray, " ids"]
_IDS, _NAMES = "batch", "names"  # of whom, and which arrays there were: a damaged file may have lost some


class Store:
    """The stored batches of one evaluation, in one folder that belongs to its settings.

    Args:
        folder: the folder; made when missing.
        settings: everything that decides what the attack finds, as JSON values.

    Raises:
        ValueError: the folder belongs to other settings; each difference is named.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.folder, self._settings = folder, settings
        manifest = folder / "settings.json"
        wanted = as_read_back(settings)
        if manifest.exists():
            try:
                there = json.loads(manifest.read_text(encoding="utf-8"))
            except (ValueError, RecursionError) as error:
                raise ValueError(
                    f"Expected the settings of an evaluation in {manifest}, but got: {error}. Remove {folder} to "
                    "attack again."
                ) from error
            refuse_differences(there, wanted, where=folder)
        else:
            write_json(manifest, wanted)

    def beside(self, name: str) -> "Store":
        """Return another store of the same evaluation, in a folder within this one."""
        return Store(self.folder / name, self._settings)

    def read(self, number: int, ids: Ids) -> Arrays | None:
        """Return batch `number` of these images or samples, or None when it is not there, damaged, or of others (then
        it is attacked again)."""
        path = self._path(number)
        if not path.exists():
            return None
        try:
            found = read_npz(path)
            made_of, names = found.pop(_IDS), json.loads(found.pop(_NAMES).tobytes())
            if sorted(found) != names:
                raise ValueError("arrays are missing")
        except DAMAGED:
            path.unlink()
            return None
        return found if np.array_equal(made_of, ids) else None

    def expect(self, number: int, ids: Ids) -> Arrays:
        """Return batch `number`.

        Raises:
            ValueError: it is not there, damaged, or of other images or samples.
        """
        found = self.read(number, ids)
        if found is None:
            raise ValueError(f"Expected batch {number} in {self.folder}, but it is missing or damaged: run again.")
        return found

    def write(self, number: int, ids: Ids, found: Arrays) -> None:
        """Keep what was found for batch `number`, of these images or samples; the file is whole or not there."""
        names = np.frombuffer(json.dumps(sorted(found)).encode(), dtype=np.uint8)
        write_atomically(self._path(number), npz_bytes(**{_IDS: ids, _NAMES: names}, **found))

    def write_rows(self, number: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Keep the rows of batch `number` until the main one of several processes takes them."""
        write_json(self.folder / f"rows-{number:05d}.json", list(rows))

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows that are kept so, batch by batch; what is damaged is not there."""
        found: list[dict[str, Any]] = []
        for path in sorted(self.folder.glob("rows-*.json")):
            try:
                found += json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError, RecursionError):
                continue
        return found

    def clear_rows(self) -> None:
        """Forget the rows that were taken."""
        for path in self.folder.glob("rows-*.json"):
            path.unlink(missing_ok=True)

    def _path(self, number: int) -> Path:
        return self.folder / f"batch-{number:05d}.npz"


@contextmanager
def open_store(
    run: RunFolder | None, *names: str, settings: Mapping[str, Any], world: World = ALONE
) -> Iterator[Store]:
    """Open the store of one evaluation in its run, or a temporary one where there is no run.

    Args:
        run: the run; None: nothing is kept.
        names: what tells this evaluation from others of the run.
        settings: everything that decides what the attack finds.
        world: the processes that fill it.

    Raises:
        ValueError: the run holds this evaluation with other settings, or processes do not see the same disk.
    """
    if run is not None:
        if world.main:
            Store(run.file("adversarial", *names), settings)
        world.wait()
        yield Store(run.file("adversarial", *names), settings)
        return
    with tempfile.TemporaryDirectory(prefix="crossguard-") as own:
        folder = Path(world.agree(own))
        if not all(world.every(folder.is_dir())):
            raise ValueError(
                f"Expected all processes to see {folder}: give a `run` on a disk that they share, or set TMPDIR to one."
            )
        yield Store(folder, settings)
        world.wait()


def refuse_differences(there: Mapping[str, Any], now: Mapping[str, Any], *, where: Path) -> None:
    """Refuse settings, as they are read back, that differ from those kept at a place.

    Raises:
        ValueError: each difference is named.
    """
    found = differences(there, now)
    if found:
        raise ValueError(
            f"Expected the settings of the evaluation begun in {where}, but they differ: {'; '.join(found)}. "
            "Use another run folder, or another `label`."
        )
