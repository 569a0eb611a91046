"""`crossguard doctor`: what is installed, what it can compute on, and what would mend what is missing."""

import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import typer

from crossguard import __version__
from crossguard.cli.console import FAILED, print_json, told_clearly
from crossguard.cli.options import AsJson

REQUIRED = ("torch", "transformers", "accelerate", "safetensors", "numpy", "scipy", "pillow", "kornia")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Args:
        topic: "versions", "devices", "extras" or "folders".
        name: what it is.
        state: "ok", "missing" (something optional) or "broken".
        detail: a version, a device's name, a folder and its size.
        mend: the command that mends it; "" where nothing is to be mended.
    """

    topic: str
    name: str
    state: str
    detail: str
    mend: str = ""


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""

    @app.command()
    def doctor(as_json: AsJson = False) -> None:
        """Tell versions, devices, extras and folders, what is missing, and the command that mends it.

        The exit code is 1 where something that everything needs is broken; a missing extra is none of that.
        """
        with told_clearly():
            found = list(findings())
            if as_json:
                print_json([vars(finding) for finding in found])
            else:
                _print(found)
        if any(finding.state == "broken" for finding in found):
            raise typer.Exit(FAILED)


def findings() -> Iterator[Finding]:
    """Look at everything, the least dependent first."""
    yield Finding("versions", "crossguard", "ok", f"{__version__} in {Path(__file__).parents[1]}")
    yield Finding("versions", "python", "ok", f"{platform.python_version()} ({sys.platform}, {platform.machine()})")
    yield from _required()
    yield from _devices()
    yield from _extras()
    yield from _folders()


def _required() -> Iterator[Finding]:
    from importlib import import_module

    from crossguard.extras import installed, pip

    for name in REQUIRED:
        version = installed(name)
        try:
            import_module({"pillow": "PIL"}.get(name, name))
        except Exception as error:
            yield Finding("versions", name, "broken", f"{type(error).__name__}: {error}", pip([name]))
            continue
        yield Finding("versions", name, "ok", version or "imported, version unknown")


def _devices() -> Iterator[Finding]:
    try:
        import torch
    except Exception:
        return
    yield Finding("devices", "cpu", "ok", f"{torch.get_num_threads()} threads")
    for place in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(place)
        yield Finding("devices", f"cuda:{place}", "ok", f"{about.name}, {about.total_memory / 2**30:.0f} GiB")
    if torch.backends.mps.is_available():
        yield Finding("devices", "mps", "ok", "Apple GPU")
    if not torch.cuda.is_available() and torch.version.cuda:
        told = f"this PyTorch is built for CUDA {torch.version.cuda}, but sees no GPU"
        yield Finding("devices", "cuda", "missing", told, "look at nvidia-smi and the driver's version")


def _extras() -> Iterator[Finding]:
    from crossguard.extras import extras, install, installed, missing

    if not extras():
        told = "crossguard is imported from a folder without being installed"
        yield Finding("extras", "crossguard", "missing", told, "pip install -e .  (in the checkout)")
    for name, wanted in extras().items():
        absent = missing(name)
        versions = ", ".join(f"{asked.split('>')[0].split('=')[0]} {installed(asked)}" for asked in wanted)
        if absent:
            yield Finding("extras", name, "missing", ", ".join(absent), install(name))
        else:
            yield Finding("extras", name, "ok", versions)


def _folders() -> Iterator[Finding]:
    import os

    from crossguard.data.cache import cache_folder, place_in_cache

    try:
        place_in_cache("doctor")
        yield Finding("folders", "cache", "ok", f"{cache_folder()} ({_size(cache_folder())})")
    except OSError as error:
        yield Finding("folders", "cache", "broken", str(error), "export CROSSGUARD_CACHE=FOLDER")
    try:
        from huggingface_hub.constants import HF_HUB_CACHE, HF_HUB_OFFLINE
    except Exception:
        return
    offline = "; offline: HF_HUB_OFFLINE is set" if HF_HUB_OFFLINE else ""
    yield Finding("folders", "hub cache", "ok", f"{HF_HUB_CACHE} ({_size(Path(HF_HUB_CACHE))}){offline}")
    if os.environ.get("CROSSGUARD_IMPORT"):
        yield Finding("folders", "CROSSGUARD_IMPORT", "ok", os.environ["CROSSGUARD_IMPORT"])


def _size(folder: Path) -> str:
    """Return how much a folder holds; links are not followed."""
    if not folder.is_dir():
        return "not there yet"
    total = sum(file.lstat().st_size for file in folder.rglob("*") if file.is_file() and not file.is_symlink())
    return f"{total / 1e6:,.1f} MB"


def _print(found: list[Finding]) -> None:
    from rich.console import Console
    from rich.table import Table

    from crossguard.progress import cell

    marks = {"ok": "[green]ok[/green]", "missing": "[yellow]missing[/yellow]", "broken": "[red]broken[/red]"}
    grid = Table(box=None, show_header=False, pad_edge=False)
    topic = ""
    for finding in found:
        if finding.topic != topic:
            topic = finding.topic
            grid.add_row(f"[bold]{topic}[/bold]", "", "")
        grid.add_row(cell(f"  {finding.name}"), marks[finding.state], cell(finding.detail))
    console = Console()
    console.print(grid)
    mends = [finding for finding in found if finding.mend]
    if mends:
        console.print("\n[bold]what mends it[/bold]")
        for finding in mends:
            console.print(cell(f"  {finding.name}: {finding.mend}"), soft_wrap=True)
