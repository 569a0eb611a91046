"""Finding many files: one listing per folder instead of one question per file, links followed once."""

import os
from collections import defaultdict
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

_TAIL = 4096


@dataclass
class Located:
    """Where the files of some names lie; each name has a place, a number.

    Args:
        paths: by place the file, absolute and without links: the same for two names of one file.
        missing: the places of names without a file.
        outside: the places of names that lead out of the root.
    """

    paths: dict[int, str] = field(default_factory=dict)
    missing: set[int] = field(default_factory=set)
    outside: set[int] = field(default_factory=set)


def locate(
    names: Sequence[str], root: Path | str, places: Sequence[int] | None = None, outside_root: bool = False
) -> Located:
    """Look for files; every folder is listed once, which also spares network drives.

    Args:
        names: paths that start from `root`, or absolute ones.
        root: the folder they start from.
        places: the numbers of the names; default: from 0.
        outside_root: take files outside of `root` too: absolute paths, paths with `..`, and what links point to.
    """
    base = os.path.realpath(root)
    found = Located()
    folders: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for place, name in zip(range(len(names)) if places is None else places, names, strict=True):
        folder, _, own = name.rpartition("/")
        folders[folder if folder or own is name else "/"].append((place, own))
    for folder, wanted in folders.items():
        real = os.path.realpath(os.path.join(base, folder))
        if not outside_root and not _within(real, base):
            found.outside.update(place for place, _ in wanted)
            continue
        files, links = _entries(real)
        found.paths.update([(place, f"{real}/{own}") for place, own in wanted if own in files])
        for place, own in [one for one in wanted if one[1] not in files]:
            path = os.path.realpath(f"{real}/{own}") if own in links else ""
            if not path:
                found.missing.add(place)
            elif not outside_root and not _within(path, base):
                found.outside.add(place)
            else:
                found.paths[place] = path
    found.paths = dict(sorted(found.paths.items()))  # the first name of a file counts, whether a link or not
    return found


def equal_files(spans: Sequence[tuple[str, int, int | None]]) -> list[tuple[int, int]]:
    """Return which contents are equal byte for byte to an earlier one, as (place, earlier place).

    Sizes are compared first, then the last bytes, then everything, so that little is read where all differ.

    Args:
        spans: of each content its file, where it begins, and its size; None: the whole file.
    """
    groups: dict[object, list[int]] = defaultdict(list)
    for place, (path, _, size) in enumerate(spans):
        groups[os.stat(path).st_size if size is None else size].append(place)
    for whole in (False, True):
        finer: dict[object, list[int]] = defaultdict(list)
        for key, places in groups.items():
            for place in places if len(places) > 1 else ():
                finer[key, _digest(spans[place], whole=whole)].append(place)
        groups = finer
    return sorted((place, places[0]) for places in groups.values() for place in places[1:])


def files_below(folder: Path | str, suffixes: Container[str]) -> list[Path]:
    """Return the files with some endings in a folder and its folders, in order.

    What is hidden is left out, as a shell does: notebooks' checkpoints, what macOS writes beside files, half-written
    ones.

    Args:
        folder: where to look.
        suffixes: without the dot, in small letters.
    """
    found = []
    for home, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(home, name) for name in names if not name.startswith(".") and suffix_of(name) in suffixes]
    return sorted(found)


def suffix_of(name: str) -> str:
    """Return the ending of a file name, without the dot and in small letters; "" if it has none.

    Example:
        >>> suffix_of("a.b.JPG"), suffix_of("README")
        ('jpg', '')
    """
    return name.rpartition(".")[2].lower() if "." in name else ""


def find_base(root: Path, candidates: Iterable[str], names: Sequence[str]) -> Path:
    """Return the folder that the names start from: `root`, or the first of its folders where they lie.

    Args:
        root: the data set's folder.
        candidates: folders in it where the images may lie.
        names: paths of some images, from the annotation file; a few are enough.
    """
    few = list(names[:10])
    for base in (root, *(root / candidate for candidate in candidates)):
        if len(locate(few, base, outside_root=True).missing) < len(few):
            return base
    return root


def _within(path: str, base: str) -> bool:
    return path == base or path.startswith(base.rstrip(os.sep) + os.sep)


def _digest(span: tuple[str, int, int | None], *, whole: bool) -> bytes:
    path, start, given = span
    size = os.stat(path).st_size if given is None else given
    skipped = 0 if whole else max(0, size - _TAIL)
    with open(path, "rb") as file:
        file.seek(start + skipped)
        return blake2b(file.read(size - skipped), digest_size=16).digest()


def _entries(folder: str) -> tuple[set[str], set[str]]:
    """Return the names of the files in a folder, and of the links to files; none of one that cannot be read."""
    try:
        with os.scandir(folder) as entries:
            there = list(entries)
    except OSError:
        return set(), set()
    others = [entry for entry in there if not entry.is_file(follow_symlinks=False)]
    files = {entry.name for entry in there}
    files.difference_update(entry.name for entry in others)
    return files, {entry.name for entry in others if entry.is_symlink() and _is_file(entry)}


def _is_file(link: os.DirEntry[str]) -> bool:
    try:
        return link.is_file()
    except OSError:  # it leads to itself
        return False
