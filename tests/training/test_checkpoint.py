"""Checkpoints: back to the last bit, whole or refused."""

import pytest
import torch

from crossguard.training.checkpoint import load_checkpoint, save_checkpoint
from crossguard.training.optimiser import make_optimiser, select_trained
from shared import make_clip

SETTINGS = {"defence": "mat", "inner": {"steps": 2}, "seed": 0}


def start(seed=0, towers=("image", "text")):
    model = make_clip(seed)
    return model, make_optimiser(select_trained(model, towers), weight_decay=0.1)


def advance(model, optimiser, steps):
    for step in range(steps):
        pixels = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(step))
        loss = (model.encode_image(pixels) - model.encode_text(["a red disc"] * 4)).square().sum()
        loss.backward()
        for group in optimiser.param_groups:
            group["lr"] = 0.01
        optimiser.step()
        optimiser.zero_grad()


@pytest.mark.parametrize("towers", [("image", "text"), ("image",)])
def test_a_training_goes_on_to_the_same_bits(tmp_path, towers):
    model, optimiser = start(towers=towers)
    advance(model, optimiser, 3)
    save_checkpoint(tmp_path / "c", model, optimiser, step=3, settings=SETTINGS)
    advance(model, optimiser, 2)
    other, its_optimiser = start(seed=9, towers=towers)
    assert load_checkpoint(tmp_path / "c", other, its_optimiser, settings=SETTINGS) == 3
    advance(other, its_optimiser, 2)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


def test_nothing_there_is_a_fresh_start(tmp_path):
    assert load_checkpoint(tmp_path / "none", *start(), settings=SETTINGS) == 0


def test_a_later_checkpoint_takes_the_place_of_an_earlier(tmp_path):
    model, optimiser = start()
    for step in (1, 2):
        advance(model, optimiser, 1)
        save_checkpoint(tmp_path / "c", model, optimiser, step=step, settings=SETTINGS)
    assert [child.name for child in tmp_path.iterdir()] == ["c"]
    assert sorted(child.name for child in (tmp_path / "c").iterdir()) == [
        "model.safetensors",
        "optimizer.safetensors",
        "position.json",
    ]
    assert load_checkpoint(tmp_path / "c", *start(), settings=SETTINGS) == 2


def test_another_training_is_refused(tmp_path):
    save_checkpoint(tmp_path / "c", *start(), step=1, settings=SETTINGS)
    with pytest.raises(ValueError, match=r"`inner.steps` is 2 there and 3 now"):
        load_checkpoint(tmp_path / "c", *start(), settings={**SETTINGS, "inner": {"steps": 3}})


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.safetensors", "position.json"])
def test_a_broken_checkpoint_is_refused(tmp_path, file):
    model, optimiser = start()
    advance(model, optimiser, 1)
    save_checkpoint(tmp_path / "c", model, optimiser, step=1, settings=SETTINGS)
    path = tmp_path / "c" / file
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match="Expected a (whole checkpoint|checkpoint of this architecture)"):
        load_checkpoint(tmp_path / "c", *start(), settings=SETTINGS)


def test_another_architecture_is_refused(tmp_path):
    save_checkpoint(tmp_path / "c", *start(), step=1, settings=SETTINGS)
    narrow = torch.nn.Linear(3, 3)
    with pytest.raises(ValueError, match="Expected a checkpoint of this architecture"):
        load_checkpoint(
            tmp_path / "c", narrow, make_optimiser(list(narrow.parameters()), weight_decay=0.0), settings=SETTINGS
        )


def test_an_interrupted_write_leaves_the_earlier_checkpoint(tmp_path, monkeypatch):
    model, optimiser = start()
    save_checkpoint(tmp_path / "c", model, optimiser, step=1, settings=SETTINGS)

    def full(*_, **__):
        raise OSError("No space left on device")

    monkeypatch.setattr("crossguard.training.checkpoint.save_file", full)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(tmp_path / "c", model, optimiser, step=2, settings=SETTINGS)
    assert load_checkpoint(tmp_path / "c", *start(), settings=SETTINGS) == 1
    assert [child.name for child in tmp_path.iterdir()] == ["c"]
