"""SigLIP: agreement with Transformers' own path, texts of fixed length, left-out patches."""

import json

import pytest
import torch
from transformers import SiglipModel

from crossguard.models import PatchModel, SigLIP, VisionLanguageModel, cosine, load_model
from families import make_siglip

TEXTS = ["a red disc", "a small picture of a blue square on the left side", "plain yellow cross"]


@pytest.fixture
def siglip():
    return make_siglip(side=24, width=32, layers=2, heads=4)


@pytest.fixture
def pixels():
    return torch.rand(3, 3, 24, 24, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_logits_equal_those_of_transformers(siglip, pixels, tmp_path):
    siglip.save_pretrained(tmp_path / "m")
    theirs = SiglipModel.from_pretrained(tmp_path / "m").eval()
    ids = siglip.tokenizer(TEXTS, padding="max_length", max_length=16, return_tensors="pt")["input_ids"]
    output = theirs(input_ids=ids, pixel_values=(pixels - 0.5) / 0.5)
    ours = cosine(siglip.encode_image(pixels), siglip.encode_text(TEXTS)) * siglip.logit_scale + siglip.logit_bias
    torch.testing.assert_close(ours, output.logits_per_image, atol=1e-5, rtol=1e-5)
    assert output.logits_per_image.std() > 0.01


@torch.no_grad()
def test_a_text_does_not_depend_on_its_batch(siglip):
    assert siglip.tokenize(TEXTS).ids.shape[1] == 13
    alone = torch.cat([siglip.encode_text([text]) for text in TEXTS])
    torch.testing.assert_close(siglip.encode_text(TEXTS), alone, atol=1e-6, rtol=1e-5)
    assert siglip.tokenize(["red " * 99]).ids.shape[1] == 16


def test_meets_the_protocols_and_returns_bit_equal(siglip, pixels, tmp_path):
    assert isinstance(siglip, VisionLanguageModel)
    assert isinstance(siglip, PatchModel)
    siglip.save_pretrained(tmp_path / "m")
    again = load_model(tmp_path / "m")
    assert isinstance(again, SigLIP)
    assert again.pixel_rule == siglip.pixel_rule
    assert torch.equal(again.encode_image(pixels), siglip.encode_image(pixels))
    assert torch.equal(again.encode_text(TEXTS), siglip.encode_text(TEXTS))


def test_a_file_without_some_weights_is_refused(siglip, tmp_path):
    siglip.save_pretrained(tmp_path / "m")
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    config["text_config"]["num_hidden_layers"] = 3
    (tmp_path / "m" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="whole SigLIP checkpoint"):
        load_model(tmp_path / "m")


def test_towers_hold_all_weights_but_scale_and_bias(siglip):
    parts = [{id(p) for p in siglip.tower(which)} for which in ("image", "text")]
    assert not parts[0] & parts[1]
    rest = [name for name, p in siglip.named_parameters() if id(p) not in set.union(*parts)]
    assert rest == ["network.logit_scale", "network.logit_bias"]
    with pytest.raises(ValueError, match="'image' or 'text'"):
        siglip.tower("fusion")


def test_an_image_without_patches_is_refused(siglip, pixels):
    kept = torch.ones(3, 9, dtype=torch.bool)
    kept[1] = False
    with pytest.raises(ValueError, match="at least one kept patch"):
        siglip.encode_image(pixels, kept)
