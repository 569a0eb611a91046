"""A full disk at any write, and signals at any moment: a sentence, an exit code, and the same end when taken up."""

import errno
import io
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest
from rich.console import Console
from typer.testing import CliRunner

from command_line import invoke
from crossguard.cli import app
from crossguard.cli.console import told_clearly
from crossguard.progress import Bars, Lines, cell
from shared import make_clip, write_annotations


@pytest.fixture
def home(tmp_path, toy_pairs):
    """A model, data and recipes of the verbs that write runs."""
    make_clip().save_pretrained(tmp_path / "clip")
    data = write_annotations(toy_pairs.head(6), tmp_path / "toy.json")
    common = {"model": str(tmp_path / "clip"), "data": data, "seed": 0}
    threat = {"image": {"eps": "4/255"}, "text": {"words": 1}}
    verbs = {
        "evaluate": {
            "attack": {"name": "co-attack", "options": {"steps": 1}},
            "threat": threat,
            "batch_size": 3,
            "modalities": False,
        },
        "train": {
            "defence": "mat",
            "threat": threat,
            "steps": 3,
            "batch_size": 2,
            "options": {"checkpoint_every": 1, "log_every": 1},
        },
        "augment": {"sources": [{"name": "eda"}, {"name": "crops"}], "per_sample": 1},
    }
    for verb, settings in verbs.items():
        recipe = {"verb": verb, "run": str(tmp_path / verb), **common, **settings}
        (tmp_path / f"{verb}.yaml").write_text(json.dumps(recipe))
    return tmp_path


def content(run):
    """What a run ends with: its rows, and the weights or pairs that it made."""
    files = [*run.glob("*.jsonl"), *run.glob("model/*.safetensors"), *run.glob("pairs/*")]
    found = {}
    for file in sorted(files):
        kept = file.read_bytes()
        if file.name == "training.jsonl":
            rows = [json.loads(line) for line in kept.splitlines()]
            kept = [
                {key: value for key, value in row.items() if key not in ("seconds", "pairs_per_second")} for row in rows
            ]
        found[file.name] = kept
    return found


@pytest.mark.parametrize("verb", ["evaluate", "train", "augment"])
def test_a_disk_that_is_full_at_any_write(home, monkeypatch, verb):
    """Now and then a write fails, ever less often; what was kept before is taken up again until all is done."""
    sync, calls, failures = os.fsync, [0], [0]

    def full_at_times(handle):
        calls[0] += 1
        if calls[0] > 3 + 5 * failures[0] ** 2:
            failures[0] += 1
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(handle)

    monkeypatch.setattr(os, "fsync", full_at_times)
    recipe, run = home / f"{verb}.yaml", home / verb
    for _ in range(40):
        told = CliRunner().invoke(app, [verb, str(recipe), "-q"], env={"COLUMNS": "200", "NO_COLOR": "1"})
        if told.exit_code == 0:
            break
        assert told.exit_code == 1, told.output
        assert "No space left on device" in told.stderr
        assert "Traceback" not in told.output
    else:
        raise AssertionError("it never ends")
    assert failures[0] > 1
    monkeypatch.undo()
    undisturbed = home / "undisturbed"
    invoke(verb, recipe, f"run={undisturbed}", "-q")
    first, second = content(run), content(undisturbed)
    assert first.keys() == second.keys()
    for name, kept in first.items():
        if name == "training.jsonl":
            kept = list({row["step"]: row for row in kept}.values())
        if name != "pairs.json":  # holds the folder's own name
            assert kept == second[name], name
    assert not list(run.rglob("*.partial"))


def run_in_a_copy(arguments, said):
    """Run the command line in a copy of this process, which need not import everything again."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    with said.open("w") as file:
        os.dup2(file.fileno(), 2)
        sys.stderr = file
        app(arguments)


@pytest.fixture(params=["copy", pytest.param("process", marks=pytest.mark.slow)])
def start(request, tmp_path):
    """What starts the command line and returns (its id, what waits for its exit code and what it said)."""
    said = tmp_path / "said"

    def copy(arguments, number):
        process = multiprocessing.get_context("fork").Process(target=run_in_a_copy, args=(arguments, said))
        process.start()

        def wait():
            process.join(60)
            process.kill()  # it has ended, unless the signal was lost
            return process.exitcode, said.read_text()

        return process.pid, wait

    def other(arguments, number):
        # Whoever started the tests may ignore the signal (`nohup`), which a process would inherit.
        default = "signal.default_int_handler" if number == signal.SIGINT else "signal.SIG_DFL"
        script = f"import signal; signal.signal({number.value}, {default}); from crossguard.cli import app; app()"
        process = subprocess.Popen(
            [sys.executable, "-c", script, *arguments], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

        def wait():
            told = process.communicate(timeout=60)[1]
            return process.returncode, told

        return process.pid, wait

    return copy if request.param == "copy" else other


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGTERM, 143),
        pytest.param(signal.SIGHUP, 129, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_a_signal_ends_with_its_code_and_the_same_command_goes_on(home, start, number, code):
    run = home / "signalled"
    arguments = ["train", str(home / "train.yaml"), f"run={run}", "steps=100000", "options.checkpoint_every=2"]
    pid, wait = start([*arguments, "device=cpu"], number)
    rows = run / "training.jsonl"
    began = time.monotonic()
    while not (rows.exists() and rows.read_text().count("\n") > 3) and time.monotonic() - began < 120:
        time.sleep(0.05)
    os.kill(pid, number)
    ended, said = wait()
    assert ended == code
    assert "the same command goes on where it stopped" in said
    assert "Traceback" not in said
    assert (run / "checkpoint-mat" / "position.json").is_file()
    assert not list(run.rglob("*.partial"))


def test_signals_that_are_ignored_stay_so():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with told_clearly():
            os.kill(os.getpid(), signal.SIGHUP)  # as under nohup
            assert signal.getsignal(signal.SIGTERM) != signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


EVIL = "[/] [red]x[/red] \x1b[2J\x07.jpg"


def test_names_are_neither_markup_nor_commands():
    console = Console(record=True, force_terminal=True, width=200, file=io.StringIO())
    console.print(cell(EVIL))
    for reporter in (Bars(console), Lines(console)):
        with reporter.task(EVIL, total=1) as task:
            task.advance(note=EVIL)
    text = console.export_text(styles=False)
    assert text.count("[/] [red]x[/red] \\x1b[2J\\x07.jpg") >= 3
    assert "\x07" not in text


def test_names_in_errors_and_notes(home, capsys):
    from crossguard.recipes.perform import tell_notes

    told = invoke("evaluate", home / "evaluate.yaml", f"data.options.annotations={json.dumps(EVIL)}", code=2)
    assert "\x1b[2J" not in told.stderr
    assert "\\x1b[2J" in told.stderr
    tell_notes("a\x1b[2J", [EVIL])
    assert "\x1b" not in capsys.readouterr().err
