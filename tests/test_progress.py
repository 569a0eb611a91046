"""What a person sees of long work."""

import io

import pytest
from rich.console import Console

from crossguard import progress
from crossguard.progress import Bars, Lines, Reporter, Silent, reporter


def terminal():
    return Console(file=io.StringIO(), force_terminal=True, width=120, legacy_windows=False)


def work(reporter, title="Train", total=4, done=0, note="loss 0.5 [x]"):
    with reporter.task(title, total=total, done=done) as task:
        for _ in range(total - done):
            task.advance(note=note)


def test_silence_is_silent(capsys):
    work(Silent())
    assert capsys.readouterr() == ("", "")


def test_bars_show_counts_notes_and_rate():
    console = terminal()
    work(Bars(console))
    said = console.file.getvalue()
    assert "Train" in said
    assert "4/4" in said
    assert "loss 0.5 [x]" in said  # brackets are no markup


def test_a_bar_keeps_its_note_and_starts_where_it_was():
    console = terminal()
    with Bars(console).task("Resume", total=10, done=7) as task:
        task.advance(note="kept")
        task.advance()
    said = console.file.getvalue()
    assert "9/10" in said
    assert "kept" in said


def test_bars_can_be_nested_and_used_again():
    console = terminal()
    bars = Bars(console)
    with bars.task("outer", total=2) as outer:
        work(bars, "inner")
        outer.advance(2)
    work(bars, "next")
    said = console.file.getvalue()
    assert all(name in said for name in ("outer", "inner", "next"))


def test_an_error_inside_a_bar_frees_it():
    bars = Bars(terminal())

    def fail():
        with bars.task("broken", total=1):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    work(bars, "after")


def test_lines_are_few_and_end_with_the_last_step():
    stream = io.StringIO()
    work(Lines(Console(file=stream), every=1000.0), total=50, done=10)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "Train: 10/50"
    assert len(lines) == 2
    assert lines[1].startswith("Train: 50/50, ")
    assert lines[1].endswith(", loss 0.5 [x]")
    assert "0 s left" in lines[1]


def test_lines_come_as_time_passes(monkeypatch):
    clock = iter(float(i) for i in range(100))
    monkeypatch.setattr(progress, "monotonic", lambda: next(clock))
    stream = io.StringIO()
    work(Lines(Console(file=stream), every=5.0), total=6, note="")
    assert 2 < len(stream.getvalue().splitlines()) < 7


def test_the_place_decides():
    assert isinstance(reporter(quiet=True), Silent)
    assert isinstance(reporter(console=terminal()), Bars)
    assert isinstance(reporter(console=Console(file=io.StringIO())), Lines)
    assert isinstance(Silent(), Reporter)


@pytest.mark.parametrize(("speed", "said"), [(12.34, "12.3/s"), (1.0, "1.0/s"), (0.25, "4.0 s each")])
def test_rates_read_well(speed, said):
    assert progress._rate(speed) == said
