"""The cache folder, and folders that appear whole or not at all."""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from crossguard.runs.files import sync_folder


def cache_folder() -> Path:
    """Return where derived files are kept; the folder need not exist yet.

    It is `$CROSSGUARD_CACHE`, else `$XDG_CACHE_HOME/crossguard`, else `~/.cache/crossguard`.
    """
    chosen = os.environ.get("CROSSGUARD_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "crossguard"


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
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        reason = f"{error.strerror}: the cache cannot be written; CROSSGUARD_CACHE names another folder"
        raise OSError(error.errno, reason, str(target.parent)) from error
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
