"""`crossguard doctor` and what it says about extras."""

import json
from importlib.metadata import PackageNotFoundError

import pytest
from typer.testing import CliRunner

from crossguard import extras
from crossguard.cli import app, doctor


def findings(result):
    return {(found["topic"], found["name"]): found for found in json.loads(result.stdout)}


def test_it_tells_versions_devices_extras_and_folders():
    done = CliRunner().invoke(app, ["doctor", "--json"])
    assert done.exit_code == 0, done.output
    found = findings(done)
    import torch

    assert found["versions", "torch"]["detail"] == torch.__version__
    assert found["devices", "cpu"]["state"] == "ok"
    assert ("folders", "cache") in found
    assert ("extras", "demo") in found
    assert "what it can" not in done.output


def test_what_is_missing_comes_with_the_command(monkeypatch):
    real = extras.version

    def version(name):
        if name in ("av", "librosa"):
            raise PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(extras, "version", version)
    done = CliRunner().invoke(app, ["doctor", "--json"])
    assert done.exit_code == 0
    found = findings(done)["extras", "video"]
    assert found["state"] == "missing"
    assert found["mend"].startswith("pip install 'av>=14' 'librosa>=0.10'")
    assert "what mends it" in CliRunner().invoke(app, ["doctor"]).stdout


def test_what_everything_needs_and_is_broken_is_an_error(monkeypatch):
    monkeypatch.setattr(doctor, "REQUIRED", ("no_such_package_at_all",))
    done = CliRunner().invoke(app, ["doctor", "--json"])
    assert done.exit_code == 1
    assert findings(done)["versions", "no_such_package_at_all"]["state"] == "broken"


@pytest.mark.parametrize("extra", ["demo", "video", "captions", "tracking"])
def test_every_extra_names_its_packages(extra):
    assert extras.install(extra).startswith("pip install '")
    assert f"(crossguard's extra '{extra}')" in extras.install(extra)


def test_without_an_installed_package_the_extra_is_named(monkeypatch):
    def requires(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(extras, "requires", requires)
    extras.extras.cache_clear()
    try:
        assert extras.install("video") == "install crossguard with its extra 'video'"
    finally:
        extras.extras.cache_clear()
