"""First-order estimates against finite differences and the masked scores they stand for."""

import numpy as np
import pytest
import torch

from crossguard.attacks import make_attack
from crossguard.attacks.first_order import FirstOrder
from crossguard.attacks.text_gradients import embedding_layer, token_gradients
from crossguard.attacks.text_score import DistanceScore, EmbeddingScore
from crossguard.attacks.words import split_words
from crossguard.threat import ThreatModel, WordEdits
from shared import make_clip


def scored(model, batch):
    features = model.encode_image(batch.pixels).detach()
    return EmbeddingScore(model, features, batch.positives, among_all=False)


def test_token_gradients_are_those_of_finite_differences(toy_batch):
    model = make_clip(2).double()
    texts = toy_batch.texts[:3]
    found = token_gradients(model, texts, lambda e: e[:, 0])
    layer = embedding_layer(model)
    rng = np.random.default_rng(0)
    for _ in range(6):
        row, place, channel = rng.integers(3), rng.integers(1, 6), rng.integers(32)
        values = []
        for step in (-1e-3, 1e-3):

            def bump(_m, _i, output, step=step, row=row, place=place, channel=channel):
                output = output.clone()
                output[row, place, channel] += step
                return output

            handle = layer.register_forward_hook(bump)
            values.append(float(model.encode_text(found.tokens)[row, 0].detach()))
            handle.remove()
        slope = (values[1] - values[0]) / 2e-3
        assert float(found.gradient[row, place, channel]) == pytest.approx(slope, abs=1e-4, rel=1e-3)


def test_estimates_are_the_inner_products_they_are_said_to_be(toy_batch):
    model = make_clip(2)
    score = scored(model, toy_batch)
    slope = FirstOrder.of(model, toy_batch.texts, score)
    owners = list(range(len(toy_batch.texts)))
    found = token_gradients(
        model, toy_batch.texts, lambda e: score.of_embeddings(torch.nn.functional.normalize(e, dim=-1), owners)
    )
    weight = embedding_layer(model).weight.detach()
    mask = weight[model.tokenizer.mask_token_id]
    for j in (0, 7, 13):
        ids = found.tokens.ids[j]
        expected = [
            float(found.gradient[j, 1 + i] @ (mask - weight[ids[1 + i]]))
            for i in range(len(toy_batch.texts[j].split()))
        ]
        assert slope.of_mask(j) == pytest.approx(expected, abs=1e-5)


def test_the_shortlist_holds_the_lowest_estimates_in_their_old_order(toy_batch):
    model = make_clip(2)
    slope = FirstOrder.of(model, toy_batch.texts, scored(model, toy_batch))
    names = ("disc", "green", "left", "plain", "cross", "blue")
    proposals = [tuple(names if w.core == "picture" else ("disc",) for w in split_words(t)) for t in toy_batch.texts]
    short = slope.shortened(proposals, limit=2)
    for j, words in enumerate(short):
        for i, kept in enumerate(words):
            if len(proposals[j][i]) == 1:
                assert kept == ("disc",)
                continue
            estimates = slope.embed(names) @ slope.slope[int(slope.starts[j]) + i]
            best = sorted(estimates.argsort()[:2].tolist())
            assert kept == tuple(names[k] for k in best)


@pytest.mark.parametrize(
    "options", [{"ranking": "gradient"}, {"shortlist": 3}, {"ranking": "gradient", "shortlist": 3}]
)
def test_estimates_choose_but_true_scores_decide(toy_batch, options):
    threat = ThreatModel(text=WordEdits(1))
    model = make_clip(3)
    plain = make_attack("word-swap", source="characters")(model, toy_batch, threat=threat, seed=0)
    quick = make_attack("word-swap", source="characters", **options)(model, toy_batch, threat=threat, seed=0)
    assert (quick.text_drop >= -1e-6).all()
    assert quick.text_drop.mean() > 0
    assert quick.words.max() <= 1
    again = make_attack("word-swap", source="characters", **options)(model, toy_batch, threat=threat, seed=0)
    assert again.texts == quick.texts
    if "shortlist" not in options:
        assert quick.text_drop.mean() <= 1.5 * plain.text_drop.mean() + 1e-3


def test_what_has_no_gradient_is_refused(toy_batch, tiny_clip):
    with pytest.raises(ValueError, match="but got DistanceScore"):
        FirstOrder.of(tiny_clip, toy_batch.texts, DistanceScore(tiny_clip, toy_batch.texts))
    with pytest.raises(ValueError, match="Expected `shortlist` >= 1"):
        make_attack("word-swap", shortlist=0)
    with pytest.raises(ValueError, match="did you mean 'gradient'"):
        make_attack("word-swap", ranking="gradients")
    del tiny_clip.tokenizer
    with pytest.raises(ValueError, match="token embeddings"):
        FirstOrder.of(tiny_clip, toy_batch.texts, scored(make_clip(), toy_batch))
