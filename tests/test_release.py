"""What is published: metadata that agrees, links that lead somewhere, distributions that hold everything and install."""

import importlib.util
import json
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest
import yaml

import crossguard

ROOT = Path(__file__).parents[1]
METADATA = tomllib.loads((ROOT / "pyproject.toml").read_text())
URL = "https://example.org/owner/crossguard"


def tool(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_version_is_the_same_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == crossguard.__version__
    assert METADATA["project"]["dynamic"] == ["version"]
    assert f"## {crossguard.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_the_citation_names_authors_licence_and_papers():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert citation["authors"]
    assert citation["license"] == METADATA["project"]["license"]
    assert any("MMCert" in reference["title"] for reference in citation["references"])


def test_every_extra_of_the_metadata_is_in_the_install_page():
    page = (ROOT / "docs" / "install.md").read_text()
    for extra in METADATA["project"]["optional-dependencies"].keys() - {"dev", "docs"}:
        assert f"| `{extra}` |" in page, extra


def test_nobody_is_told_to_install_from_an_index_that_has_it_not():
    for path in [*ROOT.glob("src/**/*.py"), *ROOT.glob("src/**/*.yaml"), *ROOT.glob("docs/*.md"), ROOT / "README.md"]:
        assert not re.search(r"pip install ['\"]?crossguard", path.read_text(encoding="utf-8")), path


def test_a_readme_for_an_index_has_no_relative_link():
    release = tool("release")
    text = release.absolute((ROOT / "README.md").read_text(encoding="utf-8"), URL)
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    assert links
    assert all(link.startswith(("https://", "#")) for link in links)
    assert f"![The demo's report]({URL}/raw/main/docs/report.png)" in text
    known = tomllib.loads(release.addresses(URL))["project"]["urls"]
    assert known["Changelog"] == f"{URL}/blob/main/CHANGELOG.md"


def run(*command, **options):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, timeout=1500, **options)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def distributions(tmp_path_factory):
    out = tmp_path_factory.mktemp("dist")
    pytest.importorskip("build", reason="build is not installed: pip install build")
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "release.py", "--url", URL, "--out", out],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        env={**os.environ, "HOME": str(tmp_path_factory.mktemp("home"))},  # pip asks `rustc`, which may write there
    )
    if done.returncode and "Could not find a version" in done.stdout + done.stderr:
        pytest.skip("no package index can be reached")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (sdist,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
    return sdist, wheel


@pytest.mark.slow
def test_the_distributions_hold_what_they_should(distributions):
    sdist, wheel = distributions
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {
        "tests/conftest.py",
        "docs/index.md",
        "benchmarks",
        "tools/release.py",
        "CHANGELOG.md",
        "CITATION.cff",
        "constraints.txt",
    }
    assert wanted <= names
    with zipfile.ZipFile(wheel) as archive:
        files = set(archive.namelist())
        about = message_from_bytes(archive.read(next(name for name in files if name.endswith("METADATA"))))
    ours = {str(path.relative_to(ROOT / "src")) for path in (ROOT / "src" / "crossguard").rglob("*") if path.is_file()}
    ours = {name for name in ours if "__pycache__" not in name}
    assert ours <= files, sorted(ours - files)[:5]
    assert about["Version"] == crossguard.__version__
    assert {line.partition(",")[0] for line in about.get_all("Project-URL")} >= {"Homepage", "Source", "Changelog"}
    assert "](docs/" not in about.get_payload()


@pytest.mark.slow
def test_the_wheel_works_in_a_bare_environment(distributions, tmp_path, monkeypatch):
    """Installed from the index by its own metadata alone; takes minutes, most of them for PyTorch."""
    _, wheel = distributions
    monkeypatch.setenv("HOME", str(tmp_path))
    venv.create(tmp_path / "bare", with_pip=True)
    python = tmp_path / "bare" / "bin" / "python"
    surroundings = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", wheel, cwd=tmp_path, env=surroundings)
    command = tmp_path / "bare" / "bin" / "crossguard"
    assert run(command, "--version", cwd=tmp_path, env=surroundings).strip() == f"crossguard {crossguard.__version__}"
    found = json.loads(run(command, "doctor", "--json", cwd=tmp_path, env=surroundings))
    assert not [finding for finding in found if finding["state"] == "broken"]
    demo = next(finding for finding in found if finding["name"] == "demo")
    assert demo["mend"].startswith("pip install 'em-keyboard")
    assert json.loads(run(command, "list", "recipes", "--json", cwd=tmp_path, env=surroundings))
    code = "import crossguard as cg; print(cg.load_model('emoji-clip').name)"
    assert run(python, "-c", code, cwd=tmp_path, env=surroundings).strip() == "emoji-clip"
