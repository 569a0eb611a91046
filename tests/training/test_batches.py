"""Pictures in memory or on demand, and steps as items of a data set."""

import numpy as np
import pytest
import torch
from training_helpers import Noted

from crossguard.data import OneToManyPairs, Picture
from crossguard.training import Composition, Pictures, StepBatches
from crossguard.training.batches import iterate
from shared import make_clip

COMPOSITION = Composition(8, one_to_many=True, texts_per_image=2, images_per_text=2)


def test_pictures_are_the_same_in_memory_and_on_demand(toy_pairs):
    model, noted = make_clip(), Noted()
    kept = Pictures(model, toy_pairs, progress=noted)
    asked = Pictures(model, toy_pairs, memory_limit=0)
    assert (kept.in_memory, asked.in_memory) == (True, False)
    ids = toy_pairs.links[[3, 0, 40], 0]
    assert torch.equal(kept[ids], asked[ids])
    assert torch.equal(kept[ids].float() / 255, model.preprocess([toy_pairs.image(int(i)) for i in ids]))
    assert [(task["title"], task["done"]) for task in noted.tasks] == [("read pictures", 24)]


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_come_in_order_from_any_step(toy_pairs, workers):
    pictures = Pictures(make_clip(), toy_pairs, memory_limit=0 if workers else 2**30)
    steps = StepBatches(toy_pairs, pictures, COMPOSITION, seed=4)
    found = list(iterate(steps, start=3, stop=6, workers=workers, device=torch.device("cpu")))
    assert len(found) == 3
    for step, batch in enumerate(found, start=3):
        expected = steps[step]
        assert torch.equal(batch.batch.pixels, expected.batch.pixels)
        assert batch.batch.texts == expected.batch.texts
        assert torch.equal(batch.targets, expected.targets)
        assert torch.equal(batch.batch.positives, batch.targets)


def test_a_missing_picture_is_named(tmp_path):
    pairs = OneToManyPairs("lost", "train", (Picture("a", tmp_path / "a.png"),), ("a cat",), np.array([[0, 0]]))
    with pytest.raises(ValueError, match=r"Expected an image file at .*a\.png"):
        Pictures(make_clip(), pairs)
