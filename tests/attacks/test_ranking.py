"""What retrieval ranks by as an attack's loss, text scores of every kind, and mixing candidates into one set."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from crossguard.attacks import make_attack
from crossguard.attacks.image_loss import image_loss
from crossguard.attacks.mixture import failure, replaced_failure, worst_mixture
from crossguard.attacks.ranking import contested, cosines, image_states, ranking_loss, ranking_scores, text_states
from crossguard.attacks.remember import Remember
from crossguard.attacks.text_score import text_score
from crossguard.data import PairBatch
from crossguard.threat import LInf, ThreatModel, WordEdits
from families import FAMILIES, FUSION
from shared import make_clip


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


def test_the_joint_loss_takes_the_worst_variant_of_every_text(tiny_clip, small):
    """Against a search over variants by the log-likelihood of a text's own images."""
    variants = [(text, text.replace("picture", "drawing"), "a red cross") for text in small.texts]
    flat = text_states(tiny_clip, [form for forms in variants for form in forms])
    joint = ranking_loss(tiny_clip.requires_grad_(False), small.positives, flat)(small.pixels)
    score = text_score(tiny_clip, small, small.pixels, objective="contrastive")
    worst = []
    for j, forms in enumerate(variants):
        worst.append(forms[int(np.argmin(score(list(forms), [j] * 3)))])
    alone = image_loss(tiny_clip, small, worst, objective="ranking")(small.pixels)
    assert worst != list(small.texts)
    linked = small.positives.any(dim=1)
    # A text without images is no one's: any of its variants is the worst.
    assert torch.allclose(joint[linked], alone[linked], atol=0.2)
    paired = PairBatch(small.pixels, small.texts[:-1], small.links, small.image_ids, small.text_ids[:-1])
    joint = ranking_loss(tiny_clip, paired.positives, flat.select(torch.arange(3 * len(paired.texts))))(small.pixels)
    alone = image_loss(tiny_clip, paired, worst[:-1], objective="ranking")(small.pixels)
    assert torch.allclose(joint, alone, atol=1e-5)


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


def plain_failure(scores, positives):
    """Shares of queries whose best partner is not above all strangers, and half the sigmoid of the margin, by loops."""
    total = 0.0
    for matrix, links in ((scores, positives), (scores.T, positives.T)):
        worths = []
        for row, own in zip(matrix, links, strict=True):
            if own.any():
                margin = float(row[~own].max() - row[own].max()) if (~own).any() else -float("inf")
                worths.append(float(margin >= 0) + 0.5 / (1 + np.exp(-margin)))
        total += np.mean(worths)
    return total


@settings(max_examples=30)
@given(st.integers(0, 2**31))
def test_failure_equals_counting_and_so_does_replacing_one_row(seed):
    generator = torch.Generator().manual_seed(seed)
    scores, options = torch.randn(5, 7, generator=generator), torch.randn(3, 5, 7, generator=generator)
    positives = torch.rand(5, 7, generator=generator) < 0.3
    positives[0, 0] = True
    assert float(failure(scores, positives)) == pytest.approx(plain_failure(scores, positives), abs=1e-4)
    found = replaced_failure(options, scores, positives)
    for candidate, row in itertools.product(range(3), range(5)):
        changed = scores.clone()
        changed[row] = options[candidate, row]
        assert float(found[candidate, row]) == pytest.approx(plain_failure(changed, positives), abs=1e-4)


@pytest.mark.parametrize("family", ["clip", "albef"])
def test_a_mixture_is_no_weaker_than_any_first_set_and_made_of_what_was_given(models, small, family):
    model = models[family]
    generator = torch.Generator().manual_seed(0)
    images = [small.pixels, *(torch.rand(small.pixels.shape, generator=generator) for _ in range(2))]
    texts = [small.texts, tuple(text.replace("picture", "drawing") for text in small.texts), small.texts[::-1]]
    everything = torch.ones(small.positives.shape, dtype=torch.bool)

    def value(pixels, words):
        scores = ranking_scores(model, image_states(model, pixels), text_states(model, words), everything)
        return float(failure(scores, small.positives))

    for first in range(3):
        order = [first, *(k for k in range(3) if k != first)]
        pixels, words = worst_mixture(model, small, [images[k] for k in order], [texts[k] for k in order])
        assert value(pixels, words) >= value(images[first], texts[first]) - 1e-5
        assert all(any(torch.equal(row, image[i]) for image in images) for i, row in enumerate(pixels))
        assert all(word in {text[j] for text in texts} for j, word in enumerate(words))
    assert value(pixels, words) > value(images[0], texts[0])


def test_remembers_the_worst_and_nothing_hidden():
    values = {"b c": 3.0, "b x": 1.0, "b y": 2.0, "[MASK] c": 0.0, "z": 5.0}
    score = Remember(
        lambda texts, owners: np.array([values[t] for t in texts], dtype=np.float32), ("b c", "z"), hidden="[MASK]"
    )
    assert score(["b y", "[MASK] c", "b x", "z"], [0, 0, 0, 1]).tolist() == [2.0, 0.0, 1.0, 5.0]
    assert score.worst(("b c", "z"), size=3) == [("b c", "z"), ("b x", "z"), ("b y", "z")]
    assert score.worst(("b y", "z"), size=4) == [("b y", "z"), ("b x", "z"), ("b y", "z"), ("b y", "z")]


@pytest.mark.parametrize("mode", ["joint", "alternating"])
def test_adaptive_fails_more_than_every_other_attack(toy_batch, mode):
    from quick import quick, threat

    worst = {}
    for name in ("word-swap", "sep", "co-attack", "sga", "dra", "adaptive"):
        options = {"mode": mode, "rounds": 2, "steps": 10} if name == "adaptive" else {"steps": 10}
        found = []
        for seed in (1, 2):
            model = make_clip(seed).requires_grad_(False)
            attack = make_attack("word-swap") if name == "word-swap" else quick(name, **options)
            result = attack(model, toy_batch, threat=threat(8, 1), seed=0)
            scores = model.logit_scale * cosines(image_states(model, result.pixels), text_states(model, result.texts))
            found.append(float(failure(scores, toy_batch.positives)))
        worst[name] = np.mean(found)
    assert worst["adaptive"] > max(value for name, value in worst.items() if name != "adaptive")


@pytest.mark.parametrize("target", ["query", "gallery"])
def test_adaptive_attacks_each_side_as_retrieval_will_meet_it(tiny_clip, toy_batch, target):
    budgets = {"image": LInf(8 / 255), "text": WordEdits(1)}
    attack = make_attack("adaptive", steps=5)
    found, image_only, text_only, both = (
        attack(tiny_clip, toy_batch, threat=threat, seed=0)
        for threat in (
            ThreatModel(target=target, **budgets),
            ThreatModel(image=budgets["image"]),
            ThreatModel(text=budgets["text"]),
            ThreatModel(**budgets),
        )
    )
    assert torch.equal(found.pixels, image_only.pixels)
    assert found.texts == text_only.texts

    @torch.no_grad()
    def harm(result):
        clean = image_states(tiny_clip, toy_batch.pixels), text_states(tiny_clip, toy_batch.texts)
        moved = image_states(tiny_clip, result.pixels), text_states(tiny_clip, result.texts)
        scale = tiny_clip.logit_scale
        return sum(
            float(failure(scale * cosines(*pair), toy_batch.positives))
            for pair in ((moved[0], clean[1]), (clean[0], moved[1]))
        )

    assert harm(found) >= harm(both)


@pytest.mark.parametrize("family", [next(iter(FAMILIES)), next(iter(FUSION))])
def test_adaptive_attacks_a_picture_without_strangers_by_the_cosine(models, toy_batch, family):
    texts = toy_batch.positives[0].nonzero().squeeze(1)
    links = torch.tensor([[0, j] for j in range(len(texts))])
    own = tuple(toy_batch.texts[j] for j in texts)
    batch = PairBatch(toy_batch.pixels[:1], own, links, toy_batch.image_ids[:1], torch.arange(len(texts)))
    threat = ThreatModel(image=LInf(8 / 255), text=WordEdits(1))
    found = make_attack("adaptive", steps=3, rounds=1)(models[family], batch, threat=threat, seed=0)
    options = {"judge": "cosine", "objectives": ("cosine",)}
    expected = make_attack("adaptive", steps=3, rounds=1, **options)(models[family], batch, threat=threat, seed=0)
    assert (found.pixels == expected.pixels).all()
    assert found.texts == expected.texts
    assert float(found.image_drop[0]) > 0
    assert int(found.words.sum()) > 0
