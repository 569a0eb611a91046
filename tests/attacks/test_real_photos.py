"""Real photos with all their human captions: every family of image-text models meets every attack of the table."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from quick import QUICK, quick, threat

from crossguard.attacks import ATTACKS, count_word_edits, make_attack, save_adversarial
from crossguard.data import load_pairs
from crossguard.evaluate.batches import pair_batch
from crossguard.models import PatchModel, load_model
from families import FAMILIES
from open_clip_files import released, write

HOME = os.environ.get("CROSSGUARD_DATA")
pytestmark = pytest.mark.skipif(not HOME, reason="CROSSGUARD_DATA does not say where the real data lie")
MAKERS = FAMILIES | {"open-clip": lambda folder: load_model(write(folder, released()))}
GREYS, PHOTOS = 6, 6  # sparse: two of four patches


@pytest.fixture(scope="module")
def photos():
    folder = Path(str(HOME)) / "flickr8k"
    return load_pairs("json", annotations=folder / "test.json", root=folder).head(PHOTOS)


@pytest.fixture(scope="module")
def batches(photos, tmp_path_factory):
    models = {name: make(tmp_path_factory.mktemp(name)) for name, make in MAKERS.items()}
    return {name: (model, pair_batch(model, photos, np.arange(PHOTOS))) for name, model in models.items()}


def check(batch, found, budget, attack, *, grid=None):
    """Counted here, not taken from what the attack says of itself."""
    moved = (found.pixels - batch.pixels).abs()
    assert found.pixels.shape == batch.pixels.shape
    assert torch.isfinite(found.image_drop).all()
    assert torch.isfinite(found.text_drop).all()
    assert float(found.pixels.min()) >= 0
    assert float(found.pixels.max()) <= 1
    torch.testing.assert_close(found.pixels * 255, (found.pixels * 255).round(), atol=1e-3, rtol=0)
    if grid is not None:
        rows, columns = grid
        parts = moved.amax(dim=1).unflatten(2, (columns, -1)).unflatten(1, (rows, -1)).amax(dim=(2, 4))
        assert int((parts > 0).sum(dim=(1, 2)).max()) <= budget["image"].r
    else:
        assert float(moved.max()) <= GREYS / 255 + 1e-6
    edits = [count_word_edits(a, b) for a, b in zip(batch.texts, found.texts, strict=True)]
    assert all(n is not None and n <= 1 for n in edits)
    # Whoever may change a side does so; adaptive keeps a photo clean where the clean one serves it better.
    changed = moved.amax(dim=(1, 2, 3)) > 0
    assert bool(changed.any() if attack.name == "adaptive" else changed.all()) == ("image" in attack.uses)
    assert any(edits) == ("text" in attack.uses)


def test_no_attack_is_left_out():
    assert set(QUICK) | {"saved"} == set(ATTACKS)


@pytest.mark.parametrize("family", MAKERS)
@pytest.mark.parametrize("name", QUICK)
def test_every_attack_keeps_its_budget(batches, family, name):
    model, batch = batches[family]
    before = batch.pixels.clone()
    assert len(batch.texts) == 5 * PHOTOS
    budget, attack = threat(GREYS, 1, name), quick(name)
    if name == "sparse" and not isinstance(model, PatchModel) and not hasattr(model, "patch_grid"):
        with pytest.raises(ValueError, match="Expected a model with a `patch_grid`"):
            attack(model, batch, threat=budget, seed=3)
        return
    found = attack(model, batch, threat=budget, seed=3)
    check(batch, found, budget, attack, grid=model.patch_grid if name == "sparse" else None)
    assert torch.equal(batch.pixels, before)


@pytest.mark.parametrize("family", MAKERS)
def test_what_was_found_is_saved_and_met_again(batches, photos, family, tmp_path):
    model, batch = batches[family]
    budget = threat(GREYS, 1)
    found = quick("sga")(model, batch, threat=budget, seed=3)
    save_adversarial(
        tmp_path / "set", [(batch, found)], pairs=photos, threat=budget, model=model.name, attack="sga", seed=3
    )
    saved = make_attack("saved", folder=tmp_path / "set")
    again = saved(model, batch, threat=budget, seed=0)
    check(batch, again, budget, saved)
    assert torch.equal(again.pixels, found.pixels)
    assert again.texts == found.texts
