"""Inner maximisation: within budget, raising the loss it is for, leaving the model alone."""

import pytest
import torch
from training_helpers import ToySource

from crossguard.attacks import count_word_edits
from crossguard.models import cosine
from crossguard.models.losses import contrastive, embedding_l2
from crossguard.threat import LInf
from crossguard.training import DEFENCES, InnerAttack, Swaps, TrainingBatch
from crossguard.training.step_loss import StepLoss
from shared import make_clip

EPS = 8 / 255
MODEL = make_clip()


def attack(model, step_batch, terms, *, seed=0, step=0, **options):
    """What the inner attack finds for the terms of a loss."""
    return make_inner(**options)(StepLoss(model, model, terms, step_batch, seed=seed, step=step))


def make_inner(**options):
    values = {
        "image": LInf(EPS),
        "words": 1,
        "swaps": Swaps(ToySource(), MODEL),
        "text_tries": 20,
        "pgd_steps": 3,
        "pgd_step": EPS / 2,
        "start": "clean",
        "order": "text-first",
    }
    return InnerAttack(**{**values, **options})


@pytest.fixture
def step_batch(toy_batch):
    positives = toy_batch.positives
    return TrainingBatch(toy_batch, positives, torch.zeros_like(positives))


def loss_of(model, pixels, texts, step_batch):
    with torch.no_grad():
        logits = model.logit_scale * cosine(model.encode_image(pixels), model.encode_text(texts))
    return contrastive(logits, step_batch.targets).item()


@pytest.mark.parametrize("name", DEFENCES)
@pytest.mark.parametrize("order", ["text-first", "image-first", "alternating", "independent"])
def test_what_a_defence_attacks_stays_within_budget(tiny_clip, step_batch, name, order):
    row, clean = DEFENCES[name], step_batch.batch
    pixels, texts = attack(tiny_clip, step_batch, row.terms, step=4, order=order, start="uniform")
    moved = (pixels - clean.pixels).abs().amax(dim=(1, 2, 3))
    assert moved.max() <= EPS + 1e-6
    assert 0 <= pixels.min() <= pixels.max() <= 1
    edits = [count_word_edits(a, b) for a, b in zip(clean.texts, texts, strict=True)]
    assert max(edits) <= 1
    assert bool((moved > 0).all()) == ("image" in row.attacks)
    assert (sum(edits) > 0) == ("text" in row.attacks)


@pytest.mark.parametrize("name", ["tecoa", "mat", "mat+"])
def test_the_outer_loss_rises(tiny_clip, step_batch, name):
    clean = step_batch.batch
    pixels, texts = attack(tiny_clip, step_batch, DEFENCES[name].terms)
    before = loss_of(tiny_clip, clean.pixels, clean.texts, step_batch)
    assert loss_of(tiny_clip, pixels, texts, step_batch) > before + 0.05
    assert loss_of(tiny_clip, pixels, clean.texts, step_batch) > before
    if name != "tecoa":
        assert loss_of(tiny_clip, pixels, texts, step_batch) > loss_of(tiny_clip, pixels, clean.texts, step_batch)


def test_anchored_defences_move_embeddings_away(tiny_clip, step_batch):
    clean = step_batch.batch
    pixels, _ = attack(tiny_clip, step_batch, DEFENCES["fare"].terms, start="uniform")
    noise = clean.pixels + EPS * torch.randn(clean.pixels.shape, generator=torch.Generator().manual_seed(0)).sign()
    with torch.no_grad():
        reference = tiny_clip.encode_image(clean.pixels)
        found, random = (tiny_clip.encode_image(p.clamp(0, 1)) for p in (pixels, noise))
        assert embedding_l2(found, reference).mean() > 1.5 * embedding_l2(random, reference).mean()
        _, texts = attack(tiny_clip, step_batch, DEFENCES["leaf"].terms)
        kept = tiny_clip.encode_text(clean.texts)
        distance = embedding_l2(tiny_clip.encode_text(texts), kept)
    changed = torch.tensor([a != b for a, b in zip(clean.texts, texts, strict=True)])
    assert changed.any()
    assert (distance[changed] > 0).all()


def test_the_search_leaves_the_model_as_it_was(tiny_clip, step_batch):
    tiny_clip.train()
    tiny_clip.network.logit_scale.requires_grad_(False)
    before = {name: value.clone() for name, value in tiny_clip.state_dict().items()}
    attack(tiny_clip, step_batch, DEFENCES["mat"].terms)
    assert all(torch.equal(value, before[name]) for name, value in tiny_clip.state_dict().items())
    assert all(parameter.grad is None for parameter in tiny_clip.parameters())
    assert all(module.training for module in tiny_clip.modules())
    assert [name for name, p in tiny_clip.named_parameters() if not p.requires_grad] == ["network.logit_scale"]


def test_noise_is_a_function_of_seed_and_step(tiny_clip, step_batch):
    def find(seed, step):
        terms = DEFENCES["mat"].terms
        return attack(tiny_clip, step_batch, terms, seed=seed, step=step, start="uniform", text_tries=1)

    first, again = find(1, 2), find(1, 2)
    assert torch.equal(first[0], again[0])
    assert first[1] == again[1]
    for other in (find(1, 3), find(2, 2)):
        assert not torch.equal(first[0], other[0])
        assert first[1] != other[1]


def test_no_budget_changes_nothing(tiny_clip, step_batch):
    terms = DEFENCES["mat"].terms
    pixels, texts = attack(tiny_clip, step_batch, terms, image=LInf(0.0), words=0)
    assert torch.equal(pixels, step_batch.batch.pixels)
    assert texts == step_batch.batch.texts
