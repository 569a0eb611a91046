"""open_clip's files: against a second implementation, and against open_clip itself where it is installed."""

import importlib.metadata
import importlib.util
import json
import os
import re
import sys
import types
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, CLIPModel

import clip_reference
from crossguard.models import CLIP, load_model
from crossguard.models.clip_resnet import ResNetCLIPNetwork
from crossguard.models.open_clip import KNOWN, convert_open_clip, read_config
from crossguard.models.originals import check_shapes
from open_clip_files import MODEL, released, tokenizer_with_ends_last, write

TEXTS = ["a red disc", "a small picture of a blue square on the left side", "plain yellow cross"]


@pytest.fixture
def pixels():
    return torch.rand(3, 3, 24, 24, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("quick", [True, False])
@torch.no_grad()
def test_embeddings_equal_the_second_implementation(tmp_path, pixels, quick):
    state = released()
    model = load_model(write(tmp_path / "m", state, MODEL | {"quick_gelu": quick}))
    assert isinstance(model, CLIP)
    tokens = model.tokenize(TEXTS)
    image = clip_reference.vit_image(state, pixels, 4, quick=quick)
    text = clip_reference.text(state, tokens.ids, tokens.mask.sum(1) - 1, 3, quick=quick)
    torch.testing.assert_close(model.encode_image(pixels), image, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(model.encode_text(TEXTS), text, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(model.logit_scale, torch.tensor(2.0).exp())


@pytest.fixture
def open_clip(monkeypatch):
    """open_clip's model file alone: its package asks for torchvision, which its plain CLIP does not use."""
    spec = importlib.util.find_spec("open_clip")
    if spec is None:
        pytest.skip("open_clip is not installed (pip install --no-deps open_clip_torch)")
    package = types.ModuleType("open_clip")
    package.__path__ = list(spec.submodule_search_locations)
    stand_in = types.ModuleType("torchvision.ops.misc")
    stand_in.FrozenBatchNorm2d = type("FrozenBatchNorm2d", (torch.nn.Module,), {})
    for name, module in (
        ("open_clip", package),
        ("torchvision", types.ModuleType("torchvision")),
        ("torchvision.ops", types.ModuleType("torchvision.ops")),
        ("torchvision.ops.misc", stand_in),
    ):
        monkeypatch.setitem(sys.modules, name, module)
    yield importlib.import_module("open_clip.model")
    for name in [name for name in sys.modules if name.startswith("open_clip.")]:
        del sys.modules[name]


@pytest.mark.parametrize("file", ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"])
@torch.no_grad()
def test_embeddings_equal_those_of_open_clip(open_clip, tmp_path, pixels, file):
    theirs = open_clip.CLIP(**MODEL).eval()
    theirs.load_state_dict(released())
    model = load_model(write(tmp_path / "m", theirs.state_dict(), file=file))
    tokens = model.tokenize(TEXTS)
    normal = (pixels - model._mean) / model._std
    torch.testing.assert_close(model.encode_image(pixels), theirs.encode_image(normal), atol=1e-5, rtol=1e-5)
    padded = torch.nn.functional.pad(tokens.ids * tokens.mask, (0, 16 - tokens.ids.shape[1]))
    torch.testing.assert_close(model.encode_text(TEXTS), theirs.encode_text(padded), atol=1e-5, rtol=1e-5)


def test_it_saves_itself_in_the_layout_of_transformers(tmp_path, pixels):
    model = load_model(write(tmp_path / "m", released(), resize_mode="squash", interpolation="bilinear"))
    assert (model.pixel_rule.crop, model.pixel_rule.resample) == (False, 2)
    model.save_pretrained(tmp_path / "again")
    again = load_model(tmp_path / "again")
    assert again.pixel_rule == model.pixel_rule
    assert torch.equal(again.encode_image(pixels), model.encode_image(pixels))
    assert torch.equal(again.encode_text(TEXTS), model.encode_text(TEXTS))


def test_training_checkpoints_and_old_buffers(tmp_path, pixels):
    whole = load_model(write(tmp_path / "a", released()))
    state = {f"module.{key}": value for key, value in released().items()} | {"module.attn_mask": torch.ones(16, 16)}
    folder = write(tmp_path / "b", released(), file="open_clip_pytorch_model.bin")
    torch.save({"epoch": 3, "state_dict": state}, folder / "open_clip_pytorch_model.bin")
    assert torch.equal(load_model(folder).encode_image(pixels), whole.encode_image(pixels))


class TestRefused:
    @pytest.mark.parametrize(
        ("model", "message"),
        [
            (MODEL | {"vision_cfg": MODEL["vision_cfg"] | {"timm_model_name": "vit"}}, r"vision_cfg\.timm_model_name"),
            (MODEL | {"vision_cfg": MODEL["vision_cfg"] | {"layers": [3, 4, 6, 3]}}, "unknown .vision_model"),
            (MODEL | {"custom_text": True}, r"model_cfg\.custom_text"),
            (MODEL | {"text_cfg": MODEL["text_cfg"] | {"hf_model_name": "roberta"}}, r"text_cfg\.hf_model_name"),
            (MODEL | {"vision_cfg": MODEL["vision_cfg"] | {"layers": 3}}, r"16 keys are missing"),
            (MODEL | {"text_cfg": MODEL["text_cfg"] | {"vocab_size": 99}}, r"instead of \[99, 24\]"),
        ],
    )
    def test_other_architectures(self, tmp_path, model, message):
        with pytest.raises(ValueError, match=message):
            load_model(write(tmp_path / "m", released(), model))

    def test_surplus_keys(self, tmp_path):
        with pytest.raises(ValueError, match=r"unknown \(visual\.attn_pool\)"):
            load_model(write(tmp_path / "m", released() | {"visual.attn_pool": torch.ones(1)}))

    def test_other_families(self):
        with pytest.raises(ValueError, match=r"lacks \['visual\.proj'"):
            convert_open_clip({"visual_encoder.pos_embed": torch.ones(1)})

    def test_no_weights(self, tmp_path):
        (write(tmp_path / "m", released()) / "open_clip_model.safetensors").unlink()
        with pytest.raises(ValueError, match="none is there"):
            load_model(tmp_path / "m")

    def test_a_web_page(self, tmp_path):
        folder = write(tmp_path / "m", released(), file="open_clip_pytorch_model.bin")
        (folder / "open_clip_pytorch_model.bin").write_text("<html>not found</html>")
        with pytest.raises(ValueError, match="web page"):
            load_model(folder)

    def test_a_tokenizer_that_ends_texts_otherwise(self, tmp_path):
        folder = write(tmp_path / "m", released())
        other = tokenizer_with_ends_last()
        other.eos_token = "[PAD]"
        other.save_pretrained(folder)
        with pytest.raises(ValueError, match="ends texts with id"):
            load_model(folder)

    def test_unknown_resizing(self, tmp_path):
        with pytest.raises(ValueError, match="'longest'"):
            load_model(write(tmp_path / "m", released(), resize_mode="longest"))


def test_shipped_configs_have_the_shapes_of_open_clip(open_clip, tmp_path):
    """At full size, without memory: what we make of a config fits the weights that open_clip makes of it."""
    folder = Path(open_clip.__file__).parent / "model_configs"
    for name in ("ViT-B-32-quickgelu", "ViT-L-14-336", "RN50", "RN101-quickgelu"):
        values = json.loads((folder / f"{name}.json").read_text())
        with torch.device("meta"):
            theirs = open_clip.CLIP(**values).state_dict()
            config = read_config(values, tmp_path)
            ours = (ResNetCLIPNetwork if isinstance(config, dict) else CLIPModel)(config).state_dict()
        check_shapes(convert_open_clip(theirs), ours, family=name)


def test_shipped_configs_are_taken_or_named(open_clip, tmp_path):
    taken, refused = set(), set()
    folder = Path(open_clip.__file__).parent / "model_configs"
    for path in folder.glob("*.json"):
        values = json.loads(path.read_text())
        plain = {*values["vision_cfg"], *values["text_cfg"]} <= KNOWN["vision_cfg"] | KNOWN["text_cfg"]
        if plain and isinstance(values["vision_cfg"]["layers"], list) and set(values) <= KNOWN["model_cfg"]:
            assert read_config(values, tmp_path)["layers"] == values["vision_cfg"]["layers"]
            taken.add(path.stem)
        elif plain and set(values) <= KNOWN["model_cfg"]:
            config = read_config(values, tmp_path)
            assert config.vision_config.num_hidden_layers == values["vision_cfg"]["layers"]
            assert config.text_config.hidden_size == values["text_cfg"]["width"]
            assert config.projection_dim == values["embed_dim"]
            taken.add(path.stem)
        elif {"timm_model_name", "hf_model_name"} & {*values["vision_cfg"], *values["text_cfg"]}:
            with pytest.raises(ValueError, match="asks for .*_name"):
                read_config(values, tmp_path)
            refused.add(path.stem)
    assert {"ViT-B-32", "ViT-B-16", "ViT-L-14", "ViT-H-14", "ViT-bigG-14", "RN50", "RN101"} <= taken
    assert len(refused) > 20
    page = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
    converted, all_of_them, release = re.search(r"(\d+) of the (\d+) configs of open_clip ([\d.]+\d)", page).groups()
    if importlib.metadata.version("open_clip_torch") == release:
        assert (len(taken), len(list(folder.glob("*.json")))) == (int(converted), int(all_of_them))


def real_captions():
    home = os.environ.get("CROSSGUARD_DATA")
    if not home:
        pytest.skip("CROSSGUARD_DATA does not say where the real data lie")
    rows = json.loads((Path(home) / "flickr8k" / "test.json").read_text())
    return [text for row in rows for text in row["caption"]]


def test_tokens_equal_those_of_open_clip_on_real_captions(open_clip, tmp_path):
    captions = real_captions()
    theirs = importlib.import_module("open_clip.tokenizer").SimpleTokenizer()
    ends = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}  # as the released files spell them
    vocabulary = {ends.get(piece, piece): number for piece, number in theirs.encoder.items()}
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    merges = sorted(theirs.bpe_ranks, key=theirs.bpe_ranks.get)
    (tmp_path / "merges.txt").write_text("\n".join(["#version: 0.2", *(" ".join(pair) for pair in merges)]) + "\n")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CLIPTokenizer"}))
    tokenizer = AutoTokenizer.from_pretrained(str(tmp_path), local_files_only=True)
    encoded = tokenizer(captions, padding="max_length", truncation=True, max_length=77, return_tensors="pt")
    ours = encoded["input_ids"] * encoded["attention_mask"]  # open_clip pads with zeros
    assert len(captions) == 2500
    assert torch.equal(ours, theirs(captions, context_length=77))
