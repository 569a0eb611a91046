"""The benchmark of GPUs runs, tiny and on a CPU, so that it cannot rot."""

import json
import runpy
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.usefixtures("unchecked")
def test_every_line_is_measured_beside_its_bare_passes(monkeypatch, capsys, tmp_path):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    for name in ("TOKENIZERS_PARALLELISM", "RAYON_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    little = ["--size", "tiny", "--device", "cpu", "--out", str(tmp_path / "gpu.json")]
    monkeypatch.setattr("sys.argv", ["gpu.py", *little])
    runpy.run_path(str(BENCHMARKS / "gpu.py"), run_name="__main__")
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert found["device"] == "cpu"
    assert list(found["lines"]) == [
        *("image tower, bf16, forward", "image tower, bf16, forward + backward"),
        *("image tower, fp32, forward", "image tower, fp32, forward + backward"),
        *("pgd", "word-swap", "sga", "adaptive", "mat step", "clean step"),
        *("evaluate clean", "evaluate pgd", "evaluate sga"),
        *("certify tiny, batch 2", "certify tiny, batch 2, bfloat16"),
    ]
    for line, figures in found["lines"].items():
        assert figures["per_second"] > 0, line
        if "tower" not in line:
            assert figures["share"] > 0, line
    shown = capsys.readouterr().out
    assert all(line in shown for line in found["lines"])
