"""The adaptive attack on whole galleries: never weaker with more, the same in any batches, from where it stopped."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from crossguard.attacks import make_attack
from crossguard.attacks.base import frozen
from crossguard.attacks.budget import Budgets
from crossguard.attacks.gallery import SETS, Gallery, InMemory, Whole
from crossguard.attacks.mixture import Links, standing
from crossguard.attacks.ranking import cosines, image_states, text_states
from crossguard.data import PairBatch, links_among
from crossguard.threat import LInf, ThreatModel, WordEdits
from families import FAMILIES, FUSION
from shared import fit_clip, make_clip

JOINT = Budgets(LInf(3 / 255), words=1)


def batch_of(model, pairs, image_ids):
    image_ids = np.asarray(image_ids)
    text_ids = np.unique(np.concatenate([pairs.texts_of(int(i)) for i in image_ids]))
    return PairBatch(
        model.preprocess([pairs.image(int(i)) for i in image_ids]),
        tuple(pairs.texts[int(j)] for j in text_ids),
        torch.from_numpy(links_among(pairs, image_ids, text_ids)),
        torch.from_numpy(image_ids),
        torch.from_numpy(text_ids),
    )


@torch.no_grad()
def whole_in(model, pairs, parts, *, order=None):
    """A gallery of pairs in some batches; `order` says in which the batches come."""
    everything = batch_of(model, pairs, range(len(pairs.images)))
    parts = [parts[k] for k in order] if order else parts
    batches = [batch_of(model, pairs, part) for part in parts]
    return Whole(
        model.encode_image(everything.pixels),
        model.encode_text(everything.texts),
        everything.texts,
        everything.links,
        lambda ids: everything.pixels[torch.from_numpy(ids)],
        [(batch.image_ids, batch.text_ids) for batch in batches],
        batches.__getitem__,
    )


def sets_of(attack, model, whole, budget, *, keep=None, seed=0):
    """Every set as (pixels by image, texts by text) of the gallery."""
    with frozen(model):
        read = attack.search(model, whole, budget=budget, seed=seed, keep=keep)
    found = {}
    for name in SETS:
        pixels, texts = {}, {}
        for number, (images, of_texts) in enumerate(whole.batches):
            some, strings = read(name, number)
            pixels |= dict(zip(images.tolist(), some, strict=True))
            texts |= dict(zip(of_texts.tolist(), strings, strict=True))
        found[name] = torch.stack([pixels[i] for i in sorted(pixels)]), tuple(texts[j] for j in sorted(texts))
    return found


@torch.no_grad()
def left(model, whole, found):
    """How many queries each set leaves right: images in their set, texts in theirs, and the share of both in one."""
    counts = {}
    links = Links(whole.links, images=len(whole.images), texts=len(whole.texts))
    for name, (pixels, texts) in found.items():
        scores = model.logit_scale * cosines(image_states(model, pixels), text_states(model, texts))
        sides = standing(lambda i, j: scores[i][:, j], *(torch.arange(n) for n in scores.shape), links)  # noqa: B023
        counts[name] = [int((side.margins < -3e-5).sum()) for side in sides]
    images, texts = len(whole.images), len(whole.texts)
    shared = counts["shared"][0] / images + counts["shared"][1] / texts
    return counts["tr"][0], counts["ir"][1], shared


OPTIONS = {"rounds": (1, 2), "steps": (5, 10), "restarts": (1, 2), "variants": (1, 4)}
EFFORTS = [(0, 0, 0, 0), (1, 0, 0, 0), (0, 1, 1, 0), (0, 0, 0, 1), (1, 1, 1, 1)]


@pytest.mark.parametrize(
    ("seed", "eps", "words"), [(0, 2, 0), (2, 0, 1), pytest.param(0, 1, 1, marks=pytest.mark.slow)]
)
def test_more_of_anything_never_leaves_more(toy_pairs, seed, eps, words):
    model = fit_clip(toy_pairs, seed=seed)
    whole = whole_in(model, toy_pairs.head(8), [range(8)])
    budget = Budgets(LInf(eps / 255), words=words)
    known = {}
    for effort in EFFORTS:
        attack = make_attack("adaptive", **{o: v[k] for (o, v), k in zip(OPTIONS.items(), effort, strict=True)})
        known[effort] = left(model, whole, sets_of(attack, model, whole, budget))
    for few, many in itertools.product(known, known):
        if all(a <= b for a, b in zip(few, many, strict=True)):
            assert all(m <= f + 1e-9 for f, m in zip(known[few], known[many], strict=True)), (few, many)
    clean = left(model, whole, sets_of(attack, model, whole, Budgets(LInf(0.0), 0)))
    assert all(a <= b for a, b in zip(known[max(known)], clean, strict=True))
    assert sum(known[max(known)]) < sum(clean)


def test_each_direction_fails_most_under_its_own_set(toy_pairs):
    model = fit_clip(toy_pairs)
    whole = whole_in(model, toy_pairs.head(8), [range(8)])
    found = sets_of(make_attack("adaptive", steps=5), model, whole, JOINT)
    tr, ir, shared = left(model, whole, found)
    for pixels_and_texts in found.values():
        other = left(model, whole, dict.fromkeys(SETS, pixels_and_texts))
        assert tr <= other[0]
        assert ir <= other[1]
        assert shared <= other[2] + 1e-9


@pytest.mark.parametrize("family", ["clip", pytest.param(FUSION[0], marks=pytest.mark.slow)])
def test_batches_and_their_order_play_no_part(toy_pairs, tmp_path, family):
    model = FAMILIES[family](tmp_path).requires_grad_(False)
    pairs = toy_pairs.head(8)
    attack = make_attack("adaptive", steps=5)
    parts = [[0, 1, 2, 3], [4, 5], [6, 7]]
    one, several, turned = (
        sets_of(attack, model, whole_in(model, pairs, *given[:1], **given[1]), JOINT)
        for given in (([range(8)], {}), (parts, {}), (parts, {"order": [2, 0, 1]}))
    )
    for name in SETS:
        for other in (several, turned):
            # A gradient of float32 noise around zero may change its sign with the shape of a matrix product.
            assert float((other[name][0] != one[name][0]).float().mean()) < 0.02
            assert sum(a != b for a, b in zip(other[name][1], one[name][1], strict=True)) <= 1


class Stopping(InMemory):
    """Stops after some writes."""

    def __init__(self, writes):
        super().__init__()
        self.writes = writes

    def write(self, stage, number, found):
        if not self.writes:
            raise KeyboardInterrupt
        self.writes -= 1
        super().write(stage, number, found)


@pytest.mark.parametrize(
    "writes", [pytest.param(1, marks=pytest.mark.slow), 4, pytest.param(9, marks=pytest.mark.slow)]
)
def test_an_interrupted_search_ends_as_if_it_had_not_been(toy_pairs, writes):
    model = make_clip(1).requires_grad_(False)
    whole = whole_in(model, toy_pairs.head(8), [range(4), range(4, 8)])
    attack = make_attack("adaptive", steps=5)
    stages = attack.stages(JOINT)
    assert stages == 5
    expected = sets_of(attack, model, whole, JOINT, keep=Stopping(99))
    keep = Stopping(writes)
    with pytest.raises(KeyboardInterrupt):
        sets_of(attack, model, whole, JOINT, keep=keep)
    keep.writes = 2 * stages - writes
    again = sets_of(make_attack("adaptive", steps=5), model, whole, JOINT, keep=keep)
    assert keep.writes == 0
    for name in SETS:
        assert torch.equal(again[name][0], expected[name][0])
        assert again[name][1] == expected[name][1]


@pytest.mark.parametrize("target", ["query", "gallery"])
def test_each_side_is_attacked_as_retrieval_will_meet_it(toy_pairs, target):
    model = make_clip(2).requires_grad_(False)
    whole = whole_in(model, toy_pairs.head(8), [range(8)])
    attack = make_attack("adaptive", steps=5)
    found = sets_of(attack, model, whole, replace(JOINT, target=target))
    clean = sets_of(attack, model, whole, Budgets(LInf(0.0), 0))["shared"]
    images, texts = ("tr", "ir") if target == "query" else ("ir", "tr")
    assert torch.equal(found["shared"][0], found[images][0])
    assert found["shared"][1] == found[texts][1]
    assert not torch.equal(found[images][0], clean[0])
    assert found[texts][1] != clean[1]
    assert torch.equal(found[texts][0], clean[0])
    assert found[images][1] == clean[1]
    # Against what is not attacked, an image or a text alone is as bad as it gets within the joint budget's part.
    alone = sets_of(attack, model, whole, replace(JOINT, words=0))
    if target == "query":
        assert left(model, whole, found)[0] == left(model, whole, alone)[0]


def test_a_gallery_around_a_batch_counts_as_if_it_were_in_it(toy_pairs):
    """The others stay clean: as in a search in which only the batch may change."""
    model = make_clip(1).requires_grad_(False)
    pairs = toy_pairs.head(8)
    whole = replace(whole_in(model, pairs, [[2, 3], [0, 1]]), batches=whole_in(model, pairs, [[2, 3]]).batches)
    batch = whole.load(0)
    images, texts = [i for i in range(8) if i not in (2, 3)], []
    texts = [j for j in range(len(whole.texts)) if j not in batch.text_ids.tolist()]
    links = torch.from_numpy(links_among(pairs, np.array(images), np.array(texts)))
    threat = ThreatModel(image=LInf(3 / 255), text=WordEdits(1))
    attack = make_attack("adaptive", steps=5)
    gallery = Gallery(whole.images[images], whole.texts[texts], links)
    found = attack(model, batch, threat=threat, seed=0, gallery=gallery)
    with frozen(model):
        pixels, strings = attack.search(model, whole, budget=JOINT, seed=0)("shared", 0)
    assert float((found.pixels != pixels).float().mean()) < 0.02
    assert found.texts == strings
    alone = attack(model, batch, threat=threat, seed=0)
    assert not torch.equal(alone.pixels, found.pixels) or alone.texts != found.texts


def test_a_fusion_model_s_gallery_has_texts_and_pixels_to_match(toy_pairs, tmp_path):
    model = FAMILIES[FUSION[0]](tmp_path).requires_grad_(False)
    whole = whole_in(model, toy_pairs.head(8), [[0, 1], [2, 3, 4, 5, 6, 7]])
    batch, others = whole.load(0), whole.load(1)
    threat = ThreatModel(image=LInf(8 / 255), text=WordEdits(1))
    attack = make_attack("adaptive", steps=5, rounds=1)
    bare = Gallery(whole.images[2:], whole.texts[others.text_ids], others.links)
    with pytest.raises(ValueError, match="`strings` and `pixels` for a fusion model"):
        attack(model, batch, threat=threat, seed=0, gallery=bare)
    full = replace(bare, strings=others.texts, pixels=lambda ids: others.pixels[torch.from_numpy(ids)])
    found = attack(model, batch, threat=threat, seed=0, gallery=full)
    assert 0 < float(found.linf.max()) <= 8 / 255 + 1e-6


@pytest.mark.usefixtures("unchecked")
def test_galleries_that_do_not_fit_are_refused(tiny_clip, toy_batch):
    images, texts, links = torch.randn(3, 16), torch.randn(2, 16), torch.tensor([[0, 1]])
    with pytest.raises(ValueError, match="in one space, but got 16 and 8"):
        Gallery(images, texts[:, :8], links)
    with pytest.raises(ValueError, match="`links` among the gallery's 3 images"):
        Gallery(images, texts, links + 3)
    with pytest.raises(ValueError, match="Expected 2 `strings`"):
        Gallery(images, texts, links, strings=("a",))
    threat = ThreatModel(image=LInf(8 / 255))
    with pytest.raises(ValueError, match="attack 'pgd' does not look at one"):
        make_attack("pgd")(tiny_clip, toy_batch, threat=threat, seed=0, gallery=Gallery(images, texts, links))
    narrow = Gallery(images[:, :8], texts[:, :8], links)
    with pytest.raises(ValueError, match="gallery of 16 dimensions"):
        make_attack("adaptive")(tiny_clip, toy_batch, threat=threat, seed=0, gallery=narrow)


@pytest.mark.parametrize("family", ["clip", FUSION[0]])
def test_a_picture_without_negatives_moves_away_from_its_texts(toy_pairs, tmp_path, family):
    model = FAMILIES[family](tmp_path).requires_grad_(False)
    batch = batch_of(model, toy_pairs, [0])
    threat = ThreatModel(image=LInf(8 / 255), text=WordEdits(1))
    found = make_attack("adaptive", steps=5, rounds=1)(model, batch, threat=threat, seed=0)
    assert int(found.words.sum()) > 0
    if family == "clip":
        assert float(found.image_drop[0]) > 0


def test_items_without_partners_and_of_several(tiny_clip, toy_batch):
    """An image without texts, a text without images, and texts of two images, in one batch."""
    links = toy_batch.links[(toy_batch.links[:, 0] != 3)]
    batch = replace(toy_batch, links=links)
    assert int(batch.positives.sum(dim=0).max()) > 1
    assert not bool(batch.positives.any(dim=1).all())
    assert not bool(batch.positives.any(dim=0).all())
    threat = ThreatModel(image=LInf(8 / 255), text=WordEdits(1))
    for objectives in ((), ("distance", "contrastive")):
        found = make_attack("adaptive", steps=5, objectives=objectives)(tiny_clip, batch, threat=threat, seed=0)
        assert float(found.linf.max()) > 0
        lonely = (~batch.positives.any(dim=0)).nonzero().squeeze(1).tolist()
        assert all(found.texts[j] == batch.texts[j] for j in lonely)


def test_naming_the_defence_s_own_loss_leaves_no_more(toy_pairs):
    model = make_clip().requires_grad_(False)
    whole = whole_in(model, toy_pairs.head(8), [range(8)])
    plain, more = (
        left(model, whole, sets_of(make_attack("adaptive", steps=5, objectives=o), model, whole, JOINT))
        for o in ((), ("distance", "contrastive"))
    )
    assert all(b <= a + 0.1 for a, b in zip(plain, more, strict=True))
