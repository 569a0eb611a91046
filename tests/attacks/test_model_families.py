"""Every family of image-text models takes every attack of the table."""

import pytest
import torch
from quick import QUICK, quick, threat

from crossguard.attacks import count_word_edits
from crossguard.attacks.co_attack import unimodal_loss
from crossguard.attacks.image_loss import image_loss
from crossguard.attacks.mixture import Links, standing
from crossguard.attacks.ranking import contested, cosines, image_states, ranking_scores, text_states
from crossguard.data import PairBatch
from families import FAMILIES, FUSION

# In the forms that ask a fusion model's third part.
FUSION_FORMS = {
    "pgd": {"objective": "match"},
    "apgd": {"objective": "ranking"},
    "word-swap": {"objective": "match"},
    "sep": {"objective": "match"},
    "co-attack": {"embedding": "fusion"},
    "sga": {"objective": "match"},
    "dra": {"objective": "match"},
}
CASES = [(family, name, {}) for family in FAMILIES for name in sorted(set(QUICK) - {"sparse"})]
CASES += [(family, name, options) for family in FUSION for name, options in FUSION_FORMS.items()]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return {name: make(tmp_path_factory.mktemp(name)) for name, make in FAMILIES.items()}


def batch_for(model, toy_pairs, toy_batch):
    """The first four pictures, all their texts, as this model sees them."""
    images = toy_batch.image_ids[:4]
    texts = toy_batch.positives[:4].any(dim=0).nonzero().squeeze(1)
    return PairBatch(
        model.preprocess([toy_pairs.image(int(i)) for i in images]),
        tuple(toy_batch.texts[j] for j in texts),
        toy_batch.positives[:4][:, texts].nonzero(),
        images,
        toy_batch.text_ids[texts],
    )


CLASS_ATTACKS = ("apgd-ce", "apgd-t", "fab-t", "square", "auto-attack")


@torch.no_grad()
def harm(model, batch, pixels, texts, name, options):
    """What the attack says it raises, for the whole batch."""
    if name == "adaptive":
        images, words = image_states(model, pixels), text_states(model, texts)
        clean = cosines(image_states(model, batch.pixels), text_states(model, batch.texts))
        scored = contested(clean, batch.positives, negatives=99)
        scores = ranking_scores(model, images, words, scored)
        links = Links(batch.links, images=len(pixels), texts=len(texts))
        own = standing(lambda i, j: scores[i][:, j], torch.arange(len(pixels)), torch.arange(len(texts)), links)
        return sum(float(side.margins.sigmoid().mean()) for side in own)
    if name in CLASS_ATTACKS:  # how many images a wrong text leads at
        scores = cosines(image_states(model, pixels), text_states(model, batch.texts))
        right, wrong = (scores.masked_fill(hidden, -9).amax(dim=1) for hidden in (~batch.positives, batch.positives))
        return float((wrong >= right).sum())
    if name == "co-attack" and not options:
        return float(unimodal_loss(model, batch, texts, alpha=3.0)(pixels).mean())
    objective = options.get("objective", "match" if options else "cosine")
    return float(image_loss(model, batch, texts, objective=objective)(pixels).mean())


@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_seed_gives_the_same_result(models, toy_pairs, toy_batch, family):
    model = models[family]
    batch = batch_for(model, toy_pairs, toy_batch)
    found, again = (quick("co-attack")(model, batch, threat=threat(8, 1), seed=2) for _ in range(2))
    assert torch.equal(found.pixels, again.pixels)
    assert found.texts == again.texts


@pytest.mark.parametrize(("family", "name", "options"), CASES)
def test_attacks_every_family(models, toy_pairs, toy_batch, family, name, options):
    model = models[family]
    batch = batch_for(model, toy_pairs, toy_batch)
    attack = quick(name, **options)
    found = attack(model, batch, threat=threat(8, 1), seed=2)
    if "image" in attack.uses:
        moved = float((found.pixels - batch.pixels).abs().max())
        assert moved <= 8 / 255 + 1e-6
        assert moved > 0 or name in CLASS_ATTACKS  # these return what they came with where they find no wrong answer
    edits = [count_word_edits(a, b) for a, b in zip(batch.texts, found.texts, strict=True)]
    assert max(edits) <= 1
    if "text" in attack.uses:
        assert sum(edits) > 0
    before = harm(model, batch, batch.pixels, batch.texts, name, options)
    after = harm(model, batch, found.pixels, found.texts, name, options)
    assert after >= before if name in CLASS_ATTACKS else after > before  # these leave alone what is wrong already
    still = attack(model, batch, threat=threat(0, 0), seed=2)
    assert torch.equal(still.pixels, batch.pixels)
    assert still.texts == batch.texts
