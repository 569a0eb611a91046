"""Which code a run was made with."""

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that decide what comes out."""
    found = {"python": platform.python_version()}
    for package in ("crossguard", "torch", "transformers", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def git_revision() -> str | None:
    """Return the revision of the checkout this code runs from ("+" when it has changes), or None outside one."""
    package = Path(__file__).parents[1]
    try:
        tracked = _git(package, "ls-files", "--error-unmatch", str(Path(__file__).relative_to(package)))
        revision = _git(package, "rev-parse", "HEAD")
        changed = _git(package, "status", "--porcelain", "--untracked-files=no", "--", ".")
    except (OSError, subprocess.SubprocessError):
        return None
    return revision + ("+" if changed else "") if tracked else None


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=True
    )
    return done.stdout.strip()
