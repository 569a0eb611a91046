"""LLaVA-1.5's layout at tiny size, against Transformers' own forward, one text at a time."""

import json

import pytest
import torch

from crossguard.models import CLIP, Captioner, load_model
from llava_files import llava
from shared import make_clip, word_tokenizer

TEXTS = ["a red disc", "a small picture of a blue square on the left side", "yellow cross"]


@pytest.fixture
def pixels():
    return torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def theirs(tmp_path):
    return llava(tmp_path / "llava")


@pytest.fixture
def model(theirs, tmp_path):
    return load_model(tmp_path / "llava")


def asked(model, question):
    """The ids of LLaVA-1.5's question: the word for the picture once for each of its four patches."""
    ids = model.tokenizer(f"USER: {'<image>' * 4}\n{question} ASSISTANT:")["input_ids"]
    assert ids.count(model.network.config.image_token_id) == 4
    return ids


@torch.no_grad()
def test_losses_equal_those_of_transformers(model, theirs, pixels):
    assert isinstance(model, Captioner)
    questions = ["what is on the left", "what", model.prompt]
    rows = torch.tensor([0, 2, 2])
    ours = model.answer_loss(pixels, questions, TEXTS, rows=rows)
    for place, (question, text) in enumerate(zip(questions, TEXTS, strict=True)):
        prompt = asked(model, question)
        answer = [*model.tokenizer(text, add_special_tokens=False)["input_ids"], model.tokenizer.eos_token_id]
        one = (pixels[rows[place]][None] - 0.5) / 0.5
        logits = theirs(input_ids=torch.tensor([prompt + answer]), pixel_values=one).logits[0]
        known = logits[len(prompt) - 1 : -1].log_softmax(-1)[range(len(answer)), answer]
        print(f"LLaVA loss: {float((ours[place] + known.mean()).abs()):.1e}")
        torch.testing.assert_close(ours[place], -known.mean(), atol=1e-5, rtol=1e-5)
    captions = model.caption_loss(pixels, TEXTS)
    torch.testing.assert_close(captions, model.answer_loss(pixels, [model.prompt] * 3, TEXTS))


@torch.no_grad()
def test_what_is_written_equals_greedy_decoding_by_hand(model, theirs, pixels):
    questions = ["what is on the left", "what", "a red disc"]
    written = model.answer(pixels, questions, max_length=6)
    for place, question in enumerate(questions):
        ids = asked(model, question)
        start = len(ids)
        while len(ids) < start + 6:
            logits = theirs(input_ids=torch.tensor([ids]), pixel_values=(pixels[place][None] - 0.5) / 0.5).logits[0, -1]
            if len(ids) == start:
                logits[model.tokenizer.eos_token_id] = -torch.inf  # at least one word
            ids.append(int(logits.argmax()))
            if ids[-1] == model.tokenizer.eos_token_id:
                break
        assert written[place] == model.tokenizer.decode(ids[start:], skip_special_tokens=True).strip()
    assert len(model.generate(pixels, beams=2, min_length=1, max_length=4)) == 3


def test_gradients_reach_the_pixels_and_towers_hold_all(model, pixels):
    pixels = pixels.clone().requires_grad_()
    model.caption_loss(pixels, TEXTS).sum().backward()
    assert float(pixels.grad.abs().amax(dim=(1, 2, 3)).min()) > 0
    image, text = ({id(p) for p in model.tower(which)} for which in ("image", "text"))
    assert not image & text
    assert image | text == {id(p) for p in model.parameters()}
    with pytest.raises(ValueError, match="'image' or 'text'"):
        model.tower("fusion")


@torch.no_grad()
def test_it_saves_itself_whole_and_reads_its_template(model, pixels, tmp_path):
    model.prompt = "what is this"
    model.save_pretrained(tmp_path / "again")
    again = load_model(tmp_path / "again")
    assert (again.prompt, again.template, again.pixel_rule) == (model.prompt, model.template, model.pixel_rule)
    assert torch.equal(again.caption_loss(pixels, TEXTS), model.caption_loss(pixels, TEXTS))
    jinja = "{% for m in messages %}{% for c in m['content'] %}{{ '<image> ' if c['type'] == 'image' else c['text'] }}{% endfor %}{% endfor %} ASSISTANT :"
    (tmp_path / "llava" / "chat_template.json").write_text(json.dumps({"chat_template": jinja}))
    assert load_model(tmp_path / "llava").template == "<image> {question} ASSISTANT :"
    (tmp_path / "llava" / "chat_template.json").write_text(json.dumps({"chat_template": "{% for %}"}))
    with pytest.raises(ValueError, match="Expected a chat template"):
        load_model(tmp_path / "llava")


class TestAnotherTower:
    @torch.no_grad()
    def test_a_robust_tower_takes_the_place(self, model, pixels):
        robust = make_clip(3)
        changed = model.with_vision_tower(robust)
        vision = robust.network.vision_model
        seen = vision(pixel_values=robust.normalise(pixels), output_hidden_states=True).hidden_states[-2][:, 1:]
        wanted = model.network.model.multi_modal_projector(seen)
        torch.testing.assert_close(changed.look(pixels), wanted)
        assert not torch.allclose(changed.caption_loss(pixels, TEXTS), model.caption_loss(pixels, TEXTS), atol=1e-3)
        assert changed.pixel_rule == robust.pixel_rule
        assert changed.name == "llava through tiny"
        for key, value in model.network.state_dict().items():
            if "vision_tower" not in key:
                assert torch.equal(changed.network.state_dict()[key], value)

    def test_towers_of_other_sizes_are_refused(self, model):
        sizes = {
            "image_size": 16,
            "patch_size": 8,
            "text_width": 32,
            "text_layers": 1,
            "context_length": 16,
            "embed_dim": 8,
        }
        wide = CLIP.from_sizes(word_tokenizer(), vision_width=64, vision_layers=2, seed=0, **sizes)
        with pytest.raises(ValueError, match="tower of width 32"):
            model.with_vision_tower(wide)


def test_a_tokenizer_that_does_not_know_the_picture_is_refused(theirs, tmp_path):
    with pytest.raises(ValueError, match="tokenizer whose <image> has id"):
        load_model(tmp_path / "llava", tokenizer=word_tokenizer())
