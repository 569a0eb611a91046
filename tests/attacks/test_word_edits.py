"""Words substituted, inserted and deleted: within the Levenshtein budget, and as strong as the best single edit."""

from math import inf

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from crossguard.attacks import count_word_edits, make_attack, swap_words
from crossguard.attacks.stopwords import NEGATIONS
from crossguard.attacks.word_variants import EditedText
from crossguard.threat import LInf, ThreatModel, WordEdits
from shared import make_clip

KINDS = [("substitution",), ("insertion",), ("deletion",), ("insertion", "deletion"), ("substitution", "insertion")]
KINDS += [("substitution", "insertion", "deletion")]
LETTERS = ["red", "disc", "not", "the", "left,", '"small"', "12"]


class Fixed:
    """The same candidates for every word; "never" must not get in by insertion."""

    name = "fixed"

    def __init__(self, *words):
        self.words = words

    def candidates(self, texts, *, model=None):
        return [tuple(self.words for _ in text.split()) for text in texts]


def distance(a, b, kinds):
    """Brute force: every way to turn one list of words into another by the allowed edits."""
    if not a and not b:
        return 0
    ways = []
    if a and b and (a[0] == b[0] or "substitution" in kinds):
        ways.append(distance(a[1:], b[1:], kinds) + (a[0] != b[0]))
    if a and "deletion" in kinds:
        ways.append(distance(a[1:], b, kinds) + 1)
    if b and "insertion" in kinds:
        ways.append(distance(a, b[1:], kinds) + 1)
    return min(ways, default=inf)


@settings(max_examples=60)
@given(
    st.lists(st.sampled_from(LETTERS), min_size=1, max_size=5),
    st.sampled_from(KINDS),
    st.integers(0, 3),
    st.sampled_from(["importance", "all"]),
)
def test_texts_stay_within_the_brute_force_distance(pieces, kinds, words, order):
    model, text = make_clip(seed=1), " ".join(pieces)
    features = model.encode_image(torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))).detach()
    (found,) = swap_words(
        model,
        (text,),
        features,
        torch.ones(1, 1, dtype=torch.bool),
        words=words,
        source=Fixed("green", "never", "cross"),
        order=order,
        kinds=kinds,
    )
    steps = distance(text.split(), found.split(), kinds)
    assert steps <= words
    assert count_word_edits(text, found, kinds=kinds) == steps
    assert found.split()
    before, after = ([w for w in t.split() if w in NEGATIONS and w != "never"] for t in (text, found))
    assert before == after
    if "substitution" not in kinds:
        assert "never" not in found.split()


@pytest.mark.parametrize("kinds", KINDS)
def test_all_finds_the_best_single_edit(toy_batch, kinds):
    model = make_clip(seed=2)
    features = model.encode_image(toy_batch.pixels).detach()
    source = Fixed("green", "cross")
    (found,) = swap_words(
        model,
        toy_batch.texts[:1],
        features,
        toy_batch.positives[:, :1],
        words=1,
        source=source,
        order="all",
        kinds=kinds,
    )
    pieces = toy_batch.texts[0].split()
    open_words = [i for i, piece in enumerate(pieces) if piece not in ("a", "of")]
    variants = [toy_batch.texts[0]]
    for i in open_words:
        for new in ("green", "cross"):
            if "substitution" in kinds:
                variants.append(" ".join([*pieces[:i], new, *pieces[i + 1 :]]))
            if "insertion" in kinds:
                variants.append(" ".join([*pieces[:i], new, *pieces[i:]]))
        if "deletion" in kinds:
            variants.append(" ".join([*pieces[:i], *pieces[i + 1 :]]))
    partners = torch.nn.functional.normalize(features[toy_batch.positives[:, 0]], dim=-1)
    scores = torch.nn.functional.normalize(model.encode_text(variants), dim=-1) @ partners.mean(dim=0)
    assert found == variants[int(scores.argmin())]


def test_edits_find_their_words_after_others_moved():
    text = EditedText("red disc left side", ((("green",),) * 4), ("substitution", "insertion", "deletion"))
    text.take(next(v for v in text.variants(every=True) if v[:2] == (1, "insertion")), 0.0)
    assert text.text == "red green disc left side"
    text.take(next(v for v in text.variants(every=True) if v[:2] == (0, "deletion")), 0.0)
    assert text.text == "green disc left side"
    text.take(next(v for v in text.variants(every=True) if v[:2] == (3, "substitution")), 0.0)
    assert text.text == "green disc left green"
    assert text.open == [2]
    assert text.masked("_") == ["green disc _ green"]


@pytest.mark.parametrize("name", ["word-swap", "sga", "co-attack", "sep", "adaptive"])
def test_attacks_use_the_kinds_of_their_budget(toy_batch, name):
    options = {} if name == "word-swap" else {"steps": 5 if name == "adaptive" else 1}
    attack = make_attack(name, source=Fixed("green", "cross"), **options)
    for kinds in (("deletion",), ("insertion",)):
        threat = ThreatModel(image=LInf(2 / 255), text=WordEdits(1, kinds))
        found = attack(make_clip(1), toy_batch, threat=threat, seed=0)
        grown = {len(b.split()) - len(a.split()) for a, b in zip(toy_batch.texts, found.texts, strict=True)}
        assert grown - {0} == {-1 if kinds == ("deletion",) else 1}


def test_more_kinds_are_no_weaker_when_all_edits_are_tried(toy_batch):
    falls = []
    for kinds in (("substitution",), ("substitution", "insertion", "deletion")):
        attack = make_attack("word-swap", order="all")
        falls.append(attack(make_clip(1), toy_batch, threat=ThreatModel(text=WordEdits(1, kinds)), seed=0).text_drop)
    assert (falls[1] >= falls[0] - 1e-6).all()
    assert falls[1].mean() > falls[0].mean()
