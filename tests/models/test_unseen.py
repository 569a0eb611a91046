"""Texts that a model cannot tell apart are linked alike, in training and wherever pairs are ranked."""

import numpy as np
import pytest

from crossguard.data import OneToManyPairs
from crossguard.models.unseen import cut_texts, linked_as_read, same_tokens
from crossguard.training import train


def _with_texts(pairs, texts, links):
    return OneToManyPairs("toy", "train", pairs.images[: max(i for i, _ in links) + 1], texts, np.array(links))


@pytest.fixture
def alike(toy_pairs):
    """Another word that is not in the vocabulary, an end beyond the context, and one text that is another's own."""
    long = "red " * 90
    texts = ("a zebra disc", "a quagga disc", "a blue square", f"{long} disc", f"{long} square", "a green disc")
    return _with_texts(toy_pairs, texts, [(0, 0), (1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (5, 2)])


def test_what_gives_the_same_tokens(tiny_clip, alike):
    assert same_tokens(tiny_clip, alike.texts).tolist() == [0, 0, 2, 3, 3, 5]
    assert cut_texts(tiny_clip, alike.texts) == [3, 4]


def test_links_are_those_of_all_that_the_model_takes_for_one(tiny_clip, alike):
    """Against the definition, pair by pair."""
    found = linked_as_read(tiny_clip, alike)
    same = same_tokens(tiny_clip, alike.texts)
    true = {tuple(link) for link in alike.links.tolist()}
    expected = {
        (i, j) for i in range(6) for j in range(6) if any((i, k) in true and same[j] == same[k] for k in range(6))
    }
    assert {tuple(link) for link in found.links.tolist()} == expected
    assert "4 of 6 texts differ from another in what" in found.notes[-1]
    assert "'a zebra disc', 'a quagga disc'" in found.notes[-1]
    assert linked_as_read(tiny_clip, found) is found


def test_training_says_it(tiny_clip, alike):
    with pytest.warns(UserWarning, match="4 of 6 texts differ"), pytest.warns(UserWarning, match="are cut"):
        train(tiny_clip, alike, defence="clean", steps=1, batch_size=3, log_every=0)
