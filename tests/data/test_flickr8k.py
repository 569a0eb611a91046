"""Real photos and captions through the JSON loader: evaluation, training and a recipe, on a model of random weights."""

import json
import os
from pathlib import Path

import pytest
import torch
import yaml

from crossguard.data import load_pairs
from crossguard.evaluate import evaluate
from crossguard.models import load_model
from crossguard.progress import Silent
from crossguard.recipes import open_run, perform_train, read_recipe
from crossguard.threat import LInf, ThreatModel, WordEdits
from crossguard.training import train
from shared import make_clip

HOME = os.environ.get("CROSSGUARD_DATA")
pytestmark = pytest.mark.skipif(not HOME, reason="CROSSGUARD_DATA does not say where the real data lie")
THREAT = ThreatModel(image=LInf(2 / 255), text=WordEdits(1))


@pytest.fixture(scope="module")
def photos():
    folder = Path(str(HOME)) / "flickr8k"
    return load_pairs("json", annotations=folder / "test.json", root=folder, verify=True)


def test_all_photos_and_captions(photos):
    rows = json.loads((Path(str(HOME)) / "flickr8k" / "test.json").read_text())
    assert len(photos.images) == len(rows) == 500
    assert set(photos.texts) == {text.strip() for row in rows for text in row["caption"]}
    assert all(len(photos.texts_of(i)) == len({t.strip() for t in row["caption"]}) for i, row in enumerate(rows))
    assert photos.image(0).mode == "RGB"


@pytest.mark.filterwarnings("ignore:.*tokens that .tiny. reads")
def test_evaluation_and_a_training(photos):
    few = photos.head(8)
    trained = train(make_clip(), few, defence="mat", threat=THREAT, steps=2, seed=0, batch_size=4)
    result = evaluate(trained, few, attack="pgd", attack_options={"steps": 2}, threat=THREAT.only("image"))
    assert len(result.rows) == 8 + len(few.texts)


@pytest.mark.filterwarnings("ignore:.*tokens that .* reads")
def test_a_training_recipe(tmp_path):
    folder = Path(str(HOME)) / "flickr8k"
    clean = make_clip()
    clean.save_pretrained(tmp_path / "start")
    data = {"annotations": str(folder / "test.json"), "root": str(folder)}
    recipe = {
        "verb": "train",
        "run": str(tmp_path / "run"),
        "model": str(tmp_path / "start"),
        "data": {"name": "json", "split": "test", "options": data},
        "defence": "mat+",
        "threat": {"image": {"eps": "2/255"}, "text": {"words": 1}},
        "max_samples": 6,
        "steps": 2,
        "batch_size": 3,
        "learning_rate": 1e-3,
        "weight_decay": 1e-4,
        "options": {"pgd_steps": 1},
        "seed": 0,
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    read = read_recipe(str(tmp_path / "recipe.yaml"))
    with open_run(read) as run:
        made = perform_train(read, run, progress=Silent())
    before, after = clean.state_dict(), load_model(made).state_dict()
    assert before.keys() == after.keys()
    assert all(bool(torch.isfinite(value).all()) for value in after.values())
    assert any(not torch.equal(before[key], after[key]) for key in before)
