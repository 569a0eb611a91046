"""CLIP: agreement with Transformers' own path, padding and batching change nothing, a round trip is bit-equal."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPImageProcessorPil, CLIPModel

from crossguard.models import CLIP, VisionLanguageModel, cosine, load_model
from shared import make_clip

TEXTS = ["a red disc", "a small picture of a blue square on the left side", "plain yellow cross"]


def photos():
    generator = np.random.default_rng(0)
    return [
        Image.fromarray(generator.integers(0, 256, (h, w, 3), dtype=np.uint8))
        for h, w in ((30, 57), (41, 20), (16, 16))
    ]


def test_meets_the_protocol(tiny_clip):
    assert isinstance(tiny_clip, VisionLanguageModel)


def test_features_and_logits_equal_those_of_transformers(tiny_clip, tmp_path):
    tiny_clip.save_pretrained(tmp_path / "m")
    theirs = CLIPModel.from_pretrained(tmp_path / "m").eval()
    inputs = CLIPImageProcessorPil.from_pretrained(tmp_path / "m")(photos(), return_tensors="pt")
    tokens = tiny_clip.tokenizer(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        output = theirs(**inputs, input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"])
        ours = tiny_clip.logit_scale * cosine(
            tiny_clip.encode_image(tiny_clip.preprocess(photos())), tiny_clip.encode_text(TEXTS)
        )
    torch.testing.assert_close(ours, output.logits_per_image, atol=1e-5, rtol=1e-5)


def test_pixels_are_whole_grey_levels_in_the_unit_interval(tiny_clip):
    pixels = tiny_clip.preprocess(photos())
    assert pixels.shape == (3, 3, 16, 16)
    assert pixels.min() >= 0
    assert pixels.max() <= 1
    assert torch.equal(torch.round(pixels * 255) / 255, pixels)


def test_padding_does_not_change_an_embedding(tiny_clip):
    with torch.no_grad():
        together = tiny_clip.encode_text(TEXTS)
        alone = torch.cat([tiny_clip.encode_text([text]) for text in TEXTS])
    assert tiny_clip.tokenize(TEXTS).ids.shape[1] == 13  # begin + 11 words + end
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=1e-5)


def test_long_texts_are_cut_at_the_context_length(tiny_clip):
    assert tiny_clip.tokenize(["red " * 99]).ids.shape[1] == tiny_clip.context_length == 16


def test_round_trip_is_bit_equal(tiny_clip, tmp_path):
    tiny_clip.save_pretrained(tmp_path / "m")
    again = load_model(tmp_path / "m")
    assert {k: v.tolist() for k, v in again.state_dict().items()} == {
        k: v.tolist() for k, v in tiny_clip.state_dict().items()
    }
    assert again.pixel_rule == tiny_clip.pixel_rule
    with torch.no_grad():
        assert torch.equal(again.encode_text(TEXTS), tiny_clip.encode_text(TEXTS))
        pixels = tiny_clip.preprocess(photos())
        assert torch.equal(again.encode_image(pixels), tiny_clip.encode_image(pixels))


def test_seeds_decide_the_weights_and_leave_global_randomness_alone():
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    a, b, c = make_clip(0), make_clip(0), make_clip(1)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(a.network.visual_projection.weight, b.network.visual_projection.weight)
    assert not torch.equal(a.network.visual_projection.weight, c.network.visual_projection.weight)


def test_towers_hold_all_weights_but_the_temperature(tiny_clip):
    image, text = ({id(p) for p in tiny_clip.tower(which)} for which in ("image", "text"))
    assert not image & text
    rest = [name for name, p in tiny_clip.named_parameters() if id(p) not in image | text]
    assert rest == ["network.logit_scale"]
    with pytest.raises(ValueError, match="'image' or 'text'"):
        tiny_clip.tower("audio")


def test_gradients_reach_the_pixels(tiny_clip):
    pixels = tiny_clip.preprocess(photos()).requires_grad_()
    tiny_clip.encode_image(pixels).sum().backward()
    assert pixels.grad.abs().amax(dim=(1, 2, 3)).min() > 0


def test_a_name_survives_its_folder(tiny_clip, tmp_path):
    tiny_clip.name = "mine/\x1b[2J"
    tiny_clip.save_pretrained(tmp_path / "model")
    assert load_model(tmp_path / "model").name == "mine/\\x1b[2J"
    assert CLIP.from_pretrained(tmp_path / "model", name="other").name == "other"
    (tmp_path / "model" / "crossguard.json").write_text('{"name": [1]}')
    assert load_model(tmp_path / "model").name == "model"


class TestBrokenCheckpoints:
    @pytest.fixture
    def folder(self, tiny_clip, tmp_path):
        tiny_clip.save_pretrained(tmp_path / "m")
        return tmp_path / "m"

    def test_truncated_weights(self, folder):
        whole = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
        with pytest.raises(ValueError, match=r"broken|could not be read"):
            load_model(folder)

    def test_an_html_page_instead_of_weights(self, folder):
        (folder / "model.safetensors").write_text("<html>" + "x" * 99)
        with pytest.raises(ValueError, match=r"broken|could not be read"):
            load_model(folder)

    def test_missing_weights(self, folder):
        (folder / "model.safetensors").unlink()
        with pytest.raises(ValueError, match="Expected weights in .* none is there"):
            load_model(folder)

    def test_weights_of_another_architecture(self, folder):
        config = json.loads((folder / "config.json").read_text())
        config["vision_config"]["num_hidden_layers"] = 3
        (folder / "config.json").write_text(json.dumps(config))
        with pytest.raises(ValueError, match="missing_keys"):
            load_model(folder)

    def test_another_family(self, folder):
        (folder / "config.json").write_text('{"model_type": "bert"}')
        with pytest.raises(ValueError, match="model_type"):
            load_model(folder)

    def test_no_config(self, tmp_path):
        with pytest.raises(ValueError, match=r"config\.json"):
            load_model(tmp_path)


def test_unknown_names_are_refused_before_a_hub_is_asked():
    with pytest.raises(ValueError, match="did you mean 'emoji-clip'"):
        load_model("emoji-klip")
    with pytest.raises(ValueError, match="a folder must exist"):
        load_model("./nowhere/model")


def test_a_failed_save_leaves_the_old_model(tiny_clip, tmp_path, monkeypatch):
    tiny_clip.save_pretrained(tmp_path / "m")

    def full(self, folder):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(tiny_clip.pixel_rule), "save", full)
    with pytest.raises(OSError, match="No space"):
        make_clip(1).save_pretrained(tmp_path / "m")
    monkeypatch.undo()
    assert torch.equal(load_model(tmp_path / "m").network.logit_scale, tiny_clip.network.logit_scale)
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


def test_a_model_takes_the_place_of_models_alone(tiny_clip, tmp_path):
    (tmp_path / "empty").mkdir()
    for _ in range(2):
        tiny_clip.save_pretrained(tmp_path / "empty")
    (tmp_path / "empty" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="or a model's, but .* holds 1 other entries: notes.txt"):
        make_clip(1).save_pretrained(tmp_path / "empty")
    with pytest.raises(ValueError, match="holds 1 other entries: empty"):
        make_clip(1).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"Expected a folder for the model, but .*notes\.txt is a file"):
        make_clip(1).save_pretrained(tmp_path / "empty" / "notes.txt")
    assert (tmp_path / "empty" / "notes.txt").read_text() == "mine"
    assert torch.equal(load_model(tmp_path / "empty").network.logit_scale, tiny_clip.network.logit_scale)


def test_openai_tokenizers_spell_the_mask(unchecked):
    class Plain:
        mask_token, unk_token, eos_token, bos_token = None, "<|end|>", "<|end|>", "<|start|>"

    from crossguard.models.clip import spelt_mask

    assert spelt_mask(Plain) == "[UNK]"


def test_a_hub_id_that_cannot_be_had():
    with pytest.raises(ValueError, match="config of 'nobody/nothing' could not be had"):
        load_model("nobody/nothing", offline=True)


def test_a_hub_ids_family_is_read_from_its_config(monkeypatch, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    monkeypatch.setattr("crossguard.models.hub.list_repo_files", lambda name: ["config.json", "model.safetensors"])
    monkeypatch.setattr("crossguard.models.hub.snapshot_download", lambda name, **_: str(tmp_path))
    with pytest.raises(ValueError, match="Expected one of the model types .* says 'bert'"):
        load_model("somebody/bert")
