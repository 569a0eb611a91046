"""Folders of models in which something is missing, surplus, of another model, or a web page: one clear error each."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import open_clip_files
from crossguard.models import load_model
from families import FAMILIES
from fusion_models import make_captioner

NAMES = ("clip", "siglip", "blip", "albef", "captioner", "open-clip")
PAGE = "<!DOCTYPE html><html>not found</html>" + "x" * 99


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A good folder of every family."""
    place: Path = tmp_path_factory.mktemp("families")
    for name in NAMES:
        (parts := place / f"{name}-parts").mkdir()
        if name == "open-clip":
            open_clip_files.write(place / name, open_clip_files.released())
        else:
            make = make_captioner if name == "captioner" else FAMILIES[name]
            make(parts).save_pretrained(place / name)
    return place


def weights(folder):
    return next(folder.glob("*.safetensors"))


def change_weights(folder, change):
    state = load_file(weights(folder))
    change(state)
    save_file(state, weights(folder), metadata={"format": "pt"})


def lose_one(folder):
    change_weights(folder, lambda state: state.pop(sorted(state)[len(state) // 2]))


def add_one(folder):
    change_weights(folder, lambda state: state.update({"stranger.weight": torch.ones(2)}))


def widen_one(folder):
    def widen(state):
        key = sorted(key for key, value in state.items() if value.ndim)[len(state) // 2]
        state[key] = torch.ones(*state[key].shape[:-1], state[key].shape[-1] + 1)

    change_weights(folder, widen)


def page_as_weights(folder):
    weights(folder).write_text(PAGE)


def empty_weights(folder):
    weights(folder).write_bytes(b"")


def no_weights(folder):
    weights(folder).unlink()


def is_vocabulary(path):
    return any(part in path.name for part in ("token", "vocab", "merges", "spiece"))


def no_tokenizer(folder):
    for path in [path for path in folder.iterdir() if is_vocabulary(path)]:
        path.unlink()


def page_as_tokenizer(folder):
    for path in [path for path in folder.iterdir() if path.name in ("tokenizer.json", "vocab.txt", "vocab.json")]:
        path.write_text(PAGE)


def page_as_config(folder):
    for name in ("config.json", "open_clip_config.json"):
        if (folder / name).exists():
            (folder / name).write_text(PAGE)


DAMAGE = (
    lose_one,
    add_one,
    widen_one,
    page_as_weights,
    empty_weights,
    no_weights,
    no_tokenizer,
    page_as_tokenizer,
    page_as_config,
)


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_folder_is_refused_by_name(name, damage, folders, tmp_path):
    folder = tmp_path / name
    shutil.copytree(folders / name, folder)
    load_model(folder)
    damage(folder)
    with pytest.raises(ValueError, match="Expected") as told:
        load_model(folder)
    assert str(folder) in str(told.value) or "checkpoint" in str(told.value)


@pytest.mark.parametrize("name", NAMES)
def test_weights_of_another_family_are_refused(name, folders, tmp_path):
    folder = tmp_path / name
    shutil.copytree(folders / name, folder)
    other = NAMES[(NAMES.index(name) + 1) % len(NAMES)]
    shutil.copy(weights(folders / other), weights(folder))
    with pytest.raises(ValueError, match="Expected"):
        load_model(folder)


def test_an_empty_folder_and_an_unknown_config_are_refused(tmp_path):
    with pytest.raises(ValueError, match="Expected"):
        load_model(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "resnet"}))
    with pytest.raises(ValueError, match="Expected one of the model types .* says 'resnet'"):
        load_model(tmp_path)
