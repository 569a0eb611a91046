"""Files are whole or not there, rows survive a kill, and a run is taken up only with its own settings."""

import errno
import gc
import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import crossguard
from crossguard.runs import (
    Rows,
    RunBusy,
    RunFolder,
    atomic_folder,
    differences,
    lock,
    read_rows,
    safe_name,
    tidy,
    write_atomically,
    write_json,
)
from crossguard.runs.provenance import git_revision

SETTINGS = {"attack": {"name": "sga", "steps": 10}, "model": "emoji-clip"}


def disk_full(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def child(code, *arguments, **options):
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)], stdout=subprocess.PIPE, **options
    )


def test_a_file_is_replaced_as_a_whole(tmp_path):
    target = tmp_path / "deep" / "file.txt"
    write_atomically(target, "first")
    write_atomically(target, b"second")
    assert target.read_text() == "second"
    assert [path.name for path in target.parent.iterdir()] == ["file.txt"]


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch, broken):
    target = tmp_path / "file.txt"
    write_atomically(target, "old")
    monkeypatch.setattr(os, broken, disk_full)
    with pytest.raises(OSError, match=r"could not write \(No space left on device\).*unchanged.*file.txt") as caught:
        write_atomically(target, "new")
    assert caught.value.errno == errno.ENOSPC
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file.txt"]


def test_a_real_limit_in_the_middle_of_a_file_leaves_the_old_one(tmp_path):
    """The kernel stops the write after 4096 bytes, as a full disk would."""
    write_atomically(tmp_path / "file", "old")
    Rows(tmp_path / "rows.jsonl").append({"n": 0})
    process = child(
        """
        import resource, sys
        from pathlib import Path
        from crossguard.runs import Rows, write_atomically
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        folder = Path(sys.argv[1])
        rows = Rows(folder / "rows.jsonl")
        for write in (lambda: write_atomically(folder / "file", b"x" * 10000), lambda: rows.append({"x": "y" * 10000})):
            try:
                write()
            except OSError as error:
                print(error)
        rows.append({"n": 1})
        """,
        tmp_path,
    )
    said = process.communicate(timeout=60)[0].decode()
    assert process.returncode == 0
    assert said.count("File too large") == 2
    assert (tmp_path / "file").read_text() == "old"
    assert [row["n"] for row in Rows(tmp_path / "rows.jsonl")] == [0, 1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "rows.jsonl"]


def test_nan_is_refused(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert not list(tmp_path.iterdir())


def test_a_folder_is_whole_or_not_there(tmp_path):
    with atomic_folder(tmp_path / "model") as folder:
        (folder / "weights").write_text("1")
        assert not (tmp_path / "model").exists()

    def fail():
        with atomic_folder(tmp_path / "model") as folder:
            (folder / "weights").write_text("2")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert (tmp_path / "model" / "weights").read_text() == "1"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    with atomic_folder(tmp_path / "model") as folder:
        (folder / "other").write_text("3")
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["other"]


@pytest.mark.parametrize("target", [".", "..", "../here"])
def test_the_working_directory_is_not_replaced(tmp_path, monkeypatch, target):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(ValueError, match="Expected a folder of its own"), atomic_folder(target):
        pass
    assert [path.name for path in tmp_path.rglob("*")] == ["here"]


def test_a_folder_whose_last_step_fails_comes_back(tmp_path, monkeypatch):
    with atomic_folder(tmp_path / "model") as folder:
        (folder / "weights").write_text("1")
    replace = type(tmp_path).replace

    def failing(self, target):
        if self.name.endswith(".partial"):
            disk_full()
        return replace(self, target)

    def write_again():
        with atomic_folder(tmp_path / "model") as folder:
            (folder / "weights").write_text("2")

    monkeypatch.setattr(type(tmp_path), "replace", failing)
    with pytest.raises(OSError, match="No space left"):
        write_again()
    assert (tmp_path / "model" / "weights").read_text() == "1"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_what_killed_writers_left_is_cleared(tmp_path):
    (tmp_path / ".rows.json-abcdefgh.partial").write_text("half")
    (tmp_path / ".model-abcdefgh.partial").mkdir()
    (tmp_path / ".model.replaced").mkdir()
    (tmp_path / ".model.replaced" / "weights").write_text("old")
    (tmp_path / "counts").mkdir()
    (tmp_path / ".counts.replaced").mkdir()
    tidy(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["counts", "model"]
    assert (tmp_path / "model" / "weights").read_text() == "old"


def test_rows_that_are_a_folder(tmp_path):
    with RunFolder.open(tmp_path / "run", settings={}) as run:
        run.finish()
    (tmp_path / "run" / "rows.jsonl").mkdir()
    with pytest.raises(ValueError, match="Expected the rows of a run at .*, but got: Is a directory"):
        RunFolder(tmp_path / "run").read_rows()


def test_the_leftovers_of_one_name_alone(tmp_path):
    for name in (".a-abcdefgh.partial", ".ab-abcdefgh.partial", ".a-b-abcdefgh.partial", ".b-abcdefgh.partial"):
        (tmp_path / name).mkdir()
    (tmp_path / ".b.replaced").mkdir()
    tidy(tmp_path, name="a")
    others = [".a-b-abcdefgh.partial", ".ab-abcdefgh.partial"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [*others, ".b-abcdefgh.partial", ".b.replaced"]
    tidy(tmp_path, name="b")
    assert sorted(path.name for path in tmp_path.iterdir()) == [*others, "b"]


_KILLED = """
import os, signal, sys
from pathlib import Path
from crossguard.runs import files

target, how = Path(sys.argv[1]), sys.argv[2]
if how == "folder":
    with files.atomic_folder(target) as draft:
        (draft / "weights").write_text("half")
        os.kill(os.getpid(), signal.SIGKILL)
os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
files.write_atomically(target, "half")
"""


@pytest.mark.parametrize("how", ["file", "folder"])
def test_what_a_kill_left_is_gone_once_the_same_is_written_again(tmp_path, how):
    """With no run about it, as counts of a certificate or a model have none; who is still writing is left alone."""

    def write(name):
        if how == "file":
            write_atomically(tmp_path / name, "whole")
            return
        with atomic_folder(tmp_path / name) as draft:
            (draft / "weights").write_text("whole")

    for name in ("counts.npz", "counts.npz-2"):
        done = subprocess.run([sys.executable, "-c", _KILLED, str(tmp_path / name), how], check=False)
        assert done.returncode == -signal.SIGKILL
    left = {path.name for path in tmp_path.iterdir()}
    assert len(left) == 2
    assert all(name.startswith(".counts.npz-") for name in left)
    write("counts.npz")
    assert sorted(path.name for path in tmp_path.iterdir() if path.name not in left) == ["counts.npz"]
    (other,) = (path for path in tmp_path.iterdir() if path.name in left)
    assert other.name.startswith(".counts.npz-2-")
    with atomic_folder(tmp_path / "model") as draft:
        with atomic_folder(tmp_path / "model"):
            pass
        assert draft.is_dir()


@given(st.lists(st.dictionaries(st.text(), st.text() | st.integers() | st.none() | st.booleans()), max_size=8))
def test_rows_come_back_as_they_were(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    rows = Rows(path)
    rows.append(*values[:3])
    for value in values[3:]:
        rows.append(value)
    assert list(rows) == list(Rows(path)) == read_rows(path) == values
    assert len(rows) == len(values)


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_torn_last_row_is_dropped(tmp_path, cut):
    path = tmp_path / "rows.jsonl"
    Rows(path).append({"n": 1}, {"n": 2})
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    expected = [{"n": 1}] if cut < 10 else []
    assert read_rows(path) == expected
    assert path.read_bytes() == whole[:-cut]  # reading leaves the writer's file alone
    rows = Rows(path)
    assert list(rows) == expected
    rows.append({"n": 3})
    assert read_rows(path) == [*expected, {"n": 3}]


def test_a_full_disk_keeps_earlier_rows(tmp_path, monkeypatch):
    rows = Rows(tmp_path / "rows.jsonl")
    rows.append({"n": 1})
    monkeypatch.setattr(os, "fsync", disk_full)
    with pytest.raises(OSError, match="could not write"):
        rows.append({"n": 2}, {"n": 3})
    monkeypatch.undo()
    assert list(rows) == read_rows(tmp_path / "rows.jsonl") == [{"n": 1}]
    rows.append({"n": 4})
    assert read_rows(tmp_path / "rows.jsonl") == [{"n": 1}, {"n": 4}]


@pytest.mark.parametrize(("content", "said"), [("{]\n{}\n", "JSON in line 1"), ('{}\n["a"]\n', "object in line 2")])
def test_rows_of_something_else_are_refused(tmp_path, content, said):
    path = tmp_path / "rows.jsonl"
    path.write_text(content)
    for read in (Rows, read_rows):
        with pytest.raises(ValueError, match=said):
            read(path)


def test_a_kill_in_the_middle_of_writing_loses_nothing_that_was_said_to_be_kept(tmp_path):
    path = tmp_path / "run"
    process = child(
        """
        import sys
        from crossguard.runs import RunFolder
        run = RunFolder.open(sys.argv[1], settings={})
        n = 0
        while True:
            run.rows.append(*({"n": n + i, "filler": "x" * 5000} for i in range(20)))
            n += 20
            print(n, flush=True)
            run.summarise("kind", "name", {"n": n, "filler": ["y" * 100] * 200})
        """,
        path,
    )
    kept = 0
    started = time.monotonic()
    while time.monotonic() - started < 30 and kept < 200:
        kept = int(process.stdout.readline())
    process.send_signal(signal.SIGKILL)
    rest = process.communicate(timeout=30)[0].split()
    kept = int(rest[-1]) if rest else kept
    assert process.returncode == -signal.SIGKILL
    with RunFolder.open(path, settings={}) as run:  # the dead process holds no lock
        numbers = [row["n"] for row in run.rows]
        assert numbers == list(range(len(numbers)))
        assert len(numbers) >= kept >= 200
        assert kept - 20 <= run.summary["kind"]["name"]["n"] <= len(numbers)
        assert not [left for left in path.iterdir() if "partial" in left.name]


def test_a_run_says_what_it_is(tmp_path):
    with RunFolder.open(tmp_path / "run", settings=SETTINGS, seed=3, device="cpu", command=["crossguard", "x"]) as run:
        run.finish()
    info = json.loads((tmp_path / "run" / "run.json").read_text())
    assert info["schema"] == 1
    assert info["settings"] == SETTINGS == RunFolder(tmp_path / "run").settings
    assert info["seed"] == 3
    assert info["command"] == ["crossguard", "x"]
    assert {"crossguard", "torch", "transformers", "python"} <= set(info["versions"])
    assert info["device"] == "cpu"
    assert info["git"] is None or len(info["git"].rstrip("+")) == 40
    assert info["started"] <= info["finished"]


def test_the_git_revision_is_that_of_the_checkout():
    folder = os.path.dirname(crossguard.__file__)
    inside = subprocess.run(["git", "-C", folder, "ls-files", "--error-unmatch", "__init__.py"], capture_output=True)
    if inside.returncode:
        assert git_revision() is None
    else:
        head = subprocess.run(["git", "-C", folder, "rev-parse", "HEAD"], capture_output=True, text=True)
        assert git_revision().rstrip("+") == head.stdout.strip()


def test_a_run_is_taken_up_with_the_same_settings(tmp_path):
    with RunFolder.open(tmp_path / "run", settings=SETTINGS, seed=0) as run:
        run.rows.append({"n": 1})
        run.summarise("retrieval", "a", {"x": 1})
        started = run.info["started"]
    with RunFolder.open(tmp_path / "run", settings={**SETTINGS}, seed=0) as again:
        assert list(again.rows) == [{"n": 1}]
        assert again.info["started"] == started
        assert len(again.info["resumed"]) == 1
        again.summarise("retrieval", "b", {"x": 2})
        again.summarise("retrieval", "a", {"x": 3})
    assert RunFolder(tmp_path / "run").summary == {"schema": 1, "retrieval": {"a": {"x": 3}, "b": {"x": 2}}}
    assert RunFolder(tmp_path / "run").read_rows() == [{"n": 1}]


def test_other_settings_are_refused_by_name(tmp_path):
    with RunFolder.open(tmp_path / "run", settings=SETTINGS, seed=0) as run:
        run.rows.append({"n": 1})
    before = (tmp_path / "run" / "run.json").read_text()
    other = {"attack": {"name": "pgd", "steps": 10}, "model": "emoji-clip"}
    with pytest.raises(ValueError, match=r"`attack.name` is 'sga' there and 'pgd' now; `seed` is 0 there and 1 now"):
        RunFolder.open(tmp_path / "run", settings=other, seed=1)
    with pytest.raises(ValueError, match="`model` is 'emoji-clip' there and missing now"):
        RunFolder.open(tmp_path / "run", settings={"attack": SETTINGS["attack"]}, seed=0)
    assert (tmp_path / "run" / "run.json").read_text() == before


def test_a_run_without_results_makes_room_for_other_settings(tmp_path):
    RunFolder.open(tmp_path / "run", settings={"steps": "ten"}, seed=0).close()
    (tmp_path / "run" / ".rows.json-abcdefgh.partial").write_text("half")
    with RunFolder.open(tmp_path / "run", settings=SETTINGS, seed=1) as run:
        assert (run.settings, run.info["seed"], run.info["resumed"]) == (SETTINGS, 1, [])
        run.summarise("retrieval", "a", {"x": 1})
    with pytest.raises(ValueError, match="`seed` is 1 there and 2 now"):
        RunFolder.open(tmp_path / "run", settings=SETTINGS, seed=2)


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match=r"other files \(thesis.tex"):
        RunFolder.open(tmp_path, settings={})
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is a file"):
        RunFolder.open(tmp_path / "file", settings={})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "thesis.tex"]


def test_a_kill_before_the_first_file_was_whole_leaves_an_open_folder(tmp_path):
    (tmp_path / ".run.json-abc.partial").write_text('{"sche')
    (tmp_path / ".lock").touch()
    with RunFolder.open(tmp_path, settings={}) as run:
        assert run.settings == {}
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "run.json"]


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "Expected the run.json"), ("{", "Expected the run.json"), ("[]", "`schema`"), ('{"schema": 2}', "newer")],
)
def test_what_is_no_run_is_refused(tmp_path, content, said):
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    with pytest.raises(ValueError, match=said):
        RunFolder(tmp_path)


def test_a_run_that_was_only_read_cannot_be_written(tmp_path):
    with RunFolder.open(tmp_path / "run", settings={}) as run:
        pass
    for closed in (run, RunFolder(tmp_path / "run")):
        for write in (lambda r: r.rows, lambda r: r.summarise("a", "b", {}), lambda r: r.finish()):
            with pytest.raises(RuntimeError, match=r"opened with RunFolder\.open"):
                write(closed)


@pytest.mark.skipif(lock.fcntl is None, reason="no file locks here")
def test_two_processes_cannot_write_one_run(tmp_path):
    with RunFolder.open(tmp_path / "run", settings={}) as run:
        code = "import sys; from crossguard.runs import RunFolder; RunFolder.open(sys.argv[1], settings={})"
        process = child(code, tmp_path / "run", stderr=subprocess.PIPE)
        said = process.communicate(timeout=60)[1].decode()
        assert "another process has" in said
        assert RunFolder(tmp_path / "run").info["resumed"] == []  # reading is free
    assert run.info["finished"] is None


class TestOneWriter:
    def test_one_process_opens_a_run_once(self, tmp_path):
        (tmp_path / "link").symlink_to(tmp_path / "run")
        with RunFolder.open(tmp_path / "run", settings={}) as run:
            for path in (tmp_path / "run", tmp_path / "link", tmp_path / "x" / ".." / "run"):
                with pytest.raises(RunBusy, match="this process has .* open: close it first"):
                    RunFolder.open(path, settings={})
            run.rows.append({"n": 1})
        with RunFolder.open(tmp_path / "run", settings={}) as again:
            run.close()  # a second time, which frees nothing of the other's
            with pytest.raises(RunBusy):
                RunFolder.open(tmp_path / "run", settings={})
            assert len(again.rows) == 1

    def test_a_forgotten_run_is_free(self, tmp_path):
        run = RunFolder.open(tmp_path / "run", settings={})
        del run
        gc.collect()
        RunFolder.open(tmp_path / "run", settings={}).close()

    def test_a_refused_run_is_free(self, tmp_path):
        with RunFolder.open(tmp_path / "run", settings={"a": 1}) as run:
            run.rows.append({"n": 1})
        with pytest.raises(ValueError, match="they differ"):
            RunFolder.open(tmp_path / "run", settings={"a": 2})
        RunFolder.open(tmp_path / "run", settings={"a": 1}).close()

    def test_a_run_stays_where_it_is_when_the_working_directory_changes(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        with RunFolder.open("run", settings={}) as run:
            run.rows.append({"n": 1})
            (tmp_path / "elsewhere").mkdir()
            monkeypatch.chdir(tmp_path / "elsewhere")
            run.rows.append({"n": 2})
            run.summarise("kind", "name", {})
            run.finish()
        assert list((tmp_path / "elsewhere").iterdir()) == []
        assert len(RunFolder(tmp_path / "run").read_rows()) == 2


class TestLinksAreNotFollowed:
    @pytest.fixture
    def outside(self, tmp_path):
        (tmp_path / "outside").write_text("precious, no line end")
        return tmp_path / "outside"

    @pytest.fixture
    def run(self, tmp_path):
        with RunFolder.open(tmp_path / "run", settings={}) as run:
            run.rows.append({"n": 1})
            run.summarise("kind", "name", {})
        return tmp_path / "run"

    @pytest.mark.parametrize("name", ["rows.jsonl", ".lock", "run.json", "summary.json"])
    def test_files(self, run, outside, name):
        (run / name).unlink()
        (run / name).symlink_to(outside)

        def use():
            with RunFolder.open(run, settings={}) as opened:
                opened.rows.append({"n": 2})
                opened.summarise("kind", "name", {})

        with pytest.raises(ValueError, match=f"{name}.*is a link"):
            use()
        if name == "rows.jsonl":
            with pytest.raises(ValueError, match="is a link"):
                RunFolder(run).read_rows()
        assert outside.read_text() == "precious, no line end"

    def test_folders(self, run, tmp_path):
        (tmp_path / "other").mkdir()
        (tmp_path / "other" / ".x.partial").write_text("another's")
        (run / "counts").symlink_to(tmp_path / "other")
        (run / ".gone.partial").symlink_to(tmp_path / "other")
        with RunFolder.open(run, settings={}) as opened, pytest.raises(ValueError, match="counts, but it is a link"):
            opened.file("counts", "x.npz")
        assert [path.name for path in (tmp_path / "other").iterdir()] == [".x.partial"]
        assert not os.path.lexists(run / ".gone.partial")


def test_half_written_files_in_all_folders_of_a_run_are_cleared(tmp_path):
    RunFolder.open(tmp_path / "run", settings={}).close()
    for folder in ("counts", "adversarial/deep", "arm"):
        (tmp_path / "run" / folder).mkdir(parents=True)
        (tmp_path / "run" / folder / ".x-abc.partial").write_text("half")
    write_json(tmp_path / "run" / "arm" / "run.json", {})  # a run of its own, which someone may be writing
    RunFolder.open(tmp_path / "run", settings={}).close()
    assert [path.parent.name for path in (tmp_path / "run").rglob("*.partial")] == ["arm"]


@pytest.mark.parametrize(
    "key", ["settings", "seed", "command", "versions", "device", "git", "started", "resumed", "finished"]
)
def test_a_run_json_that_lacks_a_key(tmp_path, key):
    RunFolder.open(tmp_path / "run", settings={}).close()
    info = json.loads((tmp_path / "run" / "run.json").read_text())
    for damage in ({k: v for k, v in info.items() if k != key}, {**info, key: 1.5}):
        write_json(tmp_path / "run" / "run.json", damage)
        (tmp_path / "run" / "x").write_text("")
        for use in (lambda: RunFolder(tmp_path / "run"), lambda: RunFolder.open(tmp_path / "run", settings={})):
            with pytest.raises(ValueError, match=f"{key} is missing or of another kind"):
                use()


@pytest.mark.parametrize(
    "content", ['{"schema": 1, "kind": 3}', '{"schema": 1, "kind": {"a": 3}}', "[" * 10**5, "[]", ""]
)
def test_a_summary_of_another_shape(tmp_path, content):
    RunFolder.open(tmp_path / "run", settings={}).close()
    (tmp_path / "run" / "summary.json").write_text(content)
    with pytest.raises(ValueError, match=r"summary\.json"):
        assert RunFolder(tmp_path / "run").summary


def test_a_disk_that_is_full_while_tensors_are_written(tmp_path):
    """The kernel stops every write after 4096 bytes; each writer says so in words of its own."""
    process = child(
        """
        import resource, sys
        import torch
        from safetensors.torch import save_file
        from crossguard.runs import atomic_folder
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        writers = {
            "safetensors": lambda path: save_file({"a": torch.zeros(100_000)}, path),
            "torch": lambda path: torch.save({"a": torch.zeros(100_000)}, path),
            "plain": lambda path: path.write_bytes(bytes(100_000)),
        }
        for name, write in writers.items():
            try:
                with atomic_folder(sys.argv[1] + "/" + name) as folder:
                    write(folder / "weights")
            except OSError as error:
                print(name, error)
        """,
        tmp_path,
        stderr=subprocess.PIPE,
    )
    said, wrong = process.communicate(timeout=300)
    for writer, line in zip(("safetensors", "torch", "plain"), said.decode().splitlines(), strict=True):
        assert line.startswith(writer), wrong.decode()
        assert "could not write" in line
    assert list(tmp_path.iterdir()) == []


def test_folders_are_synced_after_a_rename(tmp_path, monkeypatch):
    synced = []
    fsync = os.fsync

    def noted(handle):
        synced.append(os.readlink(f"/proc/self/fd/{handle}"))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", noted)
    write_atomically(tmp_path / "a" / "file", "x")
    assert synced[-1] == str(tmp_path / "a")
    with atomic_folder(tmp_path / "model") as folder:
        (folder / "deep").mkdir()
        (folder / "deep" / "weights").write_text("1")
    assert synced[-1] == str(tmp_path)
    assert any(path.endswith("/deep") for path in synced)


def test_safe_names_stay_in_their_folder(tmp_path):
    RunFolder.open(tmp_path / "run", settings={}).close()
    run = RunFolder(tmp_path / "run")
    whole = run.file("adversarial", "mat+ (a/b)", "..")
    assert whole.parents[1] == tmp_path / "run" / "adversarial"
    assert whole.parent.name.startswith("mat+_a_b-")
    assert safe_name("../../etc/passwd").startswith("etc_passwd-")
    for plain in ("mat+", "emoji-clip", "alpha=0.5", "日本", "été"):
        assert safe_name(plain) == plain


def test_different_names_have_different_files():
    names = [
        "modèle α",
        "modèle β",
        "mat+ (joint)",
        "mat+ joint",
        "mat+_joint",
        "mat joint",
        "a/b",
        "a:b",
        "",
        ".",
        "..",
    ]
    assert len({safe_name(name) for name in names}) == len(names)
    assert all(safe_name(name).strip("._") and "/" not in safe_name(name) for name in names)


VALUES = st.recursive(st.integers() | st.text(), lambda inner: st.dictionaries(st.text("ab"), inner), max_leaves=5)


@settings(max_examples=40)
@given(st.dictionaries(st.text("ab"), VALUES), st.dictionaries(st.text("ab"), VALUES))
def test_differences_are_found_if_there_are_any(one, other):
    assert differences(one, one) == []
    assert bool(differences(one, other)) == (one != other)
    assert len(differences(one, other)) == len(differences(other, one))
