"""What retrieval ranks by as an attack's loss, and text scores of every kind."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from crossguard.attacks.image_loss import image_loss
from crossguard.attacks.ranking import contested, cosines, image_states, ranking_loss, ranking_scores, text_states
from crossguard.attacks.text_score import text_score
from crossguard.data import PairBatch
from families import FAMILIES, FUSION


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return {name: make(tmp_path_factory.mktemp(name)).requires_grad_(False) for name, make in FAMILIES.items()}


@pytest.fixture
def small(toy_batch):
    """Four pictures, their texts, and a text without any picture."""
    kept = toy_batch.positives[:4].any(dim=0).nonzero().squeeze(1)
    links = toy_batch.positives[:4][:, kept].nonzero()
    return PairBatch(
        toy_batch.pixels[:4],
        (*(toy_batch.texts[j] for j in kept), "a plain drawing"),
        links,
        toy_batch.image_ids[:4],
        torch.arange(len(kept) + 1),
    )


def match(model, batch, pixels, texts, i, j):
    """Logits of one pair, encoded alone."""
    pair = torch.tensor([[0, 0]])
    return model.match(model.encode_image_states(pixels[i : i + 1]), model.encode_text_states([texts[j]]), pair)[0]


def log_share(values, own):
    """Mean log-softmax of the own ones."""
    values = torch.stack(list(values))
    return float((values.log_softmax(dim=0) * own).sum() / own.sum())


@pytest.mark.parametrize("family", FUSION)
def test_match_losses_equal_plain_sums_over_pairs(models, small, family):
    model, links = models[family], small.positives
    loss = image_loss(model, small, small.texts, objective="match")(small.pixels)
    score = text_score(model, small, small.pixels, objective="match")(small.texts, range(len(small.texts)))
    surprise = torch.zeros(links.shape)
    for i, j in links.nonzero().tolist():
        surprise[i, j] = -match(model, small, small.pixels, small.texts, i, j).log_softmax(dim=0)[1]
    assert torch.allclose(loss, surprise.sum(dim=1) / links.sum(dim=1), atol=1e-4)
    expected = -surprise.sum(dim=0) / links.sum(dim=0).clamp(min=1)
    assert np.allclose(score, expected.numpy(), atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_ranking_equals_its_definition(models, small, family):
    """Every stranger is contested here, so the softmax runs over all pairs."""
    model, links = models[family], small.positives
    with torch.no_grad():
        images, texts = model.encode_image(small.pixels), model.encode_text(small.texts)
        cosine = torch.nn.functional.cosine_similarity(images[:, None], texts[None], dim=2)
        parts = [model.logit_scale * cosine]
        if family in FUSION:
            logits = torch.stack(
                [
                    torch.stack([match(model, small, small.pixels, small.texts, i, j)[1] for j in range(len(texts))])
                    for i in range(len(images))
                ]
            )
            parts.append(logits + cosine if model.rank_adds_cosine else logits)
        expected = torch.zeros(len(images))
        for i in range(len(images)):
            for part in parts:
                by_text = [log_share(part[:, j], links[:, j]) for j in links[i].nonzero().squeeze(1)]
                expected[i] -= (log_share(part[i], links[i]) + sum(by_text) / len(by_text)) / 2
        loss = ranking_loss(model, links, text_states(model, small.texts), negatives=99)(small.pixels)
    assert torch.allclose(loss, expected, atol=1e-4)


@pytest.mark.parametrize("family", FUSION)
def test_a_text_s_ranking_score_is_its_log_likelihood(models, small, family):
    model, links = models[family], small.positives
    texts = small.texts[:-1]
    score = text_score(model, small, small.pixels, objective="ranking")(texts, range(len(texts)))
    with torch.no_grad():
        images, words = image_states(model, small.pixels), text_states(model, texts)
        everything = torch.ones(4, len(texts), dtype=torch.bool)
        parts = (ranking_scores(model, images, words, everything), model.logit_scale * cosines(images, words))
    expected = [sum(log_share(part[:, j], links[:, j]) for part in parts) for j in range(len(texts))]
    assert np.allclose(score, expected, atol=1e-4)


def test_distance_scores_the_way_from_the_original(tiny_clip, small):
    score = text_score(tiny_clip, small, small.pixels, objective="distance")
    variants = ["a red cross", small.texts[0]]
    with torch.no_grad():
        away = (tiny_clip.encode_text(["a red cross"]) - tiny_clip.encode_text([small.texts[1]])).square().sum()
    assert score(variants, [1, 0]) == pytest.approx([-float(away), 0], rel=1e-4, abs=1e-5)


def test_match_needs_a_fusion_model(tiny_clip, small):
    for build in (
        lambda: image_loss(tiny_clip, small, small.texts, objective="match"),
        lambda: text_score(tiny_clip, small, small.pixels, objective="match"),
    ):
        with pytest.raises(ValueError, match="Expected a fusion model for objective 'match', but 'tiny'"):
            build()


@given(st.integers(0, 2**31), st.integers(0, 3))
def test_contested_are_the_partners_and_the_nearest_strangers(seed, negatives):
    generator = torch.Generator().manual_seed(seed)
    similarity = torch.rand(5, 7, generator=generator)
    positives = torch.rand(5, 7, generator=generator) < 0.3
    found = contested(similarity, positives, negatives=negatives)
    for i, j in itertools.product(range(5), range(7)):
        row = sorted((similarity[i][~positives[i]]).tolist(), reverse=True)[:negatives]
        column = sorted((similarity[:, j][~positives[:, j]]).tolist(), reverse=True)[:negatives]
        near = not positives[i, j] and (float(similarity[i, j]) in row or float(similarity[i, j]) in column)
        full = (~positives[i]).sum() < negatives or (~positives[:, j]).sum() < negatives
        assert full or bool(found[i, j]) == (bool(positives[i, j]) or near)
