"""Every kind of model takes every defence; the inner attack raises the very loss that training lowers."""

import copy
import json
from math import isfinite

import numpy as np
import pytest
import torch
from training_helpers import ToySource

import crossguard as cg
from crossguard.attacks import make_attack
from crossguard.data import PairBatch, links_among
from crossguard.models import FusionModel, MomentumTraining, VisionLanguageModel
from crossguard.runs import RunFolder
from crossguard.threat import LInf
from crossguard.training import DEFENCES, InnerAttack, Swaps, TrainingBatch, train
from crossguard.training.batches import Pictures
from crossguard.training.job import score
from crossguard.training.step_loss import StepLoss
from crossguard.training.terms import Language, Match, attacks, terms_for
from crossguard.training.validation import Validation
from families import FAMILIES as IMAGE_TEXT
from families import make_siglip
from fusion_models import make_captioner

EPS = 8 / 255
THREAT = cg.ThreatModel(image=cg.LInf(eps=EPS), text=cg.WordEdits(words=1))
QUICK = {"threat": THREAT, "steps": 2, "batch_size": 6, "learning_rate": 1e-3, "source": ToySource(), "log_every": 1}
FAMILIES = {**IMAGE_TEXT, "siglip": lambda _: make_siglip(fresh_scales=True), "captioner": make_captioner}
FUSED = ("albef", "blip")
HELD = ("fare", "leaf", "pmg-aft", "tga-zsr")
"""Defences that hold embeddings, which captioners have not."""


def refused(family, defence):
    """Why a family does not take a defence; empty where it does."""
    if family == "captioner" and defence in HELD:
        return f"'{defence}' holds embeddings"
    return "Expected a model with `embed_patches`" if defence == "tga-zsr" and family in ("siglip", "wrapped") else ""


@pytest.fixture(scope="module")
def families(tmp_path_factory):
    made = {name: make(tmp_path_factory.mktemp(name)) for name, make in FAMILIES.items()}
    return lambda name: made[name]


def weights(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def step_batch(model, pairs, *, one_to_one=False):
    """Six images with all their texts, or one each; two of the images share texts with others."""
    images = np.array([0, 1, 2, 3, 8, 9])
    texts = np.unique(np.concatenate([pairs.texts_of(int(i)) for i in images]))
    if one_to_one:
        texts = np.array([pairs.texts_of(int(i))[0] for i in images])
    pixels = model.preprocess([pairs.image(int(i)) for i in images])
    links = torch.from_numpy(links_among(pairs, images, texts))
    batch = PairBatch(
        pixels, tuple(pairs.texts[j] for j in texts), links, torch.from_numpy(images), torch.from_numpy(texts)
    )
    targets = torch.eye(6, dtype=torch.bool) if one_to_one else batch.positives
    same = torch.from_numpy(texts[:, None] == texts[None, :]) if one_to_one else targets
    return TrainingBatch(batch, targets, (same & ~targets) if one_to_one else torch.zeros_like(targets))


def make_loss(model, pairs, name, *, momentum=False, one_to_one=False, **options):
    terms = terms_for(model, DEFENCES[name].terms, defence=name)
    original = copy.deepcopy(model)
    keeper = None
    if momentum:
        links = torch.from_numpy(pairs.links.copy())
        keeper = MomentumTraining(model, links=links, queue_size=10)
        with torch.no_grad():
            keeper.images.push(torch.eye(8)[:3], torch.tensor([4, 5, 0]))
            keeper.texts.push(torch.eye(8)[:3], torch.tensor([9, 8, 0]))
    with torch.no_grad():  # away from the original, so that what is anchored has a gradient
        for parameter in model.parameters():
            parameter.mul_(1.05)
    batch = step_batch(model, pairs, one_to_one=one_to_one)
    return StepLoss(model, original, terms, batch, seed=3, step=5, momentum=keeper, **options)


@pytest.mark.parametrize("defence", DEFENCES)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_takes_every_defence(families, toy_pairs, tmp_path, family, defence):
    model = families(family)
    before = weights(model)
    row = DEFENCES[defence]
    with RunFolder.open(tmp_path / "run", settings={}) as run:
        if refused(family, defence):
            with pytest.raises(ValueError, match=refused(family, defence)):
                train(model, toy_pairs, defence=defence, run=run, **QUICK)
            return
        trained = train(model, toy_pairs, defence=defence, run=run, **QUICK)
    losses = [json.loads(line)["loss"] for line in (run.path / "training.jsonl").read_text().splitlines()]
    assert len(losses) == 2
    assert all(isfinite(loss) and loss > 0 for loss in losses)
    after = weights(model)
    assert all(torch.equal(after[key], before[key]) for key in before)
    for tower in ("image", "text", *(["fusion"] if family in FUSED else [])):
        moved = [not torch.equal(a, b) for a, b in zip(model.tower(tower), trained.tower(tower), strict=True)]
        if tower in row.trains or len(row.trains) == 2:
            assert any(moved), tower
        else:
            assert not any(moved), tower


@pytest.mark.parametrize("family", FUSED)
def test_momentum_and_queues_are_an_option_for_fusion_models(families, toy_pairs, family):
    options = {**QUICK, "defence": "mat+"}
    plain, queued, again = (
        weights(train(families(family), toy_pairs, queue_size=size, **options)) for size in (0, 16, 16)
    )
    assert all(torch.equal(queued[key], again[key]) for key in queued)
    assert any(not torch.equal(plain[key], queued[key]) for key in plain)


CASES = [
    (family, name, momentum)
    for family in FAMILIES
    for name in DEFENCES
    for momentum in ((False, True) if family in FUSED and name == "mat+" else (False,))
    if not refused(family, name)
]


@pytest.mark.parametrize(("family", "name", "momentum"), CASES)
def test_the_attack_climbs_the_loss_that_training_descends(families, toy_pairs, family, name, momentum):
    model = copy.deepcopy(families(family))
    loss = make_loss(model, toy_pairs, name, momentum=momentum)
    loss.terms = tuple(term for term in loss.terms if term.raised)  # the others hold on to what is found
    clean = loss.step_batch.batch
    terms = [term for term in loss.terms if attacks(term, "image")]
    if not terms:
        assert name in ("clean", "leaf")
        return
    texts = tuple(text.replace("small", "large") for text in clean.texts)
    pixels = (clean.pixels + EPS * torch.rand(clean.pixels.shape, generator=torch.Generator().manual_seed(0))).clamp(
        0, 1
    )
    values, gradient = loss.of_pixels(terms, texts)(pixels)
    pixels.requires_grad_(True)
    value = loss.value((pixels, texts))
    (expected,) = torch.autograd.grad(len(pixels) * value, pixels)
    assert expected.abs().max() > 0
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
    if terms == list(loss.terms):
        torch.testing.assert_close(values.mean(), value.detach(), rtol=1e-4, atol=1e-5)


# The codes of other families are of the same kinds as these.
SPLIT = [case for case in CASES if case[0] in ("clip", "albef", "captioner") or case[1] == "mat+"]


def norm(tensors):
    return torch.stack([tensor.norm() for tensor in tensors.values()]).norm()


@pytest.mark.parametrize(("family", "name", "momentum"), SPLIT)
def test_chunks_give_the_gradient_of_the_whole(families, toy_pairs, family, name, momentum):
    models = [copy.deepcopy(families(family)) for _ in range(2)]
    in_one, in_chunks = (
        make_loss(model, toy_pairs, name, momentum=momentum, chunk_size=size)
        for model, size in zip(models, (None, 4), strict=True)
    )
    clean = in_one.step_batch.batch
    adversarial = (clean.pixels.flip(3), tuple(text.replace("small", "large") for text in clean.texts))
    assert in_chunks.backward(adversarial) == pytest.approx(in_one.backward(adversarial), rel=1e-5)
    whole, parts = (
        {key: p.grad for key, p in model.named_parameters() if p.grad is not None and p.grad.any()} for model in models
    )
    assert parts.keys() >= whole.keys()
    for key, gradient in parts.items():
        wanted = whole.get(key, torch.zeros_like(gradient))
        assert (gradient - wanted).norm() <= 1e-6 * (wanted.norm() + norm(whole)), key
    assert norm({key: parts[key] - whole[key] for key in whole}) <= 1e-6 * norm(whole)
    terms = [term for term in in_one.terms if attacks(term, "image")]
    if terms:
        split, once = (loss.of_pixels(terms, adversarial[1])(adversarial[0]) for loss in (in_chunks, in_one))
        torch.testing.assert_close(split[0], once[0], rtol=1e-5, atol=1e-6)
        assert (split[1] - once[1]).norm() <= 5e-6 * once[1].norm()  # rounding of float32, per pixel


def test_chunks_replay_dropout(toy_pairs, tmp_path):
    """With dropout the chunked gradient is that of one loss: a small step along it lowers just that loss."""
    from fusion_models import make_albef

    model = make_albef(tmp_path, dropout=0.3).train()
    loss = make_loss(model, toy_pairs, "mat+", chunk_size=4)
    clean = loss.step_batch.batch
    views = (clean.pixels, clean.texts)
    torch.manual_seed(0)
    value = loss.backward(views)
    gradients = [p.grad.clone() for p in model.tower("image")]
    squared = sum(float(g.square().sum()) for g in gradients)
    with torch.no_grad():
        for parameter, gradient in zip(model.tower("image"), gradients, strict=True):
            parameter -= 1e-3 / squared**0.5 * gradient
    model.zero_grad(set_to_none=True)
    torch.manual_seed(0)
    fall = value - loss.backward(views)
    assert fall == pytest.approx(1e-3 * squared**0.5, rel=0.2)


@pytest.mark.parametrize("family", FUSED)
@pytest.mark.parametrize("one_to_one", [False, True])
def test_no_true_pair_is_a_hard_negative(families, toy_pairs, family, one_to_one, monkeypatch):
    model = copy.deepcopy(families(family))
    loss = make_loss(model, toy_pairs, "mat", one_to_one=one_to_one)
    seen = []
    match = model.match

    def spy(images, texts, pairs):
        seen.append(pairs.clone())
        return match(images, texts, pairs)

    monkeypatch.setattr(model, "match", spy)
    true, targets = loss.step_batch.true, loss.step_batch.targets
    if one_to_one:
        assert (true & ~targets).any()
    for step in range(20):
        loss.step.number = step
        loss.value((loss.step_batch.batch.pixels, loss.step_batch.batch.texts))
        pairs = seen.pop()
        positive, negative = pairs[: int(targets.sum())], pairs[int(targets.sum()) :]
        assert targets[positive[:, 0], positive[:, 1]].all()
        assert not true[negative[:, 0], negative[:, 1]].any()
        assert len(negative) == int((~true.all(1)).sum() + (~true.all(0)).sum())


@pytest.mark.parametrize("family", FUSED)
def test_the_text_attack_of_a_fusion_model_raises_the_loss(families, toy_pairs, family):
    model = copy.deepcopy(families(family))
    loss = make_loss(model, toy_pairs, "mat+")
    inner = InnerAttack(
        image=LInf(0.0),
        words=1,
        swaps=Swaps(ToySource(), model),
        text_tries=30,
        pgd_steps=1,
        pgd_step=EPS,
        start="clean",
        order="text-first",
    )
    _, texts = inner(loss)
    clean = loss.step_batch.batch
    assert texts != clean.texts
    terms = [term for term in loss.terms if attacks(term, "text")]
    judge = loss.of_texts(terms, clean.pixels)
    numbers = list(range(len(texts)))
    assert (judge(list(texts), numbers) <= judge(list(clean.texts), numbers) + 1e-5).all()
    with torch.no_grad():
        assert loss.value((clean.pixels, texts)) > loss.value((clean.pixels, clean.texts))


def test_what_the_terms_become(families):
    terms = DEFENCES["mmcoa"].terms
    assert isinstance(families("albef"), FusionModel)
    fused = terms_for(families("albef"), terms, defence="mmcoa")
    assert [type(term).__name__ for term in fused] == ["Contrast", "Match", "Contrast", "Match"]
    assert [term for term in fused if not isinstance(term, Match)] == list(terms)
    assert not isinstance(families("captioner"), VisionLanguageModel)
    assert terms_for(families("captioner"), terms, defence="mmcoa") == (
        Language("adversarial", 0.5),
        Language("clean", 0.5),
    )
    assert terms_for(families("clip"), terms, defence="mmcoa") == terms


@pytest.mark.parametrize(
    ("family", "options", "message"),
    [
        ("clip", {"queue_size": 8}, "a fusion model .* for `queue_size` > 0"),
        ("albef", {"queue_size": -1}, "`queue_size` to be a whole number >= 0"),
        ("albef", {"queue_size": 8, "momentum": 1.0}, r"`momentum` in \[0, 1\)"),
        ("albef", {"queue_size": 8, "positives": "drawn"}, "targets are soft"),
        ("captioner", {"threat": THREAT.only("text")}, "nothing would be attacked"),
        ("clip", {"chunk_size": 0}, "`chunk_size` to be a whole number >= 1"),
    ],
)
def test_options_that_do_not_fit_the_model(families, toy_pairs, family, options, message):
    with pytest.raises(ValueError, match=message):
        train(families(family), toy_pairs, **{**QUICK, "defence": "mat+", **options})


def test_a_captioner_is_validated_by_the_loss_of_captions(families, toy_pairs, tmp_path):
    """Against the definition: image by image, caption by caption."""
    model, few = families("captioner"), toy_pairs.head(5)
    pictures = Pictures(model, few)
    threat = THREAT.only("image")
    found = Validation(few, pictures, make_attack("pgd", steps=3), threat, 2, 0)(model, device=torch.device("cpu"))
    means = []
    with torch.no_grad():
        for i in range(5):
            pixels = pictures[np.array([i])].float() / 255
            means.append(np.mean([float(model.caption_loss(pixels, [few.texts[j]])) for j in few.texts_of(i)]))
    assert found["clean_caption_loss"] == pytest.approx(np.mean(means), rel=1e-4)
    assert found["robust_caption_loss"] > found["clean_caption_loss"]
    assert score(found) == -found["robust_caption_loss"]
    with RunFolder.open(tmp_path / "run", settings={}) as run:
        train(model, toy_pairs, run=run, validation=few, keep="best", **{**QUICK, "defence": "mat", "threat": threat})
    row = [json.loads(line) for line in (tmp_path / "run" / "training.jsonl").read_text().splitlines()][-1]
    assert {"clean_caption_loss", "robust_caption_loss", "best_step"} <= set(row)


def test_pictures_of_a_captioner_can_be_shared(families, toy_pairs):
    model = families("captioner")
    trained = train(model, toy_pairs, defence="mat", pictures=Pictures(model, toy_pairs), chunk_size=4, **QUICK)
    assert trained.name == f"{model.name}-mat"
