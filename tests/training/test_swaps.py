"""The cheap inner text attack: budget, greed, and that with enough tries it is the exhaustive search."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from training_helpers import ALIKE, ToySource

from crossguard.attacks import count_word_edits, swap_words
from crossguard.attacks.encode import encode_unit_texts
from crossguard.attacks.objectives import linked_mean
from crossguard.training import Swaps, swap_some
from shared import make_clip

MODEL = make_clip()
TEXTS = (
    "a small picture of a red disc",
    "drawing of the blue cross left",
    "red",
    "a bright green disc on the left side",
)


def by_length(texts, owners):
    """A score that needs no model: short texts serve worse."""
    return np.array([len(text) for text in texts], dtype=np.float32)


def swap(score, *, words=1, tries=100, texts=TEXTS, source=None, seed=0):
    return swap_some(
        texts,
        score,
        words=words,
        tries=tries,
        swaps=Swaps(source or ToySource(), MODEL),
        rng=np.random.default_rng(seed),
    )


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 3), st.integers(1, 6), st.integers(0, 99))
def test_budget_and_vocabulary(words, tries, seed):
    for text, changed in zip(TEXTS, swap(by_length, words=words, tries=tries, seed=seed), strict=True):
        assert count_word_edits(text, changed) <= words
        assert len(changed) <= len(text)
        for old, new in zip(text.split(), changed.split(), strict=True):
            assert new == old or new in ALIKE[old]


def test_the_best_substitution_is_taken_per_word():
    assert swap(by_length) == (
        "a small side of a red disc",
        "shape of the blue cross left",
        "red",
        "a plain green disc on the left side",
    )
    # No substitute of "small" or "side" is shorter, so a second word changes nothing.
    assert swap(by_length, words=2) == swap(by_length)
    assert swap(by_length, words=2, texts=("bright picture",)) == ("plain side",)


def test_a_text_without_worse_variants_stays():
    assert swap(lambda texts, owners: np.zeros(len(texts), dtype=np.float32)) == TEXTS


def test_only_so_many_variants_are_scored_in_one_call():
    calls = []

    def score(texts, owners):
        calls.append(owners)
        return np.zeros(len(texts), dtype=np.float32)

    swap(score, tries=2)
    originals, variants = calls
    assert originals == [0, 1, 2, 3]
    assert variants == [0, 0, 1, 1, 3, 3]


def test_candidates_are_looked_up_once():
    source = ToySource()
    swaps = Swaps(source, MODEL)
    for _ in range(2):
        swaps.of(TEXTS)
    assert source.asked == list(TEXTS)


def test_enough_tries_are_the_exhaustive_attack(tiny_clip, toy_batch):
    with torch.no_grad():
        features = tiny_clip.encode_image(toy_batch.pixels)
    source = ToySource()
    expected = swap_words(
        tiny_clip, toy_batch.texts, features, toy_batch.positives, words=1, source=source, order="all"
    )
    partners = linked_mean(features, toy_batch.positives.T)

    def score(texts, owners):
        return (encode_unit_texts(tiny_clip, texts) * partners[owners]).sum(dim=1).numpy()

    found = swap(score, texts=toy_batch.texts, source=source)
    assert found == expected
    assert found != toy_batch.texts
