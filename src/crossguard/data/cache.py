"""The cache folder, and folders that appear whole or not at all."""

import errno
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from crossguard.checks import expanded
from crossguard.runs.files import sync_folder


def cache_folder() -> Path:
    """Return where derived files are kept; the folder need not exist yet.

    It is `$CROSSGUARD_CACHE`, else `$XDG_CACHE_HOME/crossguard`, else `~/.cache/crossguard`.

    Raises:
        FileNotFoundError: none of them is set, and there is no home folder.
    """
    chosen = os.environ.get("CROSSGUARD_CACHE")
    if chosen:
        return expanded(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "crossguard"
    except RuntimeError:
        raise _no_cache(FileNotFoundError(errno.ENOENT, "there is no home folder", "~")) from None


def place_in_cache(*names: str) -> Path:
    """Return a place in the cache folder: one that is there, or one that can be made.

    Raises:
        OSError: it cannot be made; the message names `CROSSGUARD_CACHE`.
    """
    place = cache_folder().joinpath(*names)
    if place.exists():
        return place
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=place.parent):  # only writing tells whether one may write
            return place
    except OSError as error:
        raise _no_cache(error) from error


def _no_cache(error: OSError) -> OSError:
    # With the error's number OSError makes the same kind again.
    said = (
        f"{error.strerror}; set CROSSGUARD_CACHE to a folder that can be written, for what crossguard draws and indexes"
    )
    return OSError(error.errno, said, error.filename)


def whole_folder(target: Path, build: Callable[[Path], None]) -> Path:
    """Return `target`, built first if it does not exist.

    `build` fills a temporary folder beside the target, which takes the target's name only once it is complete, so a
    killed or failed build leaves no target behind. Of two processes that build at once the first to finish wins.

    Args:
        target: the folder wanted.
        build: writes the content into the (existing, empty) folder that it is given.

    Raises:
        OSError: the folder cannot be written (no space, no permission).
    """
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        build(draft)
        try:
            draft.rename(target)
            sync_folder(target.parent)
        except OSError:
            if not target.is_dir():  # another process may have finished first: its folder is as good
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return target
