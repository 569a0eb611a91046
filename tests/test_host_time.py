"""The benchmark of the library's own time runs, on a little of everything."""

import runpy
from pathlib import Path

import pytest
import torch


@pytest.mark.usefixtures("unchecked")
def test_every_line_is_measured_beside_its_aim(monkeypatch, capsys):
    script = Path(__file__).parents[1] / "benchmarks" / "host_time.py"
    little = ["--photos", "8", "--batch-size", "4", "--steps", "1", "--rounds", "1"]
    monkeypatch.setattr("sys.argv", [str(script), *little])
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    monkeypatch.setenv("RAYON_NUM_THREADS", "1")
    runpy.run_path(str(script), run_name="__main__")
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split()[-4:] == ["measured", "aim", "x", "aim"]
    names = [" ".join(line.split()[:2]) for line in lines]
    assert names == [
        *("step clean", "step tecoa", "step mat", "step mat+"),
        *("attack pgd", "attack word-swap", "attack sga", "attack adaptive"),
        *("evaluate clean", "evaluate pgd"),
    ]
    for line in lines:
        measured, aim, share = map(float, line.split()[2:])
        assert measured > 0
        assert share == pytest.approx(measured / aim, rel=0.01, abs=0.01)
