"""Checking options by name against what a constructor takes."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from crossguard.checks import nearest


def check_options(build: Callable[..., Any], options: Mapping[str, Any], *, what: str) -> None:
    """Refuse options that `build` does not take, naming the nearest one, and missing ones.

    Raises:
        ValueError: an unknown option, or one without a default that is missing.
    """
    known = inspect.signature(build).parameters
    for option in options:
        if option not in known:
            hint = nearest(option, known) if known else "it takes none"
            raise ValueError(f"Unknown option {option!r} of {what}: {hint}.")
    missing = [name for name, p in known.items() if p.default is p.empty and name not in options]
    if missing:
        raise ValueError(f"Expected option {missing[0]!r} of {what}, but it is missing.")
