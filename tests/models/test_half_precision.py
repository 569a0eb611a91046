"""Checkpoints in half precision are attacked and trained in single precision."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from crossguard.models import load_model
from families import FAMILIES
from fusion_models import make_captioner


@pytest.mark.parametrize("name", ["clip", "siglip", "blip", "albef", "captioner"])
def test_half_precision_is_read_as_single(name, tmp_path):
    (parts := tmp_path / "parts").mkdir()
    (make_captioner if name == "captioner" else FAMILIES[name])(parts).save_pretrained(folder := tmp_path / "model")
    state = load_file(folder / "model.safetensors")
    halved = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
    save_file(halved, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    if "dtype" in config:
        (folder / "config.json").write_text(json.dumps({**config, "dtype": "float16"}))
    weights = dict(load_model(folder).named_parameters())
    assert weights
    assert {value.dtype for value in weights.values()} == {torch.float32}
