"""BLIP: released checkpoints at tiny size against a second implementation, Transformers' own path, round trips."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import BlipForConditionalGeneration, BlipForImageTextRetrieval

from crossguard.models import (
    BLIP,
    BlipCaptioner,
    Captioner,
    FusionModel,
    MomentumTraining,
    PixelRule,
    VisionLanguageModel,
    load_model,
)
from crossguard.models.blip import encode_token
from crossguard.models.captions import clean_for_blip
from fusion_models import make_blip, make_captioner, released_blip
from fusion_reference import bert, embed, gelu, linear, norm, vit

TEXTS = ["A red disc.", "the small blue square on the left side", "a man's well-known dog!"]
HEADS = {"vision_heads": 4, "text_heads": 2}
PAIRS = torch.cartesian_prod(torch.arange(3), torch.arange(3))


@pytest.fixture
def blip(tmp_path):
    return make_blip(tmp_path)


@pytest.fixture
def captioner(tmp_path):
    return make_captioner(tmp_path)


@pytest.fixture
def pixels():
    return torch.rand(3, 3, 24, 24, generator=torch.Generator().manual_seed(1))


def vocabulary_size(folder):
    return len((folder / "vocab.txt").read_text().splitlines())


@torch.no_grad()
def outputs(model, pixels):
    images, texts = model.encode_image_states(pixels), model.encode_text_states(TEXTS)
    return images.embedding, texts.embedding, model.match(images, texts, PAIRS)


class TestRetrieval:
    @torch.no_grad()
    def test_features_and_matching_logits_equal_the_second_implementation(self, blip, pixels, tmp_path):
        size = vocabulary_size(tmp_path)
        state, tokens = released_blip(size), blip.tokenize(TEXTS)
        image = vit(state, pixels, 4)
        text = bert(state, embed(state, tokens.ids, "text_encoder."), tokens.mask, 2, range(2))
        encode = tokens.ids.clone()
        encode[:, 0] = size + 1
        rows, columns = PAIRS.T
        beside = embed(state, encode, "text_encoder.")[columns]
        fused = bert(state, beside, tokens.mask[columns], 2, range(2), image=image[rows])
        expected = (
            linear(state, "vision_proj", image[:, 0]),
            linear(state, "text_proj", text[:, 0]),
            linear(state, "itm_head", fused[:, 0]),
        )
        for have, want in zip(outputs(blip, pixels), expected, strict=True):
            torch.testing.assert_close(have, want, atol=1e-5, rtol=1e-5)
        assert expected[2].std() > 0.01
        torch.testing.assert_close(blip.logit_scale, torch.tensor(1 / 0.06))

    @torch.no_grad()
    def test_matching_equals_that_of_transformers_once_it_is_given_enc(self, blip, pixels, tmp_path):
        blip.save_pretrained(tmp_path / "m")
        theirs = BlipForImageTextRetrieval.from_pretrained(tmp_path / "m").eval()
        tokens = blip.tokenize(TEXTS)
        inputs = {"pixel_values": (pixels - blip._mean) / blip._std, "attention_mask": tokens.mask.long()}
        cosines = theirs(input_ids=tokens.ids, use_itm_head=False, **inputs).itm_score
        with_enc = tokens.ids.clone()
        with_enc[:, 0] = blip.encode_id
        logits = theirs(input_ids=with_enc, **inputs).itm_score
        images, texts, ours = outputs(blip, pixels)
        unit = torch.nn.functional.normalize
        torch.testing.assert_close(unit(images, dim=-1) @ unit(texts, dim=-1).T, cosines, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(ours.view(3, 3, 2).diagonal().T, logits, atol=1e-5, rtol=1e-5)
        without = theirs(input_ids=tokens.ids, **inputs).itm_score
        assert (without - logits).abs().max() > 0.01

    def test_meets_the_protocols(self, blip):
        assert isinstance(blip, VisionLanguageModel)
        assert isinstance(blip, FusionModel)
        assert blip.rank_adds_cosine

    def test_round_trip_is_bit_equal(self, blip, pixels, tmp_path):
        blip.save_pretrained(tmp_path / "m")
        again = load_model(tmp_path / "m")
        assert isinstance(again, BLIP)
        assert again.pixel_rule == blip.pixel_rule
        assert again.encode_id == blip.encode_id
        assert torch.equal(again.logit_scale, blip.logit_scale)
        assert all(torch.equal(a, b) for a, b in zip(outputs(again, pixels), outputs(blip, pixels), strict=True))

    def test_positions_follow_the_size_of_the_pictures(self, blip, tmp_path):
        larger = BLIP.from_released(tmp_path / "blip.pth", vocabulary=tmp_path / "vocab.txt", image_size=40, **HEADS)
        assert larger.encode_image(larger.preprocess([])).shape == (0, 8)
        assert larger.encode_image(torch.rand(2, 3, 40, 40)).shape == (2, 8)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda s: s.pop("itm_head.weight"), r"lacks \['itm_head\.weight'\]"),
            (lambda s: s.pop("text_proj.bias"), r"1 keys are missing \(text_proj\.bias\)"),
            (lambda s: s.update({"text_decoder.bert.x": torch.ones(1)}), r"1 keys are unknown \(text_decoder"),
            (lambda s: s.update({"vision_proj.bias": torch.ones(7)}), r"shape \[7\] instead of \[8\]"),
            (lambda s: s.pop("visual_encoder.blocks.1.attn.qkv.bias"), r"self_attn\.qkv\.bias"),
        ],
    )
    def test_other_checkpoints_are_refused(self, blip, tmp_path, change, message):
        state = released_blip(vocabulary_size(tmp_path))
        change(state)
        torch.save(state, tmp_path / "bad.pth")
        with pytest.raises(ValueError, match=message):
            BLIP.from_released(tmp_path / "bad.pth", vocabulary=tmp_path / "vocab.txt", **HEADS)

    def test_gradients_reach_the_pixels(self, blip, pixels):
        pixels.requires_grad_()
        states = blip.encode_image_states(pixels)
        blip.match(states, blip.encode_text_states(TEXTS), PAIRS)[:, 1].sum().backward()
        assert pixels.grad.abs().amax(dim=(1, 2, 3)).min() > 0

    def test_towers_hold_all_weights_but_the_temperature(self, blip):
        parts = [{id(p) for p in blip.tower(which)} for which in ("image", "text", "fusion")]
        assert sum(map(len, parts)) == len(set.union(*parts))
        assert [n for n, p in blip.named_parameters() if id(p) not in set.union(*parts)] == ["temperature"]
        with pytest.raises(ValueError, match="'fusion'"):
            blip.tower("audio")

    @torch.no_grad()
    def test_padding_does_not_change_an_answer(self, blip, pixels):
        images = blip.encode_image_states(pixels)
        together = blip.match(images, blip.encode_text_states(TEXTS), PAIRS).view(3, 3, 2)
        one = torch.cartesian_prod(torch.arange(3), torch.arange(1))
        alone = torch.stack([blip.match(images, blip.encode_text_states([text]), one) for text in TEXTS], dim=1)
        torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)

    def test_trains_with_momentum_and_queues(self, blip, pixels):
        training = MomentumTraining(blip, links=torch.tensor([[0, 0], [1, 1], [2, 2]]), queue_size=8).train()
        optimiser = torch.optim.AdamW(training.model.parameters(), lr=1e-3)
        ids, totals = torch.arange(3), []
        for _ in range(12):
            draws = torch.Generator().manual_seed(0)
            losses = training(pixels, TEXTS, image_ids=ids, text_ids=ids, generator=draws)
            optimiser.zero_grad()
            losses.total.backward()
            optimiser.step()
            totals.append(losses.total.item())
        assert totals[-1] < totals[3]  # from there on the queues are full


class TestTexts:
    def test_tokens_are_cls_pieces_sep(self, blip):
        ids = blip.tokenize(["A [MASK] man's, well-known dog."]).ids[0]
        pieces = "[CLS] a [MASK] man ' s , well - known dog [SEP]"
        assert " ".join(blip.tokenizer.convert_ids_to_tokens(ids)) == pieces

    def test_at_most_thirty_words_and_thirty_five_tokens(self, blip):
        assert blip.tokenize(["dog " * 99]).ids.shape[1] == 32
        assert blip.tokenize(["drawings " * 99]).ids.shape[1] == blip.context_length == 35

    @given(st.text(max_size=60))
    def test_cleaning_twice_changes_nothing(self, text):
        once = clean_for_blip(text, max_words=99)
        assert clean_for_blip(once, max_words=99) == once
        assert not set(once) & set('.!"()*#:;~')

    def test_enc_is_the_tokenizers_or_the_last_id(self, blip, unchecked):
        class Plain:
            def __len__(self):
                return 30522

            def get_vocab(self):
                return {}

        assert blip.encode_id == blip.tokenizer.convert_tokens_to_ids("[ENC]") == len(blip.tokenizer) - 1
        assert encode_token(Plain(), vocabulary=30524) == 30523
        with pytest.raises(ValueError, match="room for"):
            encode_token(Plain(), vocabulary=30522)


class TestCaptioner:
    @torch.no_grad()
    def test_loss_equals_the_second_implementation(self, captioner, pixels, tmp_path):
        size = vocabulary_size(tmp_path)
        state = released_blip(size, captioner=True)
        image = vit(state, pixels, 4)
        losses = []
        for row, text in enumerate(TEXTS):
            prompted = f"a picture of {clean_for_blip(text, max_words=30)}"
            ids = captioner.tokenizer(prompted)["input_ids"]
            ids[0] = size  # [DEC]
            expected = 0.0
            for place in range(4, len(ids)):  # [DEC] a picture of | the caption and its end
                seen = torch.tensor([ids[:place]])
                hidden = embed(state, seen, "text_decoder.bert.")
                hidden = causal(state, hidden, image[row : row + 1])
                logits = language_head(state, hidden[0, -1])
                expected -= logits.log_softmax(-1)[ids[place]] / (len(ids) - 4)
            losses.append(expected)
        torch.testing.assert_close(captioner.caption_loss(pixels, TEXTS), torch.stack(losses), atol=1e-4, rtol=1e-4)

    @torch.no_grad()
    def test_greedy_captions_are_the_likeliest_tokens_one_by_one(self, captioner, pixels, tmp_path):
        size = vocabulary_size(tmp_path)
        state = released_blip(size, captioner=True)
        captions = captioner.generate(pixels, beams=1, min_length=8, max_length=12)
        for row in range(3):
            image = vit(state, pixels[row : row + 1], 4)
            ids = [size, *captioner.tokenizer("a picture of ", add_special_tokens=False)["input_ids"]]
            while len(ids) < 12:
                hidden = causal(state, embed(state, torch.tensor([ids]), "text_decoder.bert."), image)
                logits = language_head(state, hidden[0, -1])
                if len(ids) < 8:
                    logits[captioner.tokenizer.sep_token_id] = -torch.inf
                ids.append(int(logits.argmax()))
                if ids[-1] == captioner.tokenizer.sep_token_id:
                    break
            assert captions[row] == captioner.tokenizer.decode(ids[4:], skip_special_tokens=True).strip()

    def test_more_beams_find_captions_no_less_likely(self, captioner, pixels):
        sizes = {"min_length": 12, "max_length": 12}
        greedy, wide = (captioner.generate(pixels, beams=beams, **sizes) for beams in (1, 5))
        assert len(wide) == 3
        assert captioner.generate(pixels, beams=5, **sizes) == wide
        assert all(isinstance(caption, str) for caption in greedy)

    def test_meets_the_protocol_and_is_no_retriever(self, captioner):
        assert isinstance(captioner, Captioner)
        assert not isinstance(captioner, VisionLanguageModel)

    def test_round_trip_is_bit_equal(self, captioner, pixels, tmp_path):
        captioner.save_pretrained(tmp_path / "m")
        again = load_model(tmp_path / "m")
        assert isinstance(again, BlipCaptioner)
        assert again.prompt == captioner.prompt
        assert torch.equal(again.caption_loss(pixels, TEXTS), captioner.caption_loss(pixels, TEXTS))
        assert again.generate(pixels) == captioner.generate(pixels)

    @torch.no_grad()
    def test_loss_equals_that_of_transformers_without_a_prompt(self, captioner, pixels, tmp_path):
        captioner.prompt = ""
        captioner.save_pretrained(tmp_path / "m")
        theirs = BlipForConditionalGeneration.from_pretrained(tmp_path / "m").eval()
        for row, text in enumerate(TEXTS):
            tokens = captioner.tokenize([text])
            normal = (pixels[row : row + 1] - captioner._mean) / captioner._std
            output = theirs(pixel_values=normal, input_ids=tokens.ids, labels=tokens.ids)
            ours = captioner.caption_loss(pixels[row : row + 1], [text])[0]
            torch.testing.assert_close(ours, output.loss, atol=1e-5, rtol=1e-5)

    def test_gradients_reach_the_pixels(self, captioner, pixels):
        pixels.requires_grad_()
        captioner.caption_loss(pixels, TEXTS).sum().backward()
        assert pixels.grad.abs().amax(dim=(1, 2, 3)).min() > 0

    def test_one_caption_per_image(self, captioner, pixels):
        with pytest.raises(ValueError, match="one caption per image"):
            captioner.caption_loss(pixels, TEXTS[:2])
        with pytest.raises(ValueError, match=r"per row \(2\), but got 3"):
            captioner.caption_loss(pixels, TEXTS, rows=torch.tensor([0, 1]))

    def test_captions_of_one_image_share_its_states(self, captioner, pixels):
        rows = torch.tensor([1, 1, 0])
        shared = captioner.caption_loss(pixels, TEXTS, rows=rows)
        torch.testing.assert_close(shared, captioner.caption_loss(pixels[rows], TEXTS), atol=1e-5, rtol=1e-5)

    def test_an_output_layer_of_its_own_is_refused(self, captioner, tmp_path):
        state = released_blip(vocabulary_size(tmp_path), captioner=True)
        state["text_decoder.cls.predictions.decoder.weight"] = torch.zeros_like(
            state["text_decoder.cls.predictions.decoder.weight"]
        )
        torch.save(state, tmp_path / "bad.pth")
        with pytest.raises(ValueError, match="they differ"):
            BlipCaptioner.from_released(tmp_path / "bad.pth", vocabulary=tmp_path / "vocab.txt", **HEADS)

    def test_towers_hold_all_weights(self, captioner):
        parts = [{id(p) for p in captioner.tower(which)} for which in ("image", "text")]
        assert set.union(*parts) == {id(p) for p in captioner.parameters()}
        with pytest.raises(ValueError, match="'image' or 'text'"):
            captioner.tower("fusion")


def causal(state, hidden, image):
    """The decoder's states: token by token, each layer sees what came before."""
    for layer in range(2):
        hidden = torch.cat(
            [
                bert(state, hidden[:, : place + 1], None, 2, [layer], "text_decoder.bert.", image)[:, -1:]
                for place in range(hidden.shape[1])
            ],
            1,
        )
    return hidden


def language_head(state, hidden):
    name = "text_decoder.cls.predictions"
    hidden = norm(state, f"{name}.transform.LayerNorm", gelu(linear(state, f"{name}.transform.dense", hidden)), 1e-12)
    return state[f"{name}.decoder.weight"] @ hidden + state[f"{name}.bias"]


def test_other_blips_are_refused(blip, tmp_path):
    blip.save_pretrained(tmp_path / "m")
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    (tmp_path / "m" / "config.json").write_text(json.dumps(config | {"architectures": ["BlipForQuestionAnswering"]}))
    with pytest.raises(ValueError, match=r"names \['BlipForQuestionAnswering'"):
        load_model(tmp_path / "m")
    (tmp_path / "m" / "config.json").write_text(
        json.dumps(config | {"architectures": ["BlipForConditionalGeneration"]})
    )
    with pytest.raises(ValueError, match="whole BLIP captioning checkpoint"):
        load_model(tmp_path / "m")


def test_processors_of_transformers_say_whether_to_crop(tmp_path):
    rule = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 2}
    file = tmp_path / "preprocessor_config.json"
    file.write_text(
        json.dumps(rule | {"image_processor_type": "BlipImageProcessor", "size": {"height": 384, "width": 384}})
    )
    blip = PixelRule.from_pretrained(tmp_path, default_size=1)
    assert (blip.size, blip.crop, blip.resample) == ((384, 384), False, 2)
    file.write_text(
        json.dumps(rule | {"feature_extractor_type": "CLIPFeatureExtractor", "size": 256, "crop_size": 224})
    )
    clip = PixelRule.from_pretrained(tmp_path, default_size=1)
    assert (clip.size, clip.crop, clip.edge) == ((224, 224), True, 256)
    file.write_text(json.dumps(rule | {"image_processor_type": "SiglipImageProcessor", "size": {"shortest_edge": 224}}))
    with pytest.raises(ValueError, match="height and width"):
        PixelRule.from_pretrained(tmp_path, default_size=1)
