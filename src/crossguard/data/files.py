"""Looking for many files: one listing per folder instead of one question per file."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path


class FileFinder:
    """Tells whether files are there; every folder is listed once, which also spares network drives."""

    def __init__(self) -> None:
        self._folders: dict[str, frozenset[str]] = {}

    def has(self, path: Path) -> bool:
        """Whether `path` is a file."""
        folder, name = os.path.split(path)
        if folder not in self._folders:
            self._folders[folder] = _files_in(folder)
        return name in self._folders[folder]


def find_base(root: Path, candidates: Iterable[str], names: Sequence[str]) -> Path:
    """Return the folder that the names start from: `root`, or the first of its folders where they lie.

    Args:
        root: the data set's folder.
        candidates: folders in it where the images may lie.
        names: paths of some images, from the annotation file; a few are enough.
    """
    finder = FileFinder()
    for base in (root, *(root / candidate for candidate in candidates)):
        if any(finder.has(base / name) for name in names[:10]):
            return base
    return root


def _files_in(folder: str) -> frozenset[str]:
    try:
        with os.scandir(folder or ".") as entries:
            return frozenset(entry.name for entry in entries if entry.is_file())
    except OSError:
        return frozenset()
