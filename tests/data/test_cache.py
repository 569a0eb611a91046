"""Folders that appear whole or not at all."""

import subprocess
import sys
from pathlib import Path

import pytest

from command_line import invoke
from crossguard.augment import augment
from crossguard.data import load_pairs, load_samples
from crossguard.data.cache import cache_folder, place_in_cache, whole_folder


def _hello(folder: Path) -> None:
    (folder / "file.txt").write_text("hello")


def test_builds_once(tmp_path: Path) -> None:
    built = []

    def build(folder: Path) -> None:
        built.append(folder)
        _hello(folder)

    for _ in range(2):
        folder = whole_folder(tmp_path / "deep" / "set", build)
        assert (folder / "file.txt").read_text() == "hello"
    assert len(built) == 1
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["set"]


def test_failed_build_leaves_nothing(tmp_path: Path) -> None:
    def build(folder: Path) -> None:
        _hello(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        whole_folder(tmp_path / "set", build)
    assert list(tmp_path.iterdir()) == []


def test_half_made_draft_is_not_taken_for_whole(tmp_path: Path) -> None:
    draft = tmp_path / ".set.abc"  # what a killed build leaves behind
    draft.mkdir()
    folder = whole_folder(tmp_path / "set", _hello)
    assert (folder / "file.txt").read_text() == "hello"


def test_first_of_two_builders_wins(tmp_path: Path) -> None:
    def build(folder: Path) -> None:
        _hello(folder)
        other = tmp_path / "set"
        other.mkdir()
        (other / "file.txt").write_text("first")

    folder = whole_folder(tmp_path / "set", build)
    assert (folder / "file.txt").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_unwritable_place_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        whole_folder(tmp_path / "file" / "set", _hello)


def test_cache_folder_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CROSSGUARD_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"
    monkeypatch.delenv("CROSSGUARD_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "crossguard"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "crossguard"


@pytest.fixture
def no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """A home folder that cannot be made (root may write everywhere else)."""
    for name in ("CROSSGUARD_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/dev/null/home")


@pytest.mark.parametrize(
    "use",
    [
        lambda pairs: load_pairs("emoji", split="test"),
        lambda pairs: load_samples("roads", split="test"),
        lambda pairs: augment(pairs, sources=["eda"], seed=0),
        lambda pairs: place_in_cache("some", "thing"),
    ],
    ids=["emoji", "roads", "augment", "place"],
)
def test_a_home_that_cannot_be_written_is_answered_with_the_setting(use, toy_pairs, no_home) -> None:
    with pytest.raises(NotADirectoryError, match="set CROSSGUARD_CACHE to a folder that can be written"):
        use(toy_pairs)


def test_no_home_at_all_is_answered_with_the_setting(monkeypatch: pytest.MonkeyPatch, no_home) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(FileNotFoundError, match="there is no home folder; set CROSSGUARD_CACHE"):
        cache_folder()


def test_what_is_in_a_cache_is_read_where_nothing_can_be_written(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("CROSSGUARD_CACHE", str(tmp_path))
    (tmp_path / "set").mkdir()
    monkeypatch.setattr("tempfile.TemporaryFile", lambda **_: pytest.fail("it was tried to write"))
    assert place_in_cache("set") == tmp_path / "set"


def test_a_verb_needs_no_home(no_home) -> None:
    assert "adaptive" in invoke("list", "attacks").stdout


@pytest.mark.slow
def test_the_command_line_needs_no_home(no_home) -> None:
    code = "from crossguard.cli import app; app()"
    done = subprocess.run([sys.executable, "-c", code, "list", "attacks"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
