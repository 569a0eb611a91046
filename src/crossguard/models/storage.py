"""Saving models: a folder is whole or not there."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from crossguard.runs import atomic_folder


def write_model(folder: Path | str, parts: Iterable[Callable[[Path], Any]]) -> None:
    """Let every part write itself into one new folder, which then takes the place of `folder`."""
    with atomic_folder(folder) as temporary:
        for write in parts:
            write(temporary)
