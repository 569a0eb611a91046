"""Optional packages: what each extra brings, what is here of it, and the command that installs the rest."""

import re
from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, requires, version

_ASKED = re.compile(r"""\s*([A-Za-z0-9._-]+)(?:\[[^]]*\])?\s*([^;]*?)\s*;\s*extra\s*==\s*["']([a-z]+)["']""")
_FOR_PEOPLE = ("demo", "datasets", "video", "diffusion", "captions", "lora", "tracking", "notebook", "pretrain")
"""Extras that users of the package may want, in the order in which they are told."""


@cache
def extras() -> dict[str, tuple[str, ...]]:
    """Return the requirements of each extra ("av>=14"), as the installed package states them; none where it is not
    installed but only imported from a folder."""
    try:
        stated = requires("crossguard") or []
    except PackageNotFoundError:
        return {}
    found: dict[str, list[str]] = {}
    for asked in filter(None, map(_ASKED.match, stated)):
        name, limits, extra = asked.groups()
        found.setdefault(extra, []).append(f"{name}{limits.replace(' ', '').strip('()')}")
    return {name: tuple(found[name]) for name in _FOR_PEOPLE if name in found}


def missing(extra: str) -> list[str]:
    """Return the requirements of an extra whose packages are not installed; versions are not compared."""
    return [asked for asked in extras().get(extra, ()) if not installed(asked)]


def installed(requirement: str) -> str | None:
    """Return the version of a requirement's package, or None where it is not installed.

    Example:
        >>> installed("no-such-package>=1") is None
        True
    """
    try:
        return version(re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0])
    except PackageNotFoundError:
        return None


def install(extra: str) -> str:
    """Return the command that installs what is missing of an extra.

    The packages are named one by one: that works from a checkout, from a wheel, and wherever crossguard came from.
    """
    wanted = missing(extra) or extras().get(extra, ())
    if not wanted:
        return f"install crossguard with its extra {extra!r}"
    return f"{pip(wanted)}  (crossguard's extra {extra!r})"


def pip(requirements: Iterable[str]) -> str:
    """Return a pip command for requirements.

    Example:
        >>> pip(["av>=14"])
        "pip install 'av>=14'"
    """
    return "pip install " + " ".join(f"'{one}'" for one in requirements)
