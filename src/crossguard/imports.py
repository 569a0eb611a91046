"""Parts of one's own by name: Python files and modules that register attacks, models, data sets, defences or tasks.

They are named by `--import` on the command line, by the environment variable `CROSSGUARD_IMPORT` (several joined as in
`PATH`), or by a package's entry points of the group "crossguard". Recipes stay plain data and never name code.
"""

import hashlib
import os
import sys
import traceback
from collections.abc import Iterable
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from crossguard.checks import expanded

VARIABLE = "CROSSGUARD_IMPORT"
_imported: dict[str, str] = {}


def import_parts(given: Iterable[str] = ()) -> None:
    """Import what the environment, installed packages and the caller name, each once.

    Args:
        given: Python files (ending in .py) or importable modules; the working directory is looked into, too.

    Raises:
        ImportError: a file or module is not there, or fails; where it failed is said.
    """
    from_packages = [point.value.partition(":")[0] for point in entry_points(group="crossguard")]
    named = [name for name in os.environ.get(VARIABLE, "").split(os.pathsep) if name]
    for part in (*from_packages, *named, *given):
        if not part.strip():
            raise ImportError("Expected a Python file or module for `--import`, but got an empty name.")
        file = expanded(part).resolve() if part.endswith(".py") else None
        key = part if file is None else str(file)
        if key not in _imported:
            _imported[key] = _digest(_load(part, file))


def imported() -> dict[str, str]:
    """Return what was imported so far: files and modules, with the SHA-256 of their code."""
    return dict(_imported)


def _load(part: str, file: Path | None) -> ModuleType:
    try:
        if file is None:
            if os.getcwd() not in sys.path and "" not in sys.path:
                sys.path.append(os.getcwd())
            return import_module(part)
        if not file.is_file():
            raise ImportError(f"Expected a Python file or module for `--import`, but there is no file {file}.")
        return _run_file(file)
    except ModuleNotFoundError as error:
        if file is None and error.name == part.partition(".")[0]:
            raise ImportError(f"Expected a Python file or module for `--import`, but got {part!r}: {error}.") from error
        raise ImportError(_failure(part, error)) from error
    except ImportError as error:
        if error.__cause__ is None and str(error).startswith("Expected a Python file"):
            raise
        raise ImportError(_failure(part, error)) from error
    except Exception as error:
        raise ImportError(_failure(part, error)) from error


def _run_file(file: Path) -> ModuleType:
    # Under its own name where that is free, so that what it defines can be found again.
    name = file.stem if file.stem.isidentifier() and find_spec(file.stem) is None else f"crossguard_import_{file.stem}"
    spec = spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _failure(part: str, error: Exception) -> str:
    if isinstance(error, SyntaxError):
        return f"Expected {part} to be imported, but line {error.lineno} is no Python: {error.msg}."
    place = traceback.extract_tb(error.__traceback__)[-1]
    return (
        f"Expected {part} to be imported, but it failed in {Path(place.filename).name}, line {place.lineno}: "
        f"{type(error).__name__}: {error}"
    )


def _digest(module: ModuleType) -> str:
    source = getattr(module, "__file__", None)
    return hashlib.sha256(Path(source).read_bytes() if source else b"").hexdigest()
