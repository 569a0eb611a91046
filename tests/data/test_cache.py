"""Folders that appear whole or not at all."""

from pathlib import Path

import pytest

from crossguard.data.cache import cache_folder, whole_folder


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
