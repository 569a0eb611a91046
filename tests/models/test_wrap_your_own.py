"""The page on wrapping one's own model: its examples run, are short, meet the protocols, take attacks and training."""

import copy
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from crossguard.attacks import make_attack
from crossguard.certify import certify
from crossguard.data import MultiModalSamples, PairBatch
from crossguard.evaluate import evaluate
from crossguard.models import (
    MODELS,
    Captioner,
    FusionModel,
    ImageToText,
    MomentumTraining,
    MultiModalClassifier,
    PackingClassifier,
    PatchModel,
    PixelRule,
    TwoTowers,
    VisionLanguageModel,
    cosine,
    load_model,
    register_model,
)
from crossguard.threat import LInf, ThreatModel, WordEdits
from shared import word_tokenizer

PAGE = Path(__file__).parents[2] / "docs" / "wrap-your-own.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), flags=re.M | re.S)
THREAT = ThreatModel(image=LInf(eps=8 / 255), text=WordEdits(words=1))


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Everything that the page defines, run from top to bottom."""
    folder = tmp_path_factory.mktemp("tokenizer")
    word_tokenizer().save_pretrained(folder)
    names = {"TOKENIZER": str(folder)}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for block in BLOCKS:
            exec(compile(block, str(PAGE), "exec"), names)
    return names


@pytest.fixture
def batch(page, toy_pairs, toy_batch):
    pixels = page["model"].preprocess([toy_pairs.image(int(i)) for i in toy_batch.image_ids])
    return PairBatch(pixels, toy_batch.texts, toy_batch.links, toy_batch.image_ids, toy_batch.text_ids)


def test_each_wrapping_has_at_most_fifteen_lines():
    """All lines but blank ones; the first block holds the networks that stand for the reader's own."""
    sizes = [sum(bool(line.strip()) for line in block.splitlines()) for block in BLOCKS[1:]]
    assert len(sizes) == 7
    assert max(sizes) <= 15


def test_protocols(page):
    assert isinstance(page["model"], VisionLanguageModel)
    assert not isinstance(page["model"], PatchModel)
    assert isinstance(page["patchwise"], PatchModel)
    assert isinstance(page["behind_ttc"], VisionLanguageModel)
    assert isinstance(page["behind_rounding"], VisionLanguageModel)
    assert isinstance(page["fused"], FusionModel)
    assert isinstance(page["writer"], Captioner)
    assert isinstance(page["Sensors"](), MultiModalClassifier)
    assert not isinstance(page["Sensors"](), PackingClassifier)
    assert isinstance(page["PackedSensors"](), PackingClassifier)


@pytest.mark.parametrize("name", ["model", "patchwise", "fused", "behind_rounding"])
def test_attacks_hurt_and_evaluation_measures(page, toy_pairs, batch, name):
    model = page[name]
    attacked = make_attack("sga", steps=3)(model, batch, threat=THREAT, seed=0)
    assert attacked.image_drop.mean() > 0
    result = evaluate(model, toy_pairs, attack="pgd", threat=THREAT.only("image"), batch_size=12)
    assert 0 <= result.robust["ir@1"] <= result.clean["ir@10"] <= 100


def test_left_out_patches_do_not_matter(page, batch):
    kept = torch.rand(len(batch.pixels), 16, generator=torch.Generator().manual_seed(0)) < 0.5
    hidden = ~kept.view(-1, 1, 4, 4).repeat_interleave(8, 2).repeat_interleave(8, 3)
    other = batch.pixels.masked_fill(hidden, torch.nan)
    assert torch.equal(page["patchwise"].encode_image(other, kept), page["patchwise"].encode_image(batch.pixels, kept))


def test_a_wrapped_fusion_model_trains_with_queues(page, batch):
    model = page["fused"]
    assert torch.equal(model.encode_text_states(list(batch.texts)).embedding, model.encode_text(batch.texts))
    links = torch.stack([batch.image_ids[batch.links[:, 0]], batch.text_ids[batch.links[:, 1]]], dim=1)
    training = MomentumTraining(model, links=links, queue_size=16)
    optimiser, totals = torch.optim.AdamW(training.model.parameters(), lr=0.01), []
    for seed in range(30):
        losses = training(
            batch.pixels,
            batch.texts,
            image_ids=batch.image_ids,
            text_ids=batch.text_ids,
            generator=torch.Generator().manual_seed(seed),
        )
        optimiser.zero_grad()
        losses.total.backward()
        optimiser.step()
        totals.append(losses.total.item())
    assert sum(totals[-5:]) < sum(totals[3:8])


def test_a_wrapped_captioner(page, batch, tmp_path):
    writer, pixels = page["writer"], batch.pixels[:2].clone().requires_grad_()
    loss = writer.caption_loss(pixels, ["a red disc", "blue square on the left"])
    loss.sum().backward()
    assert loss.shape == (2,)
    assert pixels.grad.any()
    assert len(writer.generate(batch.pixels[:2])) == 2
    writer.save_pretrained(tmp_path / "m")
    again = ImageToText(page["Eye"](), page["BagOfWords"](), pixel_rule=page["rule"], context_length=16, name="again")
    again.load_pretrained(tmp_path / "m")
    assert torch.equal(again.caption_loss(pixels, ["a disc", "red"]), writer.caption_loss(pixels, ["a disc", "red"]))
    assert {id(p) for w in ("image", "text") for p in writer.tower(w)} == {id(p) for p in writer.parameters()}
    with pytest.raises(ValueError, match="one caption per image"):
        writer.caption_loss(pixels, ["a disc"])
    with pytest.raises(ValueError, match="'image' or 'text'"):
        writer.tower("fusion")


def test_a_wrapped_classifier_ignores_what_is_left_out(page):
    values = torch.randn(5, 9, 3, generator=torch.Generator().manual_seed(0))
    kept = torch.zeros(5, 9, dtype=torch.bool)
    kept[:, ::2] = True
    other = torch.where(kept.unsqueeze(-1), values, 99.0)
    model = page["Sensors"]()
    masks = dict.fromkeys(model.modalities, kept)
    ours, theirs = (model(dict.fromkeys(model.modalities, v), masks) for v in (values, other))
    assert torch.equal(ours, theirs)


class TestTwoTowers:
    def test_weights_return_bit_equal(self, page, batch, tmp_path):
        page["model"].save_pretrained(tmp_path / "m")
        parts = {"tokenizer": page["tokenizer"], "pixel_rule": page["rule"], "context_length": 16, "name": "again"}
        again = TwoTowers(page["ImageTower"](), page["TextTower"](), **parts)
        again.load_pretrained(tmp_path / "m")
        assert torch.equal(again.encode_image(batch.pixels), page["model"].encode_image(batch.pixels))
        assert torch.equal(again.logit_scale, page["model"].logit_scale)
        with pytest.raises(ValueError, match="this very model"):
            TwoTowers(page["TextTower"](), page["TextTower"](), **parts).load_pretrained(tmp_path / "m")
        (tmp_path / "m" / "model.safetensors").write_bytes(b"half")
        with pytest.raises(ValueError, match="could not be read"):
            again.load_pretrained(tmp_path / "m")

    def test_a_folder_says_what_makes_it(self, page, tmp_path):
        model = page["model"]
        model.save_pretrained(tmp_path / "m")
        with pytest.raises(ValueError, match=r"says 'two-towers'.*make it as before and call its load_pretrained"):
            load_model(tmp_path / "m")
        made = copy.deepcopy(model)
        made.model_type, made.name = "of-mine", "my own (2)"
        made.save_pretrained(tmp_path / "m")

        def make(folder, *, offline):
            again = copy.deepcopy(model)
            again.load_pretrained(folder)
            return again

        register_model("of-mine", make, summary="mine", model_types=("of-mine",))
        try:
            assert load_model(tmp_path / "m").name == "my own (2)"
        finally:
            del MODELS["of-mine"]

    def test_normalisation_and_temperature(self, page):
        model = page["model"]
        pixels = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(model.encode_image(pixels), model.image((pixels - 0.5) / 0.5))
        torch.testing.assert_close(model.logit_scale, torch.tensor(1 / 0.07))
        assert cosine(model.encode_image(pixels), model.encode_text(["a disc"])).shape == (2, 1)

    def test_towers(self, page):
        model = page["model"]
        rest = {id(p) for p in model.parameters()} - {id(p) for w in ("image", "text") for p in model.tower(w)}
        assert rest == {id(model.log_temperature)}
        with pytest.raises(ValueError, match="'image' or 'text'"):
            model.tower("fusion")

    @pytest.mark.parametrize(
        ("options", "message"), [({"temperature": 0.0}, "temperature"), ({"pad": None}, "padding")]
    )
    def test_refused(self, options, message):
        tokenizer = word_tokenizer()
        if "pad" in options:
            tokenizer.pad_token = None
        with pytest.raises(ValueError, match=message):
            TwoTowers(
                torch.nn.Identity(),
                torch.nn.Identity(),
                tokenizer=tokenizer,
                pixel_rule=PixelRule.squeeze(8),
                context_length=8,
                name="x",
                temperature=options.get("temperature", 0.07),
            )


@pytest.mark.parametrize("scheme", ["independent", "joint"])
def test_a_wrapped_classifier_is_certified_packed_as_it_is_overwritten(page, scheme):
    torch.manual_seed(0)
    model = page["PackedSensors"]()
    values = np.random.default_rng(0).normal(size=(2, 5, 8, 3)).astype(np.float32)
    samples = MultiModalSamples(
        "toy",
        "test",
        dict(zip(model.modalities, values, strict=True)),
        np.zeros(5, dtype=np.int64),
        model.classes,
        np.arange(5),
    )
    options = {"keep": dict.fromkeys(model.modalities, 2), "draws": 50, "alpha": 0.01, "scheme": scheme, "seed": 0}
    packed = certify(model, samples, **options)
    assert "dropped" in packed.ablation
    assert (packed.counts.votes == certify(model, samples, fill=0.0, **options).counts.votes).all()
