"""Real photos and captions through the JSON loader: every attack and a training, on a model of random weights."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from crossguard.attacks import ATTACKS, count_word_edits, make_attack
from crossguard.data import load_pairs
from crossguard.evaluate import evaluate
from crossguard.evaluate.batches import pair_batch
from crossguard.threat import LInf, ThreatModel, WordEdits
from crossguard.training import train
from shared import make_clip

HOME = os.environ.get("CROSSGUARD_DATA")
pytestmark = pytest.mark.skipif(not HOME, reason="CROSSGUARD_DATA does not say where the real data lie")
THREAT = ThreatModel(image=LInf(2 / 255), text=WordEdits(1))
SHORT = {"steps": 2, "scales": (0.5,), "rounds": 1}


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


@pytest.mark.parametrize("name", sorted(set(ATTACKS) & {"pgd", "apgd", "word-swap", "sep", "co-attack", "sga"}))
def test_attacks_stay_within_their_budget(photos, name):
    model = make_clip()
    batch = pair_batch(model, photos, np.arange(4))
    options = {
        "pgd": ["steps"],
        "apgd": ["steps"],
        "sep": ["steps"],
        "co-attack": ["steps"],
        "sga": ["steps", "scales"],
    }
    attack = make_attack(name, **{key: SHORT[key] for key in options.get(name, [])})
    found = attack(model, batch, threat=THREAT.only(*(m for m in THREAT if m in attack.uses)), seed=0)
    assert float((found.pixels - batch.pixels).abs().max()) <= 2 / 255 + 1e-6
    assert torch.equal((found.pixels * 255).round() / 255, found.pixels)
    assert max(count_word_edits(a, b) for a, b in zip(batch.texts, found.texts, strict=True)) <= 1


@pytest.mark.filterwarnings("ignore:.*tokens that .tiny. reads")
def test_evaluation_and_a_training(photos):
    few = photos.head(8)
    trained = train(make_clip(), few, defence="mat", threat=THREAT, steps=2, seed=0, batch_size=4)
    result = evaluate(trained, few, attack="pgd", attack_options={"steps": 2}, threat=THREAT.only("image"))
    assert len(result.rows) == 8 + len(few.texts)
