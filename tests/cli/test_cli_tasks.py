"""`crossguard evaluate` and `report` for grounding and captioning, from files as users have them to tables and pages."""

import json
import re

import numpy as np
import pytest

from command_line import said
from crossguard.evaluate import captioning_tokens
from fusion_models import make_captioner
from grounding_models import LAYER, make_grounder
from refcoco_files import write_refcoco
from shared import draw


@pytest.fixture
def grounding(tmp_path):
    """Overrides of the shipped recipe for a tiny ALBEF and tiny files."""
    make_grounder(tmp_path / "made").save_pretrained(tmp_path / "albef")
    files = write_refcoco(tmp_path / "data")
    options = [f"data.options.{name}={path}" for name, path in files.items()]
    return [
        "refcoco-grounding",
        f"model={tmp_path / 'albef'}",
        f"run={tmp_path / 'run'}",
        f"options.layer={LAYER}",
        *options,
    ]


def test_grounding_from_files_to_table_and_page(grounding, tmp_path):
    changes = ["attack.name=sep", "attack.options={steps: 2}", "threat.image.eps=0.3"]
    (row,) = json.loads(said("evaluate", *grounding, *changes, "-q", "--json"))
    assert (row["task"], row["model"], row["data"], row["split"]) == ("grounding", "albef", "refcoco+", "val")
    assert set(row["figures"]) == {"clean", "image", "text", "joint"}
    rows = [json.loads(line) for line in (tmp_path / "run" / "rows.jsonl").read_text().splitlines()]
    joint = [r for r in rows if r["section"] == "grounding/albef/joint"]
    assert len(rows) == 3 * 4
    assert row["figures"]["joint"]["accuracy"] == 100 * np.mean([r["robust_iou"] >= 0.5 for r in joint])
    figure = row["detail"]["joint"]["figures"]["accuracy"]
    assert (row["interval"]["joint"]["accuracy"], figure["n"]) == (None, 4)
    assert set(figure["by_group"]) == {r["image"] for r in joint}
    assert "the attack does not move them" in " ".join(row["notes"])
    page = (tmp_path / "run" / "report.html").read_text()
    assert 0 < page.count('<p class="tag">Without attack</p>') <= page.count('<span class="says">right overlap')
    assert "Visual grounding, clean and under attack" in page
    again = said("evaluate", *grounding, *changes, "-q")  # finished: read back
    assert "image only" in again
    assert "accuracy" in again
    assert len((tmp_path / "run" / "rows.jsonl").read_text().splitlines()) == 12
    assert "Visual grounding" in said("report", tmp_path / "run")
    assert json.loads(said("report", tmp_path / "run", "--json"))["results"] == [row]


def test_captioning_from_files_to_table_and_page(tmp_path, monkeypatch):
    pytest.importorskip("pycocoevalcap.bleu.bleu_scorer", reason="pycocoevalcap is not installed (extra `captions`)")
    monkeypatch.setattr(captioning_tokens.shutil, "which", lambda _: None)
    make_captioner(tmp_path / "made").save_pretrained(tmp_path / "captioner")
    rows = []
    for number, (colour, shape) in enumerate([("red", "disc"), ("blue", "square"), ("green", "cross")]):
        draw(colour, shape, "left").save(tmp_path / f"{number}.png")
        rows.append({"image": f"{number}.png", "caption": [f"a {colour} {shape}", f"the <b>{shape}</b> {colour}"]})
    (tmp_path / "test.json").write_text(json.dumps(rows))
    given = ["coco-captioning", f"model={tmp_path / 'captioner'}", f"run={tmp_path / 'run'}"]
    given += [f"data.options.annotations={tmp_path / 'test.json'}", f"data.options.root={tmp_path}"]
    given += ["threat.image.eps=0.3", "attack.options.steps=2", "options.max_length=12"]
    (row,) = json.loads(said("evaluate", *given, "-q", "--json"))
    assert (row["task"], row["samples"]) == ("captioning", "3 images with 6 references")
    assert list(row["figures"]["clean"]) == ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr"]
    assert set(row["success"]["image"]) == {"drop", "changed"}
    assert list(row["success"]["image"]["drop"]) == list(row["figures"]["clean"])
    notes = " ".join(row["notes"])
    assert "METEOR is missing: it needs Java" in notes
    assert "The attack raises the loss of the references" in notes
    page = (tmp_path / "run" / "report.html").read_text()
    assert page.count("<figcaption>adversarial</figcaption>") == 3
    assert "<span>the &lt;b&gt;disc&lt;/b&gt; red</span>" in page
    assert "captions changed" in said("evaluate", *given, "-q")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["task=retrieval"], "holds expressions, but this verb takes pairs"),
        (["options.beams=2"], "options.beams: unknown option of the task grounding"),
        (["task=groundin"], "task: unknown name 'groundin'; did you mean 'grounding'"),
        (["options.layers=3"], "did you mean 'layer'"),
        (["options.layer=9"], r"fusion layer in \[2, 5\), but got 9"),
        (["data.split=testC"], "Unknown split 'testC'"),
        (["data.options.boxes=nowhere"], "references in nowhere"),
    ],
)
def test_mistakes_are_told(grounding, changes, message):
    assert re.search(message, " ".join(said("evaluate", *grounding, *changes, code=2).split()))
