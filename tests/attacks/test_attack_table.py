"""What every attack of the table must keep, whatever the model, the budget and the seed."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from quick import QUICK, quick, threat

from crossguard.attacks import ATTACKS, count_word_edits, make_attack
from crossguard.data import PairBatch
from crossguard.models.patches import to_patches
from crossguard.threat import Elements, LInf, ThreatModel, WordEdits
from shared import make_clip

# These weigh a sample against the others of its batch, by their definition.
BATCH_BOUND = {"adaptive", "auto-attack", "apgd-ce", "apgd-t", "fab-t", "square"}
# These leave images alone that rank wrongly already, so that cosines say little about them; tests of their own.
ON_RANKS = {"auto-attack", "apgd-ce", "apgd-t", "fab-t", "square"}
# `saved` only looks up what another one found: tests of its own.
EVERY = sorted(set(ATTACKS) - {"saved"})


def test_the_quick_options_cover_the_table():
    assert set(QUICK) == set(EVERY)


@pytest.mark.parametrize("name", EVERY)
@settings(max_examples=4, deadline=None)
@given(
    eps=st.sampled_from([0, 0.4, 1, 2, 3.7, 8]),
    words=st.integers(0, 3),
    seed=st.integers(0, 2**40),
    weights=st.integers(0, 3),
)
def test_within_budget_after_rounding_and_nothing_touched(toy_batch, name, eps, words, seed, weights):
    model = make_clip(seed=weights).train()
    next(model.parameters()).requires_grad_(False)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    wanted = [p.requires_grad for p in model.parameters()]
    pixels = toy_batch.pixels.clone()

    found = quick(name)(model, toy_batch, threat=threat(eps, words, name), seed=seed)

    stored = (found.pixels * 255).round().to(torch.uint8)
    assert torch.equal(stored.float() / 255, found.pixels)
    change = (stored.float() - (pixels * 255).round()).abs()
    if name == "sparse":
        touched = (to_patches(change, model.patch_grid) > 0).flatten(2).any(dim=2).sum(dim=1)
        assert int(touched.max()) <= math.ceil(eps / 3)
        assert found.patches.tolist() == touched.tolist()
    else:
        assert float(change.max()) <= eps + 1e-3
        assert found.patches is None
    assert float(found.pixels.min()) >= 0
    assert float(found.pixels.max()) <= 1
    assert torch.allclose(found.linf, (found.pixels - pixels).abs().amax(dim=(1, 2, 3)))
    edits = [count_word_edits(a, b) for a, b in zip(toy_batch.texts, found.texts, strict=True)]
    assert max(edits) <= words
    assert found.words.tolist() == edits
    assert all(text.strip() for text in found.texts)
    if eps == 0 or "image" not in ATTACKS[name].uses:
        assert torch.equal(found.pixels, pixels)
    if words == 0 or "text" not in ATTACKS[name].uses:
        assert found.texts == toy_batch.texts

    assert torch.equal(toy_batch.pixels, pixels)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert [p.requires_grad for p in model.parameters()] == wanted
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("name", EVERY)
def test_same_seed_same_result(tiny_clip, toy_batch, name):
    first, again, other = (
        quick(name)(tiny_clip, toy_batch, threat=threat(4, 1, name), seed=seed) for seed in (5, 5, 6)
    )
    assert torch.equal(first.pixels, again.pixels)
    assert first.texts == again.texts
    # Sparse searches by gradients, and chance only offers contents that rarely win; fab-t begins at the clean image.
    if "image" in ATTACKS[name].uses and name not in ("sparse", "fab-t"):
        assert not torch.equal(first.pixels, other.pixels)


def closed_parts(batch):
    """Cut a batch where no link crosses: the toy pictures come in twos that share a text."""
    for images in np.arange(len(batch.pixels)).reshape(-1, 2):
        links = torch.tensor([[i, j] for i, j in batch.links.tolist() if i in images])
        texts = links[:, 1].unique()
        yield (
            torch.from_numpy(images),
            texts,
            PairBatch(
                pixels=batch.pixels[images],
                texts=tuple(batch.texts[j] for j in texts),
                links=torch.stack(
                    [links[:, 0] - images[0], torch.searchsorted(texts, links[:, 1].contiguous())], dim=1
                ),
                image_ids=batch.image_ids[images],
                text_ids=batch.text_ids[texts],
            ),
        )


UNBOUND = {name: quick(name) for name in sorted(set(EVERY) - BATCH_BOUND)}


@pytest.mark.parametrize("name", UNBOUND)
def test_the_batch_size_is_irrelevant(tiny_clip, toy_batch, name):
    attack = UNBOUND[name]
    whole = attack(tiny_clip, toy_batch, threat=threat(4, 2, name), seed=3)
    for images, texts, part in closed_parts(toy_batch):
        found = attack(tiny_clip, part, threat=threat(4, 2, name), seed=3)
        assert found.texts == tuple(whole.texts[j] for j in texts)
        # A gradient of float32 noise around zero may change its sign with the shape of a matrix product.
        differ = (found.pixels != whole.pixels[images]).float().mean()
        assert differ < 0.01
        assert torch.allclose(found.text_drop, whole.text_drop[texts], atol=2e-3)


@pytest.mark.parametrize("name", sorted(set(EVERY) - ON_RANKS))
def test_more_budget_is_never_weaker_on_average(toy_batch, name):
    drops = []
    for eps, words in ((0, 0), (2, 1), (8, 3)):
        found = [quick(name)(make_clip(seed), toy_batch, threat=threat(eps, words, name), seed=seed) for seed in (1, 2)]
        drops.append(float(np.mean([float(f.text_drop.mean()) for f in found])))
    assert drops[0] == pytest.approx(0, abs=1e-6)
    assert drops[0] < drops[1] < drops[2]


@pytest.mark.parametrize("name", EVERY)
def test_a_modality_without_budget_is_left_clean(tiny_clip, toy_batch, name):
    for modality in ("image", "text"):
        found = quick(name)(tiny_clip, toy_batch, threat=threat(4, 1, name).only(modality), seed=0)
        if modality == "image":
            assert found.texts == toy_batch.texts
        else:
            assert torch.equal(found.pixels, toy_batch.pixels)


@pytest.mark.parametrize("name", sorted(set(EVERY) - ON_RANKS))
def test_half_precision_finds_nearly_as_much(tiny_clip, toy_batch, name, monkeypatch):
    full = quick(name)(tiny_clip, toy_batch, threat=threat(8, 1, name), seed=0)
    monkeypatch.setattr("crossguard.attacks.base.fast_precision", lambda device: torch.autocast("cpu", torch.bfloat16))
    half = quick(name)(tiny_clip, toy_batch, threat=threat(8, 1, name), seed=0)
    assert half.pixels.dtype == torch.float32
    # Adaptive goes for the ranks: the cosines fall by the way.
    least = 0.7 if name == "adaptive" else 0.9
    assert float(half.text_drop.mean()) >= least * float(full.text_drop.mean())
    if name == "word-swap":
        assert half.texts == full.texts


@pytest.mark.parametrize("name", sorted(set(EVERY) - {"adaptive"}))
def test_published_attacks_do_not_ask_whom_retrieval_will_meet_attacked(tiny_clip, toy_batch, name):
    budgets = dict(threat(4, 1, name).items())
    found = [
        quick(name)(tiny_clip, toy_batch, threat=ThreatModel(target=target, **budgets), seed=0)
        for target in ("both", "query", "gallery")
    ]
    assert all(torch.equal(other.pixels, found[0].pixels) and other.texts == found[0].texts for other in found)


def test_the_table_says_what_it_holds():
    for name, row in ATTACKS.items():
        assert row.name == name == row.build.name
        assert row.uses == row.build.uses <= {"image", "text"}
        assert row.summary


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("pdg", {}, "did you mean 'pgd'"),
        ("pgd", {"step_s": 1}, "did you mean 'steps'"),
        ("pgd", {"steps": 0}, "Expected `steps` >= 1, but got 0"),
        ("pgd", {"step": "co-atack"}, "did you mean 'co-attack'"),
        ("pgd", {"step": 2.0}, r"Expected `step` in \(0, 1\]"),
        ("pgd", {"restarts": 2, "start": "clean"}, "Expected `restarts` >= 1"),
        ("pgd", {"objective": "distance", "start": "clean"}, "Expected start='uniform'"),
        ("adaptive", {"rounds": 0}, "Expected `rounds` >= 1, but got 0"),
        ("adaptive", {"steps": 4}, "Expected `steps` >= 5, but got 4"),
        ("adaptive", {"objectives": ("cosin",)}, "did you mean 'cosine'"),
        ("pgd", {"objective": "cosin"}, "did you mean 'cosine'"),
        ("apgd", {"start": "unifrom"}, "did you mean 'uniform'"),
        ("co-attack", {"alpha": -1.0}, "Expected `alpha` >= 0"),
        ("sga", {"scales": (0.0,)}, "Expected `scales`"),
        ("sga", {"noise": 2.0}, "Expected `noise`"),
    ],
)
def test_wrong_options_are_named(name, options, message):
    with pytest.raises(ValueError, match=message):
        make_attack(name, **options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pixels": torch.full((8, 3, 16, 16), float("nan"))}, "Expected finite `pixels`"),
        ({"pixels": torch.full((8, 3, 16, 16), 1.5)}, r"Expected `pixels` in \[0, 1\]"),
        ({"texts": ("",) * 20}, "Expected texts that are not blank"),
        ({"texts": ()}, "Expected at least one image and one text"),
    ],
)
def test_bad_batches_are_refused(tiny_clip, toy_batch, change, message):
    values = {field: getattr(toy_batch, field) for field in PairBatch.__dataclass_fields__}
    with pytest.raises(ValueError, match=message):
        quick("pgd")(tiny_clip, PairBatch(**{**values, **change}), threat=threat(2, 1), seed=0)


@pytest.mark.parametrize(
    ("name", "threat_model", "message"),
    [
        (
            "pgd",
            ThreatModel(image=WordEdits(1)),
            "Expected LInf or L2 or Patch or Elements as the budget of 'image' for attack 'pgd'",
        ),
        ("pgd", ThreatModel(text=LInf(0.1)), "Expected WordEdits as the budget of 'text'"),
        ("pgd", ThreatModel(sound=Elements(1)), "Expected budgets for 'image' and 'text'"),
        ("square", ThreatModel(image=Elements(1)), "Expected LInf as the budget of 'image'"),
        ("sparse", ThreatModel(image=LInf(0.1)), "Expected Elements or Patch as the budget of 'image'"),
        ("sparse", ThreatModel(image=Elements(1, "insertion")), "replaces elements and cannot insert or delete"),
        ("sparse", ThreatModel(text=Elements(1, "deletion")), "but got kind='deletion'"),
        ("sparse", ThreatModel(image=Elements(1, "edit")), "Expected substitution of elements of 'image'"),
    ],
)
def test_wrong_budgets_are_refused(tiny_clip, toy_batch, name, threat_model, message):
    with pytest.raises(ValueError, match=message):
        quick(name)(tiny_clip, toy_batch, threat=threat_model, seed=0)


def test_pixels_of_one_channel_are_refused(tiny_clip, toy_batch, unchecked):
    grey = replace(toy_batch, pixels=toy_batch.pixels[:, :1])
    with pytest.raises(ValueError, match=r"Expected `pixels` \[images, 3, height, width\], but got \[8, 1, 16, 16\]"):
        make_attack("pgd")(tiny_clip, grey, threat=ThreatModel(image=LInf(eps=2 / 255)), seed=0)
