"""The documentation as a site, and its tutorials as notebooks."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.md"))


def notebooks():
    spec = importlib.util.spec_from_file_location("notebooks", ROOT / "tools" / "notebooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_there_are_four_tutorials():
    assert [page.stem for page in TUTORIALS] == ["attack", "certify", "compare", "harden"]


@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_the_notebook_is_that_of_its_page(page):
    kept = page.with_suffix(".ipynb").read_text(encoding="utf-8")
    assert kept == notebooks().written(page.read_text(encoding="utf-8")), "run: python tools/notebooks.py"
    for cell in json.loads(kept)["cells"]:
        if cell["cell_type"] == "code":
            compile("".join(cell["source"]), page.name, "exec")


@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_links_of_tutorials_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#:]*)(?:#[^)]*)?\)", re.sub(r"```.*?```", "", page.read_text(), flags=re.S)):
        assert (page.parent / target).exists(), target


@pytest.mark.slow
@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_every_tutorial_runs_from_top_to_bottom(page, tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed: pip install nbclient ipykernel")
    nbformat = pytest.importorskip("nbformat")
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    book = nbformat.read(page.with_suffix(".ipynb"), as_version=4)
    kernel = {"metadata": {"path": str(tmp_path)}}
    done = nbclient.NotebookClient(book, timeout=900, kernel_name="python3", resources=kernel).execute()
    shown = [output for cell in done.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [output for output in shown if output.output_type == "error"]
    if page.stem in ("attack", "certify"):
        assert any("text/html" in output.get("data", {}) for output in shown)


@pytest.mark.slow
def test_the_site_builds_strictly_and_loads_nothing_from_elsewhere(tmp_path):
    pytest.importorskip("mkdocs", reason="mkdocs is not installed: pip install '.[docs]' in the checkout")
    pytest.importorskip("mkdocstrings", reason="mkdocstrings is not installed: pip install '.[docs]' in the checkout")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", tmp_path / "site"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > 35
    for page in pages:
        text = page.read_text(encoding="utf-8")
        loads = re.findall(r"<(?:script|img|iframe)[^>]+src=[\"']?(https?:[^\"' >]+)", text)
        loads += re.findall(
            r"<link[^>]+rel=[\"']?(?:stylesheet|preconnect|icon)[^>]*href=[\"']?(https?:[^\"' >]+)", text
        )
        assert loads == [], page.name
    reference = (tmp_path / "site" / "api" / "evaluate" / "index.html").read_text(encoding="utf-8")
    assert "threats_over" in reference
    assert (tmp_path / "site" / "search" / "search_index.json").stat().st_size > 100_000
