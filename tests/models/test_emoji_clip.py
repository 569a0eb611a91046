"""The shipped checkpoint: small, whole, and able to do its task."""

import json
from importlib.resources import files
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from crossguard.data.emoji import load_emoji
from crossguard.models import CLIP, cosine, load_model

ASSETS = Path(str(files("crossguard.models"))) / "assets" / "emoji-clip"


@pytest.fixture(scope="module")
def model() -> CLIP:
    return load_model("emoji-clip")


def test_ships_whole_and_small() -> None:
    names = {path.name for path in ASSETS.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "recipe.yaml", "README.md"} <= names
    assert sum(path.stat().st_size for path in ASSETS.iterdir()) <= 8e6
    with safe_open(ASSETS / "model.safetensors", "pt") as weights:
        assert {weights.get_tensor(key).dtype for key in weights.keys()} == {torch.float16}  # noqa: SIM118


def test_loads_in_single_precision_and_survives_saving(model: CLIP, tmp_path: Path) -> None:
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    model.save_pretrained(tmp_path / "copy")
    copy = load_model(tmp_path / "copy")
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, copy.state_dict()[name]), name


def test_the_end_of_a_text_is_its_own_token(model: CLIP) -> None:
    """Transformers pools at `eos_token_id`, unless that is 2, which means something else."""
    end = model.network.config.text_config.eos_token_id
    assert end == model.tokenizer.eos_token_id != 2
    tokens = model.tokenize(["a red fox", "fox"])
    assert all((row == end).sum() == 1 for row in tokens.ids)


@torch.no_grad()
def test_padding_does_not_change_an_embedding(model: CLIP) -> None:
    short = "fox, animal nature face"
    alone = model.encode_text([short])
    padded = model.encode_text([short, "woman astronaut with medium dark skin tone, space rocket moon cosmonaut woman"])
    torch.testing.assert_close(alone[0], padded[0], rtol=1e-4, atol=1e-5)


def test_words_and_the_mask_have_tokens(model: CLIP) -> None:
    assert model.mask_token == "[MASK]"
    tokens = model.tokenize(["fox [MASK] astronaut"]).ids[0].tolist()
    assert model.tokenizer.mask_token_id in tokens
    assert len(tokens) == 5
    unknown = model.tokenize(["fox zyxwvu caf\u00e9!"]).ids[0].tolist()
    assert model.tokenizer.unk_token_id not in unknown


@torch.no_grad()
def test_test_split_is_solved_well_enough(model: CLIP) -> None:
    """At least 40 % TR@1 and IR@1 by a plain count; ties are misses."""
    pairs = load_emoji(split="test")
    assert len(pairs.images) >= 300
    images = model.encode_image(model.preprocess([pairs.image(i) for i in range(len(pairs.images))]))
    scores = cosine(images, model.encode_text(pairs.texts))
    true = torch.zeros(scores.shape, dtype=torch.bool)
    true[torch.from_numpy(pairs.links.copy()).unbind(1)] = True
    right, wrong = scores.where(true, -2.0), scores.where(~true, -2.0)
    assert 100 * (right.amax(1) > wrong.amax(1)).float().mean() >= 40
    assert 100 * (right.amax(0) > wrong.amax(0)).float().mean() >= 40


def test_config_is_of_transformers_layout() -> None:
    config = json.loads((ASSETS / "config.json").read_text())
    assert config["model_type"] == "clip"
    assert config["architectures"] == ["CLIPModel"]
