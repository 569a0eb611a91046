"""`crossguard evaluate` of classifiers and segmenters: from a model's folder to tables, rows and a page."""

import json
import re

import numpy as np
import pytest

from command_line import said
from crossguard.data import load_samples
from crossguard.models.road_net import RoadNet
from crossguard.models.watch_net import WatchNet

ROADS = {"size": [32, 64], "scenes": 9}


@pytest.fixture
def watch(tmp_path):
    """Overrides of the shipped recipe for an untrained model and a few windows."""
    pytest.importorskip("seglearn", reason="seglearn is not installed (extra `demo`)")
    WatchNet.for_samples(load_samples("watch", split="test"), seed=0).save_pretrained(tmp_path / "model")
    return [
        "watch-attack",
        f"model={tmp_path / 'model'}",
        f"run={tmp_path / 'run'}",
        "attack.options.steps=10",
        "max_samples=10",
        "batch_size=6",
    ]


def read_rows(folder):
    return [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]


def test_a_classifier_from_its_folder_to_table_and_page(watch, tmp_path):
    (row,) = json.loads(said("evaluate", *watch, "-q", "--json"))
    assert (row["task"], row["model"], row["data"], row["split"], row["attack"]) == (
        "classification",
        "watch-net",
        "watch",
        "test",
        "adaptive",
    )
    assert list(row["figures"]) == ["clean", "accelerometer", "gyroscope", "joint"]
    rows = read_rows(tmp_path / "run")
    assert len(rows) == 3 * 10
    joint = [r for r in rows if r["section"] == "classification/watch-net/joint"]
    right = sum(r["robust"] == r["label"] for r in joint)
    assert row["figures"]["joint"]["accuracy"] == pytest.approx(10 * right)
    figure = row["detail"]["joint"]["figures"]["accuracy"]
    assert (row["interval"]["joint"]["accuracy"], figure["n"]) == (None, 10)
    assert figure["why"] == "one group holds all samples"
    assert all(0 < r["linf"]["gyroscope"] <= 0.02 + 1e-6 for r in joint)
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Classification, clean and under attack" in page
    assert "accelerometer only" in page
    again = said("evaluate", *watch, "-q")  # finished: read back
    assert "gyroscope only" in again
    assert "10 samples have a true label" in again
    assert len(read_rows(tmp_path / "run")) == 30
    assert json.loads(said("report", tmp_path / "run", "--json"))["results"] == [row]


def test_a_segmenter_from_its_folder_to_table_and_page(tmp_path):
    samples = load_samples("roads", split="test", **ROADS)
    RoadNet.for_samples(samples, seed=0, encoder="tiny").save_pretrained(tmp_path / "model")
    recipe = {
        "verb": "evaluate",
        "task": "segmentation",
        "run": str(tmp_path / "run"),
        "model": str(tmp_path / "model"),
        "data": {"name": "roads", "options": ROADS},
        "attack": {"name": "sparse", "options": {"steps": 2, "rounds": 2}},
        "threat": {"modalities": {"rgb": {"elements": 300}, "depth": {"elements": 300}}},
        "options": {"positive": "road", "storage": {"depth": "millimetres"}},
        "max_samples": 2,
    }
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    (row,) = json.loads(said("evaluate", tmp_path / "recipe.yaml", "-q", "--json"))
    assert (row["task"], row["samples"]) == ("segmentation", "2 images")
    assert list(row["figures"]) == ["clean", "rgb", "depth", "joint"]
    assert set(row["figures"]["joint"]) == {"pixel accuracy", "IoU"}
    joint = [r for r in read_rows(tmp_path / "run") if r["section"] == "segmentation/road-net/joint"]
    total = {key: np.sum([r["robust"][key] for r in joint]) for key in joint[0]["robust"]}
    assert row["figures"]["joint"]["pixel accuracy"] == pytest.approx(100 * total["right"] / total["judged"])
    assert row["figures"]["joint"]["IoU"] == pytest.approx(
        100 * total["hits"] / (total["positives"] + total["false_alarms"])
    )
    assert all(0 < r["edited"]["rgb"] <= 300 and r["lost"] for r in joint)
    assert "Segmentation, clean and under attack" in (tmp_path / "run" / "report.html").read_text()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["attack.name=apg"], r"attack.name: unknown name 'apg'; did you mean 'apgd'"),
        (["attack={name: sga}"], "attack.name: expected an attack on samples, such as adaptive, but 'sga' needs texts"),
        (["attack.options.step=3"], "did you mean 'steps'"),
        (["threat.modalities.gyroscop={eps: 0.1}"], "did you mean 'gyroscope'"),
        (
            ["attack={name: square}", "threat.modalities.gyroscope={elements: 3}"],
            "gyroscope: expected `eps`, which attack 'square' takes",
        ),
        (["threat.modalities.gyroscope={}"], "expected one of eps, l2, elements, patch, but got none"),
        (["threat.image={eps: 0.1}"], "threat.image: expected it under threat.modalities"),
        (["task=retrieval"], "threat.modalities: expected it only with samples"),
        (["data.name=emoji"], "holds pairs, but this verb takes samples"),
        (["task=segmentation"], "Expected samples with masks"),
        (["options.positive=walking"], "options.positive: unknown option of the task classification"),
        (["options.storage.gyro=pixels"], "did you mean 'gyroscope'"),
        (["options.storage.gyroscope=pixel"], "did you mean 'pixels'"),
        (["options.objective=3"], "options: expected `objective`"),
        (["options.rerank=16"], "options.rerank: unknown option"),
        (["model=nowhere"], "model: 'nowhere' is no folder"),
    ],
)
def test_mistakes_are_told(watch, changes, message):
    assert re.search(message, " ".join(said("evaluate", *watch, *changes, code=2).split()))


def test_a_model_of_another_kind_is_told(watch, unchecked):
    text = said("evaluate", *watch, "model=emoji-clip", code=2)
    assert "model: expected a classifier or segmenter model" in text
