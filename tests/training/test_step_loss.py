"""Outer losses against what their names say, and the accuracies that are shown."""

import copy

import pytest
import torch

from crossguard.models import cosine
from crossguard.models.losses import contrastive, contrastive_drawn
from crossguard.training import DEFENCES, TrainingBatch
from crossguard.training.accuracy import batch_accuracy
from crossguard.training.step_loss import StepLoss


@pytest.fixture
def step_batch(toy_batch):
    positives = toy_batch.positives
    ignored = torch.zeros_like(positives)
    ignored[0, ~positives[0]] = torch.arange(int((~positives[0]).sum())) == 0
    return TrainingBatch(toy_batch, positives, ignored)


def itc(model, pixels, texts, step_batch):
    logits = model.logit_scale * cosine(model.encode_image(pixels), model.encode_text(texts))
    return contrastive(logits, step_batch.targets, ignored=step_batch.ignored)


def answers(model, pixels, texts):
    return (model.logit_scale * cosine(model.encode_image(pixels), model.encode_text(texts))).softmax(dim=1)


def divergence(p, q):
    return sum((p[i] * (p[i] / q[i]).log()).sum() for i in range(len(p))) / len(p)


def attention_gap(model, original, pixels, step_batch):
    """By hand: where patches of an image look like its own texts, pixel by pixel."""

    def maps(net, images):
        vision = net.network.vision_model(pixel_values=net.normalise(images))
        tokens = net.network.visual_projection(net.network.vision_model.post_layernorm(vision.last_hidden_state))
        texts = torch.nn.functional.normalize(original.encode_text(step_batch.batch.texts), dim=1)
        found = []
        for own, patches in zip(step_batch.targets, tokens[:, 1:], strict=True):
            cosines = (patches / patches.norm(dim=1, keepdim=True)) @ texts[own].mean(dim=0)
            scaled = (cosines - cosines.min()) / (cosines.max() - cosines.min())
            side = int(len(scaled) ** 0.5)
            enlarge = torch.nn.Upsample(size=images.shape[-2:], mode="bilinear")
            found.append(enlarge(scaled.view(1, 1, side, side)).flatten())
        return torch.stack(found)

    return (maps(model, pixels) - maps(original, step_batch.batch.pixels)).square().sum(dim=1).sqrt().mean()


def test_every_defence_is_the_loss_of_its_name(tiny_clip, step_batch):
    clean = step_batch.batch
    adversarial = (clean.pixels.flip(0), tuple(text + " plain" for text in clean.texts))
    original = copy.deepcopy(tiny_clip)
    with torch.no_grad():
        tiny_clip.network.visual_projection.weight.mul_(1.1)
        tiny_clip.network.text_projection.weight.mul_(0.9)
        image, text = tiny_clip.encode_image(adversarial[0]), tiny_clip.encode_text(adversarial[1])
        image_gap = image - original.encode_image(clean.pixels)
        text_gap = text - original.encode_text(clean.texts)
        mixed = 0.5 * itc(tiny_clip, adversarial[0], clean.texts, step_batch) + 0.5 * itc(
            tiny_clip, clean.pixels, adversarial[1], step_batch
        )
        expected = {
            "clean": itc(tiny_clip, clean.pixels, clean.texts, step_batch),
            "tecoa": itc(tiny_clip, adversarial[0], clean.texts, step_batch),
            "fare": image_gap.pow(2).sum(dim=1).mean(),
            "pmg-aft": itc(tiny_clip, adversarial[0], clean.texts, step_batch)
            + divergence(answers(tiny_clip, adversarial[0], clean.texts), answers(tiny_clip, clean.pixels, clean.texts))
            + divergence(
                answers(tiny_clip, adversarial[0], clean.texts), answers(original, adversarial[0], clean.texts)
            ),
            "tga-zsr": itc(tiny_clip, adversarial[0], clean.texts, step_batch)
            + 0.08 * attention_gap(tiny_clip, original, adversarial[0], step_batch)
            + 0.05 * attention_gap(tiny_clip, original, clean.pixels, step_batch),
            "mmcoa": mixed,
            "leaf": text_gap.pow(2).sum(dim=1).mean(),
            "mat": itc(tiny_clip, *adversarial, step_batch),
            "mat+": itc(tiny_clip, *adversarial, step_batch),
        }
    assert expected.keys() == DEFENCES.keys()
    for name, row in DEFENCES.items():
        got = StepLoss(tiny_clip, original, row.terms, step_batch, seed=0, step=0).value(adversarial)
        assert got.requires_grad
        assert torch.allclose(got, expected[name], rtol=1e-4), name


def test_drawn_targets_leave_the_other_true_pairs_out(tiny_clip, toy_batch):
    positives = toy_batch.positives
    step_batch = TrainingBatch(toy_batch, positives, torch.zeros_like(positives))
    adversarial = (toy_batch.pixels, toy_batch.texts)
    terms = DEFENCES["mat+"].terms
    with torch.no_grad():
        loss = StepLoss(tiny_clip, tiny_clip, terms, step_batch, seed=0, step=1, draws_targets=True)
        got = loss.value(adversarial)
        logits = tiny_clip.logit_scale * cosine(
            tiny_clip.encode_image(toy_batch.pixels), tiny_clip.encode_text(toy_batch.texts)
        )
    expected = contrastive_drawn(logits, positives, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(got, expected)


def test_what_each_defence_attacks_and_trains():
    assert {name: (sorted(row.attacks), row.trains, row.one_to_many) for name, row in DEFENCES.items()} == {
        "clean": ([], ("image", "text"), False),
        "tecoa": (["image"], ("image",), False),
        "fare": (["image"], ("image",), False),
        "pmg-aft": (["image"], ("image",), False),
        "tga-zsr": (["image"], ("image",), False),
        "mmcoa": (["image", "text"], ("image", "text"), False),
        "leaf": (["text"], ("text",), False),
        "mat": (["image", "text"], ("image", "text"), False),
        "mat+": (["image", "text"], ("image", "text"), True),
    }


def test_batch_accuracy_counts_own_texts_and_not_ties():
    right, up = [1.0, 0.0], [0.0, 1.0]
    images = torch.tensor([right, up, [0.5, 0.5]])  # the last is as near to one text as to the other
    positives = torch.tensor([[True, False], [True, False], [True, False]])
    assert batch_accuracy(images, torch.tensor([right, up]), positives) == pytest.approx(1 / 3)
    both = torch.tensor([[True, True, False], [False, False, True], [True, True, True]])
    assert batch_accuracy(images, torch.tensor([right, right, up]), both) == 1.0
