"""`Reading`: how files of images and captions are read, whatever their layout, and what a file's name says."""

import gc
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

from crossguard.checks import visible
from crossguard.progress import Reporter

_SAME = {"training": "train", "valid": "val", "validation": "val", "dev": "val", "testing": "test"}
_SPLIT_WORD = re.compile(r"(?<![a-z])(train(?:ing)?|val(?:id(?:ation)?)?|dev|test(?:ing)?)(?![a-z])")
_PLAIN = {"annotations", "annotation", "captions", "metadata", "dataset", "data", "labels", "results"}


@dataclass(frozen=True)
class Reading:
    """How strictly and how widely images are looked for.

    Args:
        skip_bad: leave out bad rows, missing files and images that do not decode; the notes count them by reason.
        verify: decode every image once, now; with `skip_bad` that is always done.
        workers: threads that decode; default: one per core.
        outside_root: take image files outside of `root` too: absolute paths, paths with `..`, links that lead out.
        progress: where reading and checking are shown; default: bars where a person is there to see them.
    """

    skip_bad: bool = False
    verify: bool = False
    workers: int | None = None
    outside_root: bool = False
    progress: Reporter | None = None


def with_reading(load: Callable[..., Any]) -> Callable[..., Any]:
    """Return a loader that takes the fields of `Reading` one by one, as recipes give them."""
    own = [p for name, p in signature(load).parameters.items() if name != "reading"]
    shared = [
        Parameter(field.name, Parameter.KEYWORD_ONLY, default=field.default, annotation=field.type)
        for field in fields(Reading)
    ]

    def flat(**options: Any) -> Any:
        reading = Reading(**{p.name: options.pop(p.name) for p in shared if p.name in options})
        return load(**options, reading=reading)

    flat.__signature__ = signature(load).replace(parameters=[*own, *shared])  # type: ignore[attr-defined]
    return flat


@contextmanager
def uncollected() -> Iterator[None]:
    """Let Python's collector rest, which would go through millions of rows again and again; none of them is garbage."""
    on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if on:
            if not gc.get_freeze_count():  # so that it need not look at all that is new either, once
                gc.freeze()
                gc.unfreeze()
            gc.enable()


def same_split(name: str) -> str:
    """Return the usual name of a split: "val" for "validation" or "dev", and so on; others stay.

    Example:
        >>> same_split("validation"), same_split("testA")
        ('val', 'testA')
    """
    plain = name.strip()
    return _SAME.get(plain.lower(), plain.lower() if plain.lower() in ("train", "val", "test") else plain)


def one_of_each(root: Path, folders: Iterable[str]) -> dict[str, str]:
    """Return the folders of splits by the usual name of their split.

    Raises:
        ValueError: two of them are of the same split.
    """
    found: dict[str, str] = {}
    for name in folders:
        if found.setdefault(same_split(name), name) != name:
            raise ValueError(
                f"Expected one folder for each split of {visible(root)}, but {visible(found[same_split(name)])} and "
                f"{visible(name)} are both {same_split(name)!r}."
            )
    return found


def split_said(name: str) -> str | None:
    """Return the split that a file's or folder's name tells; None if it tells none, or several.

    Example:
        >>> split_said("captions_val2017.json"), split_said("train_and_test.json"), split_said("latest.json")
        ('val', None, None)
    """
    found = {same_split(word) for word in _SPLIT_WORD.findall(name.lower())}
    return found.pop() if len(found) == 1 else None


def split_of_file(path: Path, split: str | None) -> str:
    """Return the split of a file without splits of its own: the one asked for, else by its name, else "test".

    Raises:
        ValueError: the name tells another split than the one asked for.
    """
    said = split_said(path.name)
    if split is None:
        return said or "test"
    if said is not None and same_split(split) in {"train", "val", "test"} - {said}:
        raise ValueError(f"Expected a file of split {split!r}, but the name of {path} says {said!r}.")
    return split


def data_name(path: Path) -> str:
    """Return a name for the data of a file: its own, or its folder's where its own tells the split alone.

    Example:
        >>> data_name(Path("flickr8k/test.json")), data_name(Path("food/menu.csv"))
        ('flickr8k', 'menu')
    """
    words = [word for word in re.split(r"[\W_]+", path.stem.lower()) if word]
    telling = [word for word in words if word not in _PLAIN and not _SPLIT_WORD.fullmatch(word)]
    folder = path.absolute().parent.name
    return path.stem if telling or not folder else folder
