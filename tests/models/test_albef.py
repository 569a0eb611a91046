"""ALBEF: a released checkpoint at tiny size against a second implementation, and everything else refused."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from crossguard.models import FusionModel, PatchModel, VisionLanguageModel, load_model
from crossguard.models.albef import ALBEF, AlbefConfig
from crossguard.models.captions import clean_for_albef
from fusion_reference import bert, embed, fill, layers_in, linear, text_shapes, vision_shapes, vit, write_vocabulary

TEXTS = ["A red disc.", "the small blue square on the left side", "a man's well-known dog!"]
HEADS = {"vision_heads": 4, "text_heads": 2}


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    path = tmp_path_factory.mktemp("vocabulary") / "vocab.txt"
    write_vocabulary(path)
    return path


@pytest.fixture(scope="module")
def released(vocabulary):
    """All keys that a released checkpoint of retrieval fine-tuning has, at tiny size, random."""
    size = len(vocabulary.read_text().split())
    main = vision_shapes(32, 2, 8, 3) | text_shapes(24, 4, (2, 3), size, 40, 32)
    main |= {"vision_proj.weight": (8, 32), "vision_proj.bias": (8,), "text_proj.weight": (8, 24)}
    main |= {"text_proj.bias": (8,)}
    copies = {key.replace(".", "_m.", 1): shape for key, shape in main.items()}
    shapes = main | copies | {"itm_head.weight": (2, 24), "itm_head.bias": (2,)}
    shapes |= {"image_queue": (8, 64), "text_queue": (8, 64)}
    state = fill(shapes, seed=0)
    state["temp"] = torch.tensor(0.09)
    state["queue_ptr"] = torch.zeros(1, dtype=torch.int64)
    state["idx_queue"] = torch.full((1, 64), -100)
    state["text_encoder.embeddings.position_ids"] = torch.arange(40).unsqueeze(0)
    return state


def load(state, vocabulary, folder, **options):
    torch.save(state, folder / "released.pth")
    return ALBEF.from_released(folder / "released.pth", vocabulary=vocabulary, **(HEADS | options))


@pytest.fixture
def model(released, vocabulary, tmp_path):
    return load(released, vocabulary, tmp_path)


@pytest.fixture
def pixels():
    return torch.rand(3, 3, 24, 24, generator=torch.Generator().manual_seed(1))


def reference(state, tokens, pixels):
    """Embeddings, and matching logits of all pairs [images, texts, 2]."""
    image = vit(state, pixels, 4)
    text = bert(state, embed(state, tokens.ids, "text_encoder."), tokens.mask, 2, (0, 1))
    rows, columns = torch.cartesian_prod(torch.arange(len(image)), torch.arange(len(text))).T
    last = layers_in(state, "text_encoder.encoder.layer.")
    fused = bert(state, text[columns], tokens.mask[columns], 2, range(2, last), image=image[rows])
    logits = linear(state, "itm_head", fused[:, 0]).view(len(image), len(text), 2)
    return linear(state, "vision_proj", image[:, 0]), linear(state, "text_proj", text[:, 0]), logits


def all_pairs(images, texts):
    return torch.cartesian_prod(torch.arange(images), torch.arange(texts))


@torch.no_grad()
def test_features_and_matching_logits_equal_the_second_implementation(model, released, pixels):
    images, texts = model.encode_image_states(pixels), model.encode_text_states(TEXTS)
    image, text, logits = reference(released, model.tokenize(TEXTS), pixels)
    torch.testing.assert_close(images.embedding, image, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(texts.embedding, text, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(model.match(images, texts, all_pairs(3, 3)).view(3, 3, 2), logits, atol=1e-5, rtol=1e-5)
    assert logits.std() > 0.01
    torch.testing.assert_close(model.logit_scale, torch.tensor(1 / 0.09))


def test_meets_the_protocols(model):
    for protocol in (VisionLanguageModel, FusionModel, PatchModel):
        assert isinstance(model, protocol)


class TestReleasedFiles:
    @pytest.fixture
    def expected(self, model, pixels):
        return _outputs(model, pixels)

    def test_wrapped_with_other_parts_of_the_training(self, released, vocabulary, tmp_path, expected, pixels):
        whole = {"model": released, "optimizer": {"state": {}, "param_groups": [{"lr": 1e-5}]}, "epoch": 3}
        assert _same(_outputs(load(whole, vocabulary, tmp_path), pixels), expected)

    def test_pretraining_keys_with_bert_and_the_language_head(self, released, vocabulary, tmp_path, expected, pixels):
        renamed = {}
        for key, value in released.items():
            for tower in ("text_encoder.", "text_encoder_m."):
                key = key.replace(tower, f"{tower}bert.") if key.startswith(tower) else key
            renamed[key] = value
        renamed["text_encoder.cls.predictions.bias"] = torch.zeros(5)
        renamed["text_encoder_m.cls.predictions.bias"] = torch.zeros(5)
        assert _same(_outputs(load(renamed, vocabulary, tmp_path), pixels), expected)

    def test_inference_needs_no_copies_and_no_queues(self, released, vocabulary, tmp_path, expected, pixels):
        kept = {k: v for k, v in released.items() if "_m." not in k and "queue" not in k and "position_ids" not in k}
        assert _same(_outputs(load(kept, vocabulary, tmp_path), pixels), expected)

    def test_positions_are_interpolated_bicubically(self, released, vocabulary, tmp_path):
        model = load(released, vocabulary, tmp_path, image_size=48)
        places = model.network.visual_encoder.pos_embed.detach()
        old = released["visual_encoder.pos_embed"]
        assert model.image_size == (48, 48)
        assert torch.equal(places[:, 0], old[:, 0])
        for channel in (0, 31):
            torch.testing.assert_close(
                places[0, 1:, channel].view(6, 6), bicubic(old[0, 1:, channel].view(3, 3), 6), atol=1e-5, rtol=1e-5
            )
        assert model.encode_image(torch.rand(1, 3, 48, 48)).shape == (1, 8)

    @pytest.mark.parametrize("wrapped", [False, True])
    def test_missing_keys(self, released, vocabulary, tmp_path, wrapped):
        part = {k: v for k, v in released.items() if "layer.3.crossattention.self.value" not in k}
        with pytest.raises(ValueError, match=r"2 keys are missing .*layer\.3\.crossattention\.self\.value\.bias"):
            load({"model": part} if wrapped else part, vocabulary, tmp_path)

    def test_surplus_keys(self, released, vocabulary, tmp_path):
        with pytest.raises(ValueError, match=r"1 keys are unknown \(text_decoder\.bert\.x\)"):
            load(released | {"text_decoder.bert.x": torch.ones(1)}, vocabulary, tmp_path)

    def test_a_pooler(self, released, vocabulary, tmp_path):
        with pytest.raises(ValueError, match=r"unknown.*pooler"):
            load(released | {"text_encoder.pooler.dense.bias": torch.ones(24)}, vocabulary, tmp_path)

    def test_other_shapes(self, released, vocabulary, tmp_path):
        with pytest.raises(ValueError, match=r"itm_head\.weight has shape \[3, 24\] instead of \[2, 24\]"):
            load(released | {"itm_head.weight": torch.ones(3, 24)}, vocabulary, tmp_path)

    def test_cross_attention_everywhere_is_blip(self, released, vocabulary, tmp_path):
        blip = released | {"text_encoder.encoder.layer.0.crossattention.self.query.bias": torch.ones(24)}
        with pytest.raises(ValueError, match="BLIP has it in all"):
            load(blip, vocabulary, tmp_path)

    def test_another_family(self, vocabulary, tmp_path):
        with pytest.raises(ValueError, match=r"checkpoint of ALBEF.*lacks.*visual\.conv1\.weight"):
            load({"visual.conv1.weight": torch.ones(1)}, vocabulary, tmp_path)

    def test_a_web_page(self, vocabulary, tmp_path):
        (tmp_path / "page.pth").write_text("\n<!DOCTYPE html><html>no such file</html>")
        with pytest.raises(ValueError, match="web page"):
            ALBEF.from_released(tmp_path / "page.pth", vocabulary=vocabulary)

    def test_half_a_file(self, released, vocabulary, tmp_path):
        torch.save(released, tmp_path / "whole.pth")
        whole = (tmp_path / "whole.pth").read_bytes()
        (tmp_path / "half.pth").write_bytes(whole[: len(whole) // 2])
        with pytest.raises(ValueError, match="could not be read"):
            ALBEF.from_released(tmp_path / "half.pth", vocabulary=vocabulary)

    def test_code_in_a_pickle_is_not_run(self, vocabulary, tmp_path):
        torch.save({"model": Malicious(tmp_path / "ran")}, tmp_path / "evil.pth")
        with pytest.raises(ValueError, match="plain tensors"):
            ALBEF.from_released(tmp_path / "evil.pth", vocabulary=vocabulary)
        assert not (tmp_path / "ran").exists()

    def test_no_file_no_vocabulary(self, released, vocabulary, tmp_path):
        with pytest.raises(ValueError, match="there is none"):
            ALBEF.from_released(tmp_path / "nothing.pth", vocabulary=vocabulary)
        with pytest.raises(ValueError, match="vocabulary"):
            load(released, tmp_path / "nothing.txt", tmp_path)
        (tmp_path / "words.txt").write_text("a\nb\n")
        with pytest.raises(ValueError, match=r"special tokens.*\[CLS\]"):
            load(released, tmp_path / "words.txt", tmp_path)


class Malicious:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return type(self.target).touch, (self.target,)


def bicubic(plane, size):
    """Keys' cubic convolution with a = -0.75, edges repeated, written out."""

    def kernel(x):
        x = abs(x)
        if x <= 1:
            return 1.25 * x**3 - 2.25 * x**2 + 1
        return -0.75 * x**3 + 3.75 * x**2 - 6 * x + 3 if x < 2 else 0.0

    old = len(plane)
    weights = torch.zeros(size, old)
    for row in range(size):
        centre = (row + 0.5) * old / size - 0.5
        for tap in range(int(centre // 1) - 1, int(centre // 1) + 3):
            weights[row, min(max(tap, 0), old - 1)] += kernel(centre - tap)
    return weights @ plane @ weights.T


@torch.no_grad()
def _outputs(model, pixels):
    images, texts = model.encode_image_states(pixels), model.encode_text_states(TEXTS)
    return images.embedding, texts.embedding, model.match(images, texts, all_pairs(3, 3))


def _same(ours, theirs):
    return all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_round_trip_is_bit_equal(model, pixels, tmp_path):
    model.save_pretrained(tmp_path / "m")
    again = load_model(tmp_path / "m")
    assert isinstance(again, ALBEF)
    assert again.network.config == model.network.config
    assert again.pixel_rule == model.pixel_rule
    assert _same(_outputs(again, pixels), _outputs(model, pixels))
    assert torch.equal(again.tokenize(TEXTS).ids, model.tokenize(TEXTS).ids)
    assert json.loads((tmp_path / "m" / "config.json").read_text())["model_type"] == "albef"


def test_a_broken_folder(model, tmp_path):
    model.save_pretrained(tmp_path / "m")
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    (tmp_path / "m" / "config.json").write_text(json.dumps(config | {"fusion_begin": 3}))
    with pytest.raises(ValueError, match="did you mean 'fusion_start'"):
        load_model(tmp_path / "m")
    (tmp_path / "m" / "config.json").write_text(json.dumps(config | {"vision_layers": 3}))
    with pytest.raises(ValueError, match="keys are missing"):
        load_model(tmp_path / "m")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("patch_size", 7, "divide 384"),
        ("text_heads", 5, "divide 768"),
        ("fusion_start", 12, "fusion_start"),
        ("vision_layers", 0, "whole number"),
        ("dropout", 1.0, "dropout"),
    ],
)
def test_sizes_that_cannot_be(field, value, message):
    with pytest.raises(ValueError, match=message):
        AlbefConfig(**{field: value})


class TestTexts:
    def test_tokens_are_cls_and_pieces_without_sep(self, model):
        ids = model.tokenize(["a drawings man"]).ids[0]
        assert model.tokenizer.convert_ids_to_tokens(ids) == ["[CLS]", "a", "drawing", "##s", "man"]

    def test_punctuation_is_deleted_hyphens_and_slashes_blanked(self, model):
        assert torch.equal(
            model.tokenize(["A MAN'S well-known dog/disc!"]).ids, model.tokenize(["a mans well known dog disc"]).ids
        )

    def test_the_mask_survives_cleaning(self, model):
        ids = model.tokenize(["a [MASK] dog."]).ids[0]
        assert model.tokenizer.convert_ids_to_tokens(ids) == ["[CLS]", "a", "[MASK]", "dog"]

    def test_at_most_thirty_words_and_tokens(self, model):
        assert clean_for_albef("dog " * 99, max_words=30) == " ".join(["dog"] * 30)
        assert model.tokenize(["dog " * 99]).ids.shape[1] == model.context_length == 30

    def test_a_text_of_punctuation_alone_is_an_empty_sequence(self, model):
        assert model.tokenize(["...", "?!"]).ids.tolist() == [[5], [5]]
        assert torch.isfinite(model.encode_text(["..."])).all()

    @given(st.text(max_size=60))
    def test_cleaning_twice_changes_nothing(self, text):
        once = clean_for_albef(text, max_words=99)
        assert clean_for_albef(once, max_words=99) == once
        assert not set(once) & set(",.'!?\"()*#:;~-/")

    @torch.no_grad()
    def test_padding_does_not_change_an_answer(self, model, pixels):
        images = model.encode_image_states(pixels)
        together = model.match(images, model.encode_text_states(TEXTS), all_pairs(3, 3)).view(3, 3, 2)
        alone = torch.stack(
            [model.match(images, model.encode_text_states([text]), all_pairs(3, 1)) for text in TEXTS], dim=1
        )
        torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


class TestPatches:
    @torch.no_grad()
    def test_keeping_all_equals_the_plain_forward(self, model, pixels):
        assert torch.equal(model.encode_image(pixels, torch.ones(3, 9, dtype=torch.bool)), model.encode_image(pixels))

    @torch.no_grad()
    def test_dropped_patches_play_no_part(self, model, pixels):
        kept = torch.zeros(3, 9, dtype=torch.bool)
        kept[0, [1, 5]] = kept[1, [0, 1, 2, 8]] = kept[2, 4] = True
        changed = pixels.clone()
        blocks = changed.unfold(2, 8, 8).unfold(3, 8, 8).permute(0, 2, 3, 1, 4, 5).reshape(3, 9, 3, 8, 8)
        blocks = torch.where(kept[..., None, None, None], blocks, torch.nan)
        changed = blocks.view(3, 3, 3, 3, 8, 8).permute(0, 3, 1, 4, 2, 5).reshape(3, 3, 24, 24)
        ours, states = model.encode_image(pixels, kept), model.encode_image_states(changed, kept)
        assert torch.equal(states.embedding, ours)
        texts = model.encode_text_states(TEXTS)
        alone = torch.cat([model.encode_image(pixels[i : i + 1], kept[i : i + 1]) for i in range(3)])
        torch.testing.assert_close(ours, alone, atol=1e-5, rtol=1e-5)
        assert torch.isfinite(model.match(states, texts, all_pairs(3, 3))).all()


@torch.no_grad()
def test_an_image_is_projected_once_however_many_texts_it_meets(model, pixels):
    images, texts = model.encode_image_states(pixels), model.encode_text_states(TEXTS)
    seen = []
    key = model.network.text_encoder.encoder.layer[2].crossattention.self.key
    hook = key.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    pairs = torch.tensor([[2, 0], [0, 1], [2, 2], [2, 0]])
    together = model.match(images, texts, pairs)
    hook.remove()
    assert seen == [2]
    alone = torch.cat([model.match(images, texts, pair.unsqueeze(0)) for pair in pairs])
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=1e-5)


def test_gradients_reach_the_pixels_through_matching(model, pixels):
    pixels.requires_grad_()
    texts = model.encode_text_states(TEXTS)
    model.match(model.encode_image_states(pixels), texts, torch.tensor([[0, 0], [1, 1], [2, 2]]))[:, 1].sum().backward()
    assert pixels.grad.abs().amax(dim=(1, 2, 3)).min() > 0


def test_states_can_be_chosen_repeatedly(model, pixels):
    states = model.encode_image_states(pixels).detach()
    again = states.select(torch.tensor([2, 2, 0]))
    assert len(again) == 3
    assert torch.equal(again.embedding[0], states.embedding[2])
    assert not again.hidden.requires_grad
    assert again.to("cpu").mask.all()


def test_towers_hold_all_weights_but_the_temperature(model):
    parts = [{id(p) for p in model.tower(which)} for which in ("image", "text", "fusion")]
    assert sum(map(len, parts)) == len(set.union(*parts))
    assert [n for n, p in model.named_parameters() if id(p) not in set.union(*parts)] == ["network.temp"]
    with pytest.raises(ValueError, match="'fusion'"):
        model.tower("audio")


def test_seeds_decide_the_weights(vocabulary):
    sizes = AlbefConfig(
        image_size=16, patch_size=8, vision_width=16, vision_layers=1, vision_heads=2, vision_mlp=32, vocab_size=64,
        positions=32, text_width=16, text_layers=2, text_heads=2, text_mlp=32, fusion_start=1, embed_dim=8,
    )  # fmt: skip
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    a, b, c = (ALBEF.from_config(sizes, vocabulary=vocabulary, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(a.network.itm_head.weight, b.network.itm_head.weight)
    assert not torch.equal(a.network.itm_head.weight, c.network.itm_head.weight)


def test_photos_are_squeezed_not_cropped(model):
    wide = Image.new("RGB", (96, 24), "black")
    wide.paste("white", (0, 0, 8, 24))
    assert model.preprocess([wide])[0, 0, 12, 0] > 0.9
