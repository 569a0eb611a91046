"""Every layout in which the field's checkpoints lie, written here at tiny size, against an independent implementation."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers import models as token_models
from torch import nn
from transformers import (
    ChineseCLIPConfig,
    ChineseCLIPModel,
    CLIPModel,
    CLIPVisionModelWithProjection,
    MetaClip2Config,
    MetaClip2Model,
    PreTrainedTokenizerFast,
    Siglip2Config,
    Siglip2Model,
    SiglipConfig,
    SiglipModel,
)
from transformers.models.siglip2.image_processing_pil_siglip2 import Siglip2ImageProcessorPil, convert_image_to_patches

import clip_reference
from crossguard.models import CLIP, PixelRule, ResNetCLIP, SigLIP, VisionLanguageModel, cosine, load_model
from crossguard.models.tokenizers import clip_tokenizer
from open_clip_files import MODEL, RESNET, TOKENIZER, released, released_resnet, write
from shared import make_clip, word_tokenizer

TEXTS = ["a red disc", "a small picture of a blue square on the left side", "plain yellow cross"]
WORDS = 49408


@pytest.fixture
def pixels():
    return torch.rand(3, 3, 24, 24, generator=torch.Generator().manual_seed(1))


def near(row, ours, theirs):
    """Compare features; the largest difference is printed for the record (`pytest -s`)."""
    print(f"{row}: {float((ours - theirs).abs().max()):.1e}")
    assert float(theirs.abs().max()) > 1e-3
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def bare(folder, state, model, *, file="open_clip_pytorch_model.bin"):
    """Write open_clip's files as FARE's and TeCoA's repositories have them: no config.json, no tokenizer."""
    write(folder, state, model, file=file)
    for path in folder.iterdir():
        if path.name not in ("open_clip_config.json", file):
            path.unlink()
    return folder


def with_words(words, **changes):
    return MODEL | {"text_cfg": MODEL["text_cfg"] | {"vocab_size": words}} | changes


def by_reference(state, pixels, texts, *, quick, heads=(4, 3)):
    tokens = clip_tokenizer()(texts, padding=True)
    ends = torch.tensor(tokens["attention_mask"]).sum(1) - 1
    image = clip_reference.vit_image(state, pixels, heads[0], quick=quick)
    return image, clip_reference.text(state, torch.tensor(tokens["input_ids"]), ends, heads[1], quick=quick)


class TestFareAndTecoa:
    @pytest.mark.parametrize(("spelt", "quick"), [("TRUE", True), ("False", False), (True, True)])
    @torch.no_grad()
    def test_a_folder_without_config_and_tokenizer(self, tmp_path, pixels, spelt, quick):
        state = released(words=WORDS)
        model = load_model(bare(tmp_path / "tecoa4-clip", state, with_words(WORDS, quick_gelu=spelt)))
        image, text = by_reference(state, pixels, TEXTS, quick=quick)
        near("FARE, TeCoA image", model.encode_image(pixels), image)
        near("FARE, TeCoA text", model.encode_text(TEXTS), text)
        assert model.name == "tecoa4-clip"

    @torch.no_grad()
    def test_a_hub_id_fetches_one_kind_of_weights(self, tmp_path, pixels, monkeypatch):
        folder = bare(tmp_path / "snapshot", released(words=WORDS), with_words(WORDS))
        (folder / "open_clip_model.safetensors").write_bytes(b"another copy")
        asked = []

        def fetch(name, *, allow_patterns=None, local_files_only=False):
            asked.append((name, allow_patterns))
            (folder / "open_clip_pytorch_model.bin").unlink()
            save_file(
                {k: v.contiguous() for k, v in released(words=WORDS).items()}, folder / "open_clip_model.safetensors"
            )
            return str(folder)

        monkeypatch.setattr("crossguard.models.hub.list_repo_files", lambda name: [p.name for p in folder.iterdir()])
        monkeypatch.setattr("crossguard.models.hub.snapshot_download", fetch)
        model = load_model("chs20/fare2-clip")
        assert asked == [("chs20/fare2-clip", ["open_clip_config.json", "open_clip_model.safetensors"])]
        assert model.name == "fare2-clip"
        near(
            "FARE by hub id",
            model.encode_image(pixels),
            by_reference(released(words=WORDS), pixels, TEXTS, quick=True)[0],
        )

    def test_without_a_network_the_cache_is_read(self, tmp_path, monkeypatch):
        folder = bare(tmp_path / "snapshot", released(words=WORDS), with_words(WORDS))

        def gone(*_, **__):
            raise ConnectionError("no network")

        monkeypatch.setattr("crossguard.models.hub.list_repo_files", gone)
        monkeypatch.setattr("crossguard.models.hub.snapshot_download", lambda name, **_: str(folder))
        assert load_model("chs20/fare2-clip").name == "fare2-clip"
        monkeypatch.setattr("crossguard.models.hub.snapshot_download", gone)
        with pytest.raises(ValueError, match="could not be had: no network"):
            load_model("chs20/fare2-clip")

    def test_a_vocabulary_that_is_not_clips_is_asked_for(self, tmp_path):
        with pytest.raises(ValueError, match="give `tokenizer=`"):
            load_model(bare(tmp_path / "m", released(), MODEL))
        model = load_model(tmp_path / "m", tokenizer=TOKENIZER)
        assert model.tokenize(["a red disc"]).ids[0, -1] == TOKENIZER.eos_token_id


def test_clips_tokens_are_those_that_openai_gives():
    tokenizer = clip_tokenizer()
    known = {
        "a diagram": [320, 22697],
        "a dog": [320, 1929],
        "a cat": [320, 2368],
        "A photo of a cat": [320, 1125, 539, 320, 2368],
    }
    for text, ids in known.items():
        assert tokenizer(text)["input_ids"] == [49406, *ids, 49407]
    assert len(tokenizer) == WORDS


def save_whole(model, folder):
    model.save_pretrained(folder)
    return folder


def parts_of(folder, *names):
    for path in folder.iterdir():
        if path.name not in names:
            path.unlink()
    return folder


@torch.no_grad()
def test_leaf_takes_tokenizer_and_preprocessing_from_a_base(tmp_path):
    """LEAF's repositories: Transformers' config and safetensors alone."""
    base, leaf = save_whole(make_clip(0), tmp_path / "base"), save_whole(make_clip(1), tmp_path / "leaf")
    parts_of(leaf, "config.json", "model.safetensors")
    with pytest.raises(ValueError, match="`tokenizer=`.* or `base=`"):
        load_model(leaf)
    with pytest.raises(ValueError, match="`preprocessing=`.* or `base=`"):
        load_model(leaf, tokenizer=base)
    theirs = CLIPModel.from_pretrained(leaf).eval()
    tokens = word_tokenizer()(TEXTS, padding=True, return_tensors="pt")
    pixels = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    normal = (pixels - clip_reference.MEAN) / clip_reference.STD
    for options in ({"base": base}, {"base": load_model(base)}, {"tokenizer": str(base), "preprocessing": "clip"}):
        model = load_model(leaf, **options)
        near("LEAF image", model.encode_image(pixels), theirs.get_image_features(pixel_values=normal).pooler_output)
        near("LEAF text", model.encode_text(TEXTS), theirs.get_text_features(**tokens).pooler_output)
        assert (model.name, model.pixel_rule) == ("leaf", load_model(base).pixel_rule)


class TestTowersAlone:
    """RobustVLM's `fare_eps_2.pt` and the like: the image tower of open_clip by itself."""

    @pytest.mark.parametrize("wrapped", [None, "vision_encoder_state_dict", "model"])
    @torch.no_grad()
    def test_an_image_tower_on_a_base(self, tmp_path, pixels, wrapped):
        base = load_model(write(tmp_path / "base", released()))
        state = {key: value * 1.1 for key, value in released().items() if key.startswith("visual.")}
        file = {f"module.{key.removeprefix('visual.')}": value.half() for key, value in state.items()}
        torch.save(file if wrapped is None else {wrapped: file, "steps": 3}, tmp_path / "fare_eps_2.pt")
        model = load_model(tmp_path / "fare_eps_2.pt", base=base)
        rounded = {key: value.half().float() for key, value in state.items()}
        near("vision tower", model.encode_image(pixels), clip_reference.vit_image(rounded, pixels, 4, quick=True))
        assert torch.equal(model.encode_text(TEXTS), base.encode_text(TEXTS))
        assert model.name == "fare_eps_2"
        assert not torch.equal(base.encode_image(pixels), model.encode_image(pixels))

    @torch.no_grad()
    def test_one_that_transformers_saved(self, tmp_path):
        base = save_whole(make_clip(0), tmp_path / "base")
        other = CLIPModel.from_pretrained(save_whole(make_clip(1), tmp_path / "other")).eval()
        tower = CLIPVisionModelWithProjection(other.config.vision_config).eval()
        tower.config.projection_dim = other.config.projection_dim
        tower.visual_projection = other.visual_projection
        tower.vision_model.load_state_dict(other.vision_model.state_dict())
        tower.save_pretrained(tmp_path / "tower")
        with pytest.raises(ValueError, match="Expected `base=` .*one tower alone"):
            load_model(tmp_path / "tower")
        model = load_model(tmp_path / "tower", base=base)
        pixels = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))
        theirs = tower(pixel_values=(pixels - clip_reference.MEAN) / clip_reference.STD).image_embeds
        near("vision tower of Transformers", model.encode_image(pixels), theirs)
        assert torch.equal(model.encode_text(TEXTS), load_model(base).encode_text(TEXTS))

    def test_what_does_not_fit_is_named(self, tmp_path):
        base = load_model(write(tmp_path / "base", released()))
        state = {key.removeprefix("visual."): value for key, value in released().items() if key.startswith("visual.")}

        def load(changed):
            torch.save(changed, tmp_path / "tower.pt")
            return load_model(tmp_path / "tower.pt", base=base)

        with pytest.raises(ValueError, match=r"1 weights are missing: vision_model\.post_layernorm\.bias"):
            load({key: value for key, value in state.items() if key != "ln_post.bias"})
        with pytest.raises(ValueError, match=r"1 differ: visual_projection\.weight has shape \[11, 32\]"):
            load(state | {"proj": torch.ones(32, 11)})
        with pytest.raises(ValueError, match=r"1 are none \(visual\.head\)"):
            load(state | {"head": torch.ones(1)})
        load(state)
        with pytest.raises(ValueError, match="Expected `base=` with .*tower.pt"):
            load_model(tmp_path / "tower.pt")


class TestFormats:
    """The same weights in every kind of file."""

    @pytest.fixture
    def whole(self, tmp_path):
        return save_whole(make_clip(2), tmp_path / "whole")

    def features(self, model):
        pixels = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            return torch.cat([model.encode_image(pixels), model.encode_text(TEXTS)])

    def test_pickles_variants_shards_and_wrappers(self, whole):
        wanted = self.features(load_model(whole))
        network = load_model(whole).network
        state = {key: value.clone() for key, value in network.state_dict().items()}
        (whole / "model.safetensors").unlink()
        half = {key: value.half() for key, value in state.items()}
        names = sorted(state)
        for file, content, close in (
            ("pytorch_model.bin", state, 0),
            ("pytorch_model.bin", {f"module.{key}": value for key, value in state.items()}, 0),
            ("model.fp16.safetensors", half, 1e-2),
            ("epoch_3.pt", {"epoch": 3, "name": "x", "state_dict": {f"module.{k}": v for k, v in state.items()}}, 0),
        ):
            (save_file if file.endswith("safetensors") else torch.save)(content, whole / file)
            found = self.features(load_model(whole))
            near(file, found, wanted) if not close else torch.testing.assert_close(
                found, wanted, atol=close, rtol=close
            )
            assert found.dtype == torch.float32
            (whole / file).unlink()
        weight_map = {}
        for shard, some in ((f"pytorch_model-0000{n + 1}-of-00002.bin", names[n::2]) for n in range(2)):
            torch.save({key: state[key] for key in some}, whole / shard)
            weight_map |= dict.fromkeys(some, shard)
        (whole / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
        near("shards", self.features(load_model(whole)), wanted)
        (whole / "pytorch_model-00002-of-00002.bin").unlink()
        with pytest.raises(ValueError, match="pytorch_model-00002-of-00002.bin are not there"):
            load_model(whole)
        weight_map[names[0]] = "../elsewhere.bin"
        (whole / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
        with pytest.raises(ValueError, match=r"\.\./elsewhere\.bin"):
            load_model(whole)

    def test_several_files_of_unknown_names_are_not_chosen_among(self, whole):
        (whole / "model.safetensors").unlink()
        for epoch in (1, 2):
            torch.save({}, whole / f"epoch_{epoch}.pt")
        with pytest.raises(ValueError, match="one file of weights in .*epoch_1.pt, epoch_2.pt"):
            load_model(whole)

    def test_no_code_is_unpickled(self, whole, tmp_path):
        class Evil:
            def __reduce__(self):
                return (open, (str(tmp_path / "made"), "w"))

        (whole / "model.safetensors").unlink()
        torch.save({"a": Evil()}, whole / "pytorch_model.bin")
        with pytest.raises(ValueError, match="could not be read"):
            load_model(whole)
        assert not (tmp_path / "made").exists()

    @pytest.mark.filterwarnings(
        "ignore:.*is_gradient_checkpointing:FutureWarning", "ignore:Could not find a config file"
    )
    def test_adapters_go_on_their_base(self, whole, tmp_path):
        from peft import LoraConfig, get_peft_model

        network = CLIPModel.from_pretrained(whole).eval()
        adapted = get_peft_model(network, LoraConfig(r=2, target_modules=["q_proj", "fc1"]))
        for name, weight in adapted.named_parameters():
            if "lora_" in name:
                weight.data = torch.randn_like(weight, generator=None) * 0.3
        adapted.save_pretrained(tmp_path / "adapter")
        model = load_model(tmp_path / "adapter", base=whole)
        pixels = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
        normal = (pixels - clip_reference.MEAN) / clip_reference.STD
        with torch.no_grad():
            theirs = adapted.base_model.model.get_image_features(pixel_values=normal).pooler_output
            near("adapters", model.encode_image(pixels), theirs)
        assert not torch.allclose(self.features(model), self.features(load_model(whole)), atol=1e-3)
        config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
        (tmp_path / "adapter" / "adapter_config.json").write_text(
            json.dumps(config | {"base_model_name_or_path": str(whole)})
        )
        assert torch.equal(self.features(load_model(tmp_path / "adapter")), self.features(model))
        (tmp_path / "adapter" / "adapter_config.json").write_text(
            json.dumps(config | {"base_model_name_or_path": None})
        )
        with pytest.raises(ValueError, match="Expected `base=`, the model that the adapters"):
            load_model(tmp_path / "adapter")


def holder(state):
    """A module with parameters and buffers of these dotted names."""
    top = nn.Module()
    for name, value in state.items():
        *path, last = name.split(".")
        part = top
        for step in path:
            if not hasattr(part, step):
                part.add_module(step, nn.Module())
            part = getattr(part, step)
        if value.is_floating_point() and "running" not in last:
            part.register_parameter(last, nn.Parameter(value))
        else:
            part.register_buffer(last, value)
    top.forward = lambda x: x * top.logit_scale
    return top


def as_torchscript(path, state):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(holder(state), torch.ones(1)), path)
    return path


class TestOpenAI:
    """TorchScript archives, whose code is not run: the tensors alone are read."""

    @torch.no_grad()
    def test_a_vit(self, tmp_path, pixels):
        state = {key: value.half() for key, value in released(words=WORDS, vision=64, text=64).items()}
        sizes = {
            "input_resolution": torch.tensor(24),
            "context_length": torch.tensor(16),
            "vocab_size": torch.tensor(WORDS),
        }
        model = load_model(as_torchscript(tmp_path / "ViT-B-16.pt", state | sizes))
        whole = {key: value.float() for key, value in state.items()}
        image, text = by_reference(whole, pixels, TEXTS, quick=True, heads=(1, 1))
        near("OpenAI .pt image", model.encode_image(pixels), image)
        near("OpenAI .pt text", model.encode_text(TEXTS), text)
        assert (model.name, model.patch_grid, model.context_length) == ("ViT-B-16", (3, 3), 16)

    @torch.no_grad()
    def test_a_resnet(self, tmp_path):
        state = released_resnet(words=WORDS, text=64)
        model = load_model(as_torchscript(tmp_path / "RN50.pt", state))
        pixels = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
        near("OpenAI RN .pt", model.encode_image(pixels), clip_reference.resnet_image(state, pixels, 4))

    def test_other_code_is_refused(self, tmp_path):
        path = as_torchscript(tmp_path / "other.pt", {"logit_scale": torch.ones(1)})
        with pytest.raises(ValueError, match="Expected a checkpoint of OpenAI's CLIP"):
            load_model(path)
        path.write_bytes(path.read_bytes()[:-200])
        with pytest.raises(ValueError, match="Expected `base="):
            load_model(path)


class TestResNets:
    @pytest.fixture
    def state(self):
        return released_resnet()

    @torch.no_grad()
    def test_features(self, tmp_path, state):
        model = load_model(write(tmp_path / "rn", state, RESNET))
        assert isinstance(model, ResNetCLIP)
        assert isinstance(model, VisionLanguageModel)
        pixels = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
        tokens = model.tokenize(TEXTS)
        near("ResNet image", model.encode_image(pixels), clip_reference.resnet_image(state, pixels, 4))
        text = clip_reference.text(state, tokens.ids, tokens.mask.sum(1) - 1, 3, quick=False)
        near("ResNet text", model.encode_text(TEXTS), text)
        near("ResNet text, by beginnings", model.encode_variants(tokens), text)
        again = load_model(save_whole(model, tmp_path / "again"))
        assert torch.equal(again.encode_image(pixels), model.encode_image(pixels))
        assert torch.equal(again.encode_text(TEXTS), model.encode_text(TEXTS))

    def test_towers_and_gradients(self, tmp_path, state):
        model = load_model(write(tmp_path / "rn", state, RESNET))
        image, text = ({id(p) for p in model.tower(which)} for which in ("image", "text"))
        assert not image & text
        assert [n for n, p in model.named_parameters() if id(p) not in image | text] == ["network.logit_scale"]
        pixels = torch.rand(1, 3, 64, 64, requires_grad=True)
        model.encode_image(pixels).sum().backward()
        assert float(pixels.grad.abs().max()) > 0
        with pytest.raises(ValueError, match="'image' or 'text'"):
            model.tower("fusion")

    @pytest.mark.parametrize(
        ("layers", "embed", "count"), [([3, 4, 6, 3], 1024, 102_007_137), ([3, 4, 23, 3], 512, 119_688_033)]
    )
    def test_the_released_sizes(self, layers, embed, count):
        from crossguard.models.clip_resnet import ResNetCLIPNetwork
        from crossguard.models.open_clip import read_config

        vision, text = {"image_size": 224, "layers": layers, "width": 64}, {"width": 512, "heads": 8, "layers": 12}
        with torch.device("meta"):
            network = ResNetCLIPNetwork(
                read_config({"embed_dim": embed, "vision_cfg": vision, "text_cfg": text}, Path("RN"))
            )
        assert sum(weight.numel() for weight in network.parameters()) == count


def gemma_tokenizer(folder):
    """A byte-pair tokenizer as Gemma's files have it: it keeps capitals, and a text ends in `<eos>`."""
    pieces = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *"▁abcdeghilnopqrstuwy", "re", "red", "di", "▁a"]
    merges = [("r", "e"), ("re", "d"), ("d", "i"), ("▁", "a")]
    tokenizer = Tokenizer(
        token_models.BPE(
            {p: n for n, p in enumerate(pieces)}, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True
        )
    )
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", 1)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", bos_token="<bos>", unk_token="<unk>"
    )
    fast.save_pretrained(folder)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config["tokenizer_class"] = "GemmaTokenizer"
    config.pop("backend", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return fast, len(pieces)


SIZES = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


def drawn(network):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for weight in network.parameters():
            weight.data = torch.randn_like(weight) * 0.2
    return network.eval()


def siglip2(folder, *, naflex):
    """Write SigLIP 2 as its repositories have it; return the network and the tokenizer."""
    folder.mkdir()
    tokenizer, words = gemma_tokenizer(folder)
    text = SIZES | {"vocab_size": words, "max_position_embeddings": 16, "projection_size": 16}
    if naflex:
        vision = SIZES | {"num_patches": 16, "patch_size": 8}
        network = drawn(Siglip2Model(Siglip2Config(text_config=text, vision_config=vision)))
        Siglip2ImageProcessorPil(patch_size=8, max_num_patches=10, resample=2).save_pretrained(folder)
    else:
        vision = SIZES | {"image_size": 24, "patch_size": 8}
        network = drawn(SiglipModel(SiglipConfig(text_config=text, vision_config=vision)))
        PixelRule((24, 24), (0.5,) * 3, (0.5,) * 3, crop=False).save(folder)
    network.save_pretrained(folder)
    return network, tokenizer


class TestSigLIP2:
    @pytest.mark.parametrize("naflex", [False, True])
    @torch.no_grad()
    def test_texts_in_lower_case_and_features(self, tmp_path, pixels, naflex):
        network, tokenizer = siglip2(tmp_path / "siglip2", naflex=naflex)
        model = load_model(tmp_path / "siglip2")
        assert isinstance(model, SigLIP)
        assert model.image_size == (24, 24)
        ids = tokenizer(
            [text.lower() for text in TEXTS], padding="max_length", max_length=16, truncation=True, padding_side="right"
        )["input_ids"]
        spelt = [text.upper() for text in TEXTS]
        if naflex:  # channels last within a patch, and the grid beside the patches
            normal = [convert_image_to_patches(((one - 0.5) / 0.5).numpy(), 8) for one in pixels]
            given = {"pixel_values": torch.tensor(np.stack(normal)), "pixel_attention_mask": torch.ones(3, 9).long()}
            given["spatial_shapes"] = torch.tensor([[3, 3]] * 3)
        else:
            given = {"pixel_values": (pixels - 0.5) / 0.5}
        output = network(input_ids=torch.tensor(ids), **given)
        row = "SigLIP 2 naflex" if naflex else "SigLIP 2 fixed"
        logits = cosine(model.encode_image(pixels), model.encode_text(spelt)) * model.logit_scale + model.logit_bias
        near(f"{row} logits", logits, output.logits_per_image)
        again = load_model(save_whole(model, tmp_path / "again"))
        assert torch.equal(again.encode_text(spelt), model.encode_text(spelt))
        assert torch.equal(again.encode_image(pixels), model.encode_image(pixels))
        assert again.image_size == model.image_size

    @torch.no_grad()
    def test_naflex_reads_a_square_photo_as_its_processor_does(self, tmp_path):
        network, _ = siglip2(tmp_path / "siglip2", naflex=True)
        model = load_model(tmp_path / "siglip2")
        values = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
        photo = Image.fromarray(values)
        processor = Siglip2ImageProcessorPil(patch_size=8, max_num_patches=10)
        given = processor(photo, return_tensors="pt")
        assert given["pixel_attention_mask"].tolist() == [[1] * 9 + [0]]
        theirs = network.vision_model(
            given["pixel_values"], given["pixel_attention_mask"], given["spatial_shapes"]
        ).pooler_output
        near("SigLIP 2 naflex photo", model.encode_image(model.preprocess([photo])), theirs)

    @torch.no_grad()
    def test_naflex_leaves_patches_out(self, tmp_path, pixels):
        siglip2(tmp_path / "siglip2", naflex=True)
        model = load_model(tmp_path / "siglip2")
        whole = model.encode_image(pixels, torch.ones(3, 9, dtype=torch.bool))
        torch.testing.assert_close(whole, model.encode_image(pixels))
        kept = torch.ones(3, 9, dtype=torch.bool)
        kept[:, 4] = False
        spoilt = pixels.clone()
        spoilt[:, :, 8:16, 8:16] = float("nan")
        assert torch.equal(model.encode_image(spoilt, kept), model.encode_image(pixels, kept))


@torch.no_grad()
def test_metaclip_2(tmp_path):
    """Worldwide MetaCLIP 2: XLM-V's vocabulary, whose end of text has id 2 and is looked for, not the highest id."""
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    vocabulary = {word: n for n, word in enumerate([*special, *word_tokenizer().get_vocab()])}
    tokenizer = Tokenizer(token_models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )
    fast.save_pretrained(tmp_path / "m")
    text = SIZES | {"vocab_size": len(vocabulary), "max_position_embeddings": 16, "eos_token_id": 2}
    config = MetaClip2Config(
        text_config=text | {"projection_dim": 12},
        vision_config=SIZES | {"image_size": 24, "patch_size": 8},
        projection_dim=12,
    )
    network = drawn(MetaClip2Model(config))
    network.save_pretrained(tmp_path / "m")
    PixelRule((24, 24), (0.5,) * 3, (0.5,) * 3).save(tmp_path / "m")
    model = load_model(tmp_path / "m")
    assert isinstance(model, CLIP)
    pixels = torch.rand(3, 3, 24, 24, generator=torch.Generator().manual_seed(1))
    tokens = fast(TEXTS, padding=True, return_tensors="pt")
    theirs = network(
        input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"], pixel_values=(pixels - 0.5) / 0.5
    )
    ours = cosine(model.encode_image(pixels), model.encode_text(TEXTS)) * network.logit_scale.exp()
    near("MetaCLIP 2 logits", ours, theirs.logits_per_image)
    near("MetaCLIP 2 by beginnings", model.encode_variants(model.tokenize(TEXTS)), model.encode_text(TEXTS))


@torch.no_grad()
def test_chinese_clip(tmp_path):
    """As released: BERT's vocabulary in vocab.txt, no crop, weights as a pickle."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"红蓝黄圆方的一个小"]
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    config = ChineseCLIPConfig(
        text_config=SIZES | {"vocab_size": len(words), "max_position_embeddings": 64},
        vision_config=SIZES | {"image_size": 24, "patch_size": 8},
        projection_dim=12,
    )
    network = drawn(ChineseCLIPModel(config))
    network.config.save_pretrained(tmp_path / "c")
    torch.save(network.state_dict(), tmp_path / "c" / "pytorch_model.bin")
    PixelRule((24, 24), (0.5,) * 3, (0.5,) * 3, crop=False).save(tmp_path / "c")
    model = load_model(tmp_path / "c")
    assert (type(model).__name__, model.context_length, model.mask_token) == ("ChineseCLIP", 52, "[MASK]")
    pixels = torch.rand(3, 3, 24, 24, generator=torch.Generator().manual_seed(1))
    texts = ["红圆", "一个小的蓝方", "黄" * 90]
    tokens = [[2, *(words.index(letter) for letter in text[:50]), 3] for text in texts]
    ours = cosine(model.encode_image(pixels), model.encode_text(texts)) * network.logit_scale.exp()
    theirs = [
        network(input_ids=torch.tensor([ids]), pixel_values=(pixels - 0.5) / 0.5).logits_per_image[:, 0]
        for ids in tokens
    ]
    near("Chinese-CLIP logits", ours, torch.stack(theirs, dim=1))
    near("Chinese-CLIP variants", model.encode_variants(model.tokenize(texts)), model.encode_text(texts))
    near("Chinese-CLIP patches", model.encode_image(pixels, torch.ones(3, 9).bool()), model.encode_image(pixels))
    model.save_pretrained(tmp_path / "again")
    assert torch.equal(load_model(tmp_path / "again").encode_text(texts), model.encode_text(texts))


class TestMisfits:
    """A tokenizer of another vocabulary, a config of another size, pictures of another size."""

    def test_a_tokenizer_of_more_tokens(self, tmp_path):
        folder = save_whole(make_clip(0), tmp_path / "m")
        with pytest.raises(ValueError, match=r"at most \d+ tokens .* up to 49,407: give the right one as `tokenizer=`"):
            load_model(folder, tokenizer="clip")

    def test_preprocessing_of_another_size(self, tmp_path):
        folder = save_whole(make_clip(0), tmp_path / "m")
        rule = PixelRule((24, 24), (0.5,) * 3, (0.5,) * 3)
        with pytest.raises(ValueError, match="16 x 16 pixels, .* gives 24 x 24"):
            load_model(folder, preprocessing=rule)

    def test_options_for_models_that_are_whole(self):
        with pytest.raises(ValueError, match="Expected no `base`"):
            load_model("emoji-clip", tokenizer="clip")
