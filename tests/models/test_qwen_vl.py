"""Qwen2.5-VL's layout at tiny size, against Transformers' own preprocessing and forward, one text at a time."""

import json

import pytest
import torch
from PIL import Image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

import crossguard as cg
from crossguard.checks import WrongKind
from crossguard.models import Captioner, PixelRule, QwenVL, load_model
from llava_files import llava
from qwen_files import qwen

TEXTS = ["a red disc", "a small picture of a blue square on the left side", "yellow cross"]
SIZE = (24, 40)  # three by five merged patches
RULE = PixelRule(SIZE, (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711), crop=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("qwen") / "qwen"


@pytest.fixture(scope="module")
def theirs(folder):
    return qwen(folder)


@pytest.fixture
def model(theirs, folder):
    return load_model(folder, preprocessing=RULE)


@pytest.fixture
def pixels():
    drawn = torch.randint(0, 256, (3, 3, *SIZE), generator=torch.Generator().manual_seed(1))
    return drawn.float() / 255


def prepared(folder, pixels):
    """What the released preprocessing makes of one picture of this size."""
    processor = Qwen2VLImageProcessorPil.from_pretrained(folder)
    image = Image.fromarray((pixels * 255).round().byte().permute(1, 2, 0).numpy())
    return dict(processor(images=[image], return_tensors="pt"))


def asked(model, question):
    """The ids of the question: the word for the picture once for each merged patch."""
    ids = model.tokenizer(
        f"<|im_start|>user <|vision_start|>{'<|image_pad|>' * 15}<|vision_end|>{question}<|im_end|><|im_start|> assistant"
    )["input_ids"]
    assert ids.count(model.network.config.image_token_id) == 15
    return ids


def logits(theirs, ids, given):
    ids = torch.tensor([ids])
    kinds = (ids == theirs.config.image_token_id).int()
    return theirs(input_ids=ids, mm_token_type_ids=kinds, attention_mask=torch.ones_like(ids), **given).logits[0]


@torch.no_grad()
def test_patches_and_features_equal_those_of_transformers(model, theirs, folder, pixels):
    given = [prepared(folder, picture) for picture in pixels]
    patches = torch.cat([each["pixel_values"] for each in given])
    torch.testing.assert_close(model._patches(pixels), patches, atol=2e-6, rtol=0)
    features = [torch.cat(list(theirs.model.get_image_features(**each).pooler_output)) for each in given]
    difference = (model.look(pixels) - torch.stack(features)).abs().max()
    print(f"Qwen2.5-VL features: {float(difference):.1e}")
    assert difference < 1e-4


@torch.no_grad()
def test_losses_equal_those_of_transformers(model, theirs, folder, pixels):
    assert isinstance(model, Captioner)
    questions, rows = ["what is on the left", "what", model.prompt], torch.tensor([0, 2, 2])
    ours = model.answer_loss(pixels, questions, TEXTS, rows=rows)
    for place, (question, text) in enumerate(zip(questions, TEXTS, strict=True)):
        prompt = asked(model, question)
        answer = [*model.tokenizer(text, add_special_tokens=False)["input_ids"], model.tokenizer.eos_token_id]
        found = logits(theirs, prompt + answer, prepared(folder, pixels[rows[place]]))
        known = found[len(prompt) - 1 : -1].log_softmax(-1)[range(len(answer)), answer]
        print(f"Qwen2.5-VL loss: {float((ours[place] + known.mean()).abs()):.1e}")
        torch.testing.assert_close(ours[place], -known.mean(), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_what_is_written_equals_greedy_decoding_by_hand(model, theirs, folder, pixels):
    questions = ["what is on the left", "what", "a red disc"]
    written = model.answer(pixels, questions, max_length=6)
    for place, question in enumerate(questions):
        ids = asked(model, question)
        start = len(ids)
        while len(ids) < start + 6:
            last = logits(theirs, ids, prepared(folder, pixels[place]))[-1]
            if len(ids) == start:
                last[model.tokenizer.eos_token_id] = -torch.inf  # at least one word
            ids.append(int(last.argmax()))
            if ids[-1] == model.tokenizer.eos_token_id:
                break
        assert written[place] == model.tokenizer.decode(ids[start:], skip_special_tokens=True).strip()


@torch.no_grad()
def test_beams_never_mix_pictures_up(model, pixels):
    together = model.answer(pixels, ["what is on the left", "what", "what"], beams=3, max_length=5)
    alone = [
        model.answer(pixels[i : i + 1], [question], beams=3, max_length=5)[0]
        for i, question in enumerate(["what is on the left", "what", "what"])
    ]
    assert together == alone


def test_gradients_reach_the_pixels_and_towers_hold_all(model, pixels):
    pixels = pixels.clone().requires_grad_()
    model.caption_loss(pixels, TEXTS).sum().backward()
    assert float(pixels.grad.abs().amax(dim=(1, 2, 3)).min()) > 0
    image, text = ({id(p) for p in model.tower(which)} for which in ("image", "text"))
    assert not image & text
    assert image | text == {id(p) for p in model.parameters()}


@torch.no_grad()
def test_a_gradient_is_the_slope_of_the_loss_of_stored_pictures(model, pixels):
    way = torch.randn(pixels.shape, generator=torch.Generator().manual_seed(3))
    model.double()
    model.network.double()
    pixels, way = pixels.double(), way.double()
    with torch.enable_grad():
        leaf = pixels.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(model.caption_loss(leaf, TEXTS).sum(), leaf)
    steps = [float(model.caption_loss(pixels + sign * 5e-4 * way, TEXTS).sum()) for sign in (1, -1)]
    assert float((gradient * way).sum()) == pytest.approx((steps[0] - steps[1]) / 1e-3, rel=1e-2)


@torch.no_grad()
def test_it_saves_itself_whole_and_says_its_size(model, pixels, tmp_path, folder):
    assert load_model(folder).image_size == (448, 448)
    model.prompt = "what is this"
    model.save_pretrained(tmp_path / "again")
    again = load_model(tmp_path / "again")
    assert isinstance(again, QwenVL)
    assert (again.prompt, again.template, again.pixel_rule) == (model.prompt, model.template, model.pixel_rule)
    assert torch.equal(again.caption_loss(pixels, TEXTS), model.caption_loss(pixels, TEXTS))


@torch.no_grad()
def test_another_tower_takes_the_place(model, pixels, tmp_path, unchecked):
    qwen(tmp_path / "robust", seed=5)
    robust = load_model(tmp_path / "robust", preprocessing=RULE)
    changed = model.with_vision_tower(robust)
    torch.testing.assert_close(changed.look(pixels), robust.look(pixels))
    assert not torch.allclose(changed.caption_loss(pixels, TEXTS), model.caption_loss(pixels, TEXTS), atol=1e-3)
    assert changed.name == "qwen through robust"
    llava(tmp_path / "llava")
    with pytest.raises(WrongKind, match="image tower of a Qwen2.5-VL"):
        model.with_vision_tower(load_model(tmp_path / "llava"))


def test_sizes_that_patches_do_not_divide_are_refused(model, folder, tmp_path):
    with pytest.raises(ValueError, match="multiples of 8 pixels"):
        load_model(folder, preprocessing=PixelRule.squeeze(20))
    with pytest.raises(ValueError, match="multiples of 8 pixels"):
        model.set_pixel_rule(PixelRule.squeeze(30))
    (folder / "preprocessor_config.json").rename(tmp_path / "kept.json")
    with pytest.raises(ValueError, match=r"Expected a preprocessor_config.json .* Give `preprocessing=`"):
        load_model(folder)
    (tmp_path / "kept.json").rename(folder / "preprocessor_config.json")


def test_a_pictures_word_in_a_text_is_no_picture(model, pixels, toy_pairs):
    word = "<|image_pad|>"
    with torch.no_grad():
        plain, marked = (model.answer_loss(pixels[:1], [f"what {w}"], [f"a red {w}"]) for w in ("", word))
        assert torch.equal(plain, marked)
    how = {"attack": "pgd", "threat": cg.ThreatModel(image=cg.LInf(8 / 255))}
    for target in (f"a {word} disc", "a <|im_end|> disc"):
        with pytest.raises(ValueError, match="can write, but .* comes back as 'a disc'"):
            cg.evaluate(model, toy_pairs.head(2), target=target, **how)


def test_questions_beyond_the_context_are_refused(model, pixels):
    with pytest.raises(ValueError, match=r"fits into 128 tokens with its picture's 15, but 'what what"):
        model.answer(pixels[:1], ["what " * 200])


def test_it_is_attacked_as_any_captioner(model, toy_pairs):
    pairs = toy_pairs.head(2)
    how = {"attack": "pgd", "attack_options": {"steps": 2}, "threat": cg.ThreatModel(image=cg.LInf(8 / 255))}
    result = cg.evaluate(model, pairs, beams=1, max_length=4, min_length=1, **how)
    assert all(row["robust_loss"] > row["clean_loss"] for row in result.rows)
    assert json.dumps(result.rows[0])
