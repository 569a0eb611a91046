"""The pages on certifying run from top to bottom, on PyTorch, scikit-learn, ONNX and a segmenter."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from crossguard.certify import certify

DOCS = Path(__file__).parents[2] / "docs"


def run(page, names):
    for block in re.findall(r"^```python\n(.*?)^```", page, flags=re.M | re.S):
        exec(compile(block, "page", "exec"), names)
    return names


class Exported(torch.nn.Module):
    """What stands for the reader's own network in the ONNX file."""

    def forward(self, sound, motion):
        score = sound.mean(dim=(1, 2)) - motion.mean(dim=(1, 2))
        return -((score[:, None] - torch.tensor([0.0, 0.7, 1.4])) ** 2)


def exported(path):
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    helper, dtype = onnx.helper, onnx.TensorProto.FLOAT
    axes = onnx.numpy_helper.from_array(np.array([1, 2]), "axes")
    levels = onnx.numpy_helper.from_array(np.array([0.0, 0.7, 1.4], dtype=np.float32), "levels")
    column = onnx.numpy_helper.from_array(np.array([-1, 1]), "column")
    nodes = [
        helper.make_node("ReduceMean", ["sound", "axes"], ["a"], keepdims=0),
        helper.make_node("ReduceMean", ["motion", "axes"], ["b"], keepdims=0),
        helper.make_node("Sub", ["a", "b"], ["score"]),
        helper.make_node("Reshape", ["score", "column"], ["tall"]),
        helper.make_node("Sub", ["tall", "levels"], ["away"]),
        helper.make_node("Mul", ["away", "away"], ["square"]),
        helper.make_node("Neg", ["square"], ["logits"]),
    ]
    given = [helper.make_tensor_value_info(name, dtype, [None, *shape]) for name, shape in SHAPES.items()]
    taken = [helper.make_tensor_value_info("logits", dtype, [None, 3])]
    graph = helper.make_graph(nodes, "mine", given, taken, [axes, levels, column])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    path.write_bytes(model.SerializeToString())


SHAPES = {"sound": (20, 4), "motion": (12, 2)}


def test_the_page_on_ones_own_model_runs(tmp_path, monkeypatch):
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    monkeypatch.chdir(tmp_path)
    exported(tmp_path / "mine.onnx")
    names = run((DOCS / "certify-your-own.md").read_text(), {"ONNX_FILE": "mine.onnx"})
    session, test, keep = names["session"], names["test"], names["keep"]
    values = {m: torch.randn(5, *shape) for m, shape in SHAPES.items()}
    torch.testing.assert_close(session(values), Exported()(**values))
    with pytest.raises(ValueError, match="identity="):
        certify(session, test, keep=keep, draws=200, folder="runs/other")
    # The counts of one estimator are not those of another.
    other = names["Estimator"](names["KNeighborsClassifier"](1).fit(*names["sub_sampled"](names["train"], 1)))
    with pytest.raises(ValueError, match="same model and data"):
        certify(other, test, keep=keep, draws=200, folder="runs/neighbours")
    unattacked, attacked = names["pixels"].bounds([{}, {"rgb": 1, "depth": 1}])
    assert unattacked.accuracy > 0.9
    assert 0.5 < attacked.accuracy <= unattacked.accuracy
    assert (names["answers"] == names["certificate"].labels).all()


def test_the_blocks_of_the_guarantee_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = (DOCS / "guarantee.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", page, flags=re.M | re.S)
    assert len(blocks) == 3
    for block in blocks:
        exec(compile(block, "guarantee.md", "exec"), {})


@pytest.mark.parametrize("samples", [20, pytest.param(100, marks=pytest.mark.slow)])
def test_the_page_on_text_and_image_runs_and_says_what_it_finds(samples, capsys):
    page = (DOCS / "text-and-image.md").read_text()
    assert "drawn(100)" in page
    assert "steps=250" in page
    if samples < 100:  # less of it, so that it is quick
        page = page.replace("drawn(100)", f"drawn({samples})").replace("steps=250", "steps=100")
    names = run(page, {"__name__": "page"})
    told = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    found = {(int(words), float(eps)): tuple(map(float, shares)) for words, eps, *shares in told}
    cells = re.findall(r"^\| (\d), ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$", page, re.M)
    written = {(int(words), float(eps)): tuple(map(float, shares)) for words, eps, *shares in cells}
    assert written.keys() == found.keys()
    if samples == 100:
        for at, shares in written.items():  # training rounds otherwise on other machines
            assert found[at] == pytest.approx(shares, abs=10), at
    # Either modality alone says nothing, and what attacks both is certified by both methods together alone.
    assert 0.3 < names["train"].labels.mean() < 0.7
    assert found[3, 0.5][:2] == (0, 0)
    assert found[3, 0.5][2] > 20
