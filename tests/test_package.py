"""The package as a whole: every module imports, the public names are there, the layers hold, help needs no PyTorch."""

import importlib
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import crossguard as cg

ROOT = Path(cg.__file__).parent
MODULES = sorted(m.name for m in pkgutil.walk_packages([str(ROOT)], "crossguard."))


@pytest.mark.parametrize("name", MODULES)
def test_every_module_imports_and_says_what_it_is_for(name):
    module = importlib.import_module(name)
    assert module.__doc__, f"{name} has no docstring"
    for public in getattr(module, "__all__", []):
        assert hasattr(module, public), f"{name}.__all__ names {public}, which is not there"


@pytest.mark.parametrize("name", cg.__all__)
def test_public_names_can_be_had(name):
    assert getattr(cg, name) is not None


@pytest.mark.parametrize("name", ["certify", "evaluate"])
def test_a_package_is_a_module_that_can_be_called(name):
    module = importlib.import_module(f"crossguard.{name}")
    function = getattr(module, name)

    assert getattr(cg, name) is module
    assert module.__all__
    assert inspect.signature(module) == inspect.signature(function)
    with pytest.raises(TypeError, match="missing"):
        getattr(cg, name)()


def test_dir_lists_the_public_names_and_the_rooms():
    assert dir(cg) == sorted({*cg.__all__, *(m.split(".")[1] for m in MODULES if m.count(".") == 1 and public_room(m))})


def public_room(name):
    return hasattr(importlib.import_module(name), "__path__") and name != "crossguard.cli"


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'evaluat'"):
        cg.evaluat  # noqa: B018


@pytest.mark.parametrize(
    "code",
    [
        "from crossguard.certify import Edits, overlap, worst_case, certify_counts",
        "from crossguard.cli import app",
        "import crossguard",
    ],
)
def test_mathematics_and_help_need_no_pytorch(code):
    check = f"import sys; {code}; assert 'torch' not in sys.modules, sorted(m for m in sys.modules if 'cross' in m)"
    subprocess.run([sys.executable, "-c", check], check=True, timeout=60)


def test_layers_hold():
    done = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache"],
        cwd=ROOT.parents[1],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
