"""Texts that a model cannot tell apart are linked alike, in training and wherever pairs are ranked."""

import numpy as np
import pytest
import torch

from crossguard.data import OneToManyPairs
from crossguard.evaluate import evaluate
from crossguard.evaluate.features import attacked_texts, encode_texts
from crossguard.models.unseen import cut_texts, linked_as_read, same_tokens
from crossguard.threat import LInf, ThreatModel, WordEdits
from crossguard.training import train
from shared import fit_clip


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


def test_what_belongs_together_is_what_belongs_together_as_read(tiny_clip, alike):
    """Further links that were judged afterwards join no groups; equal texts do."""
    own = alike.links[alike.links[:, 1] != 2]
    judged = OneToManyPairs(
        "toy", "test", alike.images, alike.texts, alike.links, own_links=np.concatenate([own, [[2, 2]]])
    )
    assert judged.groups[0].tolist() == [0, 1, 2, 3, 4, 5]
    assert linked_as_read(tiny_clip, judged).groups[0].tolist() == [0, 0, 1, 2, 2, 3]
    assert alike.groups[0].tolist() == [0, 1, 2, 3, 4, 2]
    assert linked_as_read(tiny_clip, alike).groups[0].tolist() == [0, 0, 1, 2, 2, 1]


@pytest.fixture
def deaf(alike):
    """What the model reads is what it is trained for, but four texts are two."""
    return fit_clip(alike), alike


def test_ranking_takes_each_for_right_and_says_it(deaf, tmp_path):
    """Against the texts joined by hand."""
    model, pairs = deaf
    clean = evaluate(model, pairs)
    joined = OneToManyPairs(
        "joined",
        "test",
        pairs.images,
        [pairs.texts[i] for i in (0, 2, 3, 5)],
        np.array([(0, 0), (1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (5, 1)]),
    )
    by_hand = evaluate(model, joined)
    for metric in ("tr@1", "tr@5"):
        assert clean.clean[metric] == by_hand.clean[metric]
    ranks = {row["query"]: row["clean_rank"] for row in by_hand.rows if row["direction"] == "ir"}
    same = same_tokens(model, pairs.texts)
    own = [row for row in clean.rows if row["direction"] == "ir"]
    assert [row["clean_rank"] for row in own] == [ranks[pairs.texts[int(same[row["index"]])]] for row in own]
    assert any("4 of 6 texts differ from another in what 'tiny' does not read" in note for note in clean.notes)
    assert not any("differ from another" in note for note in by_hand.notes)
    # They are attacked together, and never against each other.
    threat = ThreatModel(image=LInf(8 / 255), text=WordEdits(1))
    for attack, options in (("sga", {"steps": 2, "scales": (1.0,)}), ("adaptive", {"steps": 5, "rounds": 1})):
        found = evaluate(model, pairs, attack=attack, attack_options=options, threat=threat, batch_size=1)
        assert [row["clean_rank"] for row in found.rows] == [row["clean_rank"] for row in clean.rows]
        assert any("differ from another" in note for note in found.notes)


def test_texts_that_an_attack_made_alike_tie(deaf):
    model, pairs = deaf
    clean = encode_texts(model, pairs.texts, batch_size=2)
    assert [clean[0].equal(clean[1]), clean[3].equal(clean[4]), clean[0].equal(clean[2])] == [True, True, False]
    attacked = ("a gnu disc", "a blue disc", "a quagga square", "a zebra square", "a yak disc", "a disc")
    found = attacked_texts(model, clean, pairs.texts, attacked, batch_size=2)
    assert all(one.equal(other) for one, other in ((found[0], clean[0]), (found[4], clean[0]), (found[2], found[3])))
    assert torch.allclose(found, model.encode_text(list(attacked)), atol=1e-6)


def test_training_says_it(tiny_clip, alike):
    with pytest.warns(UserWarning, match="4 of 6 texts differ"), pytest.warns(UserWarning, match="are cut"):
        train(tiny_clip, alike, defence="clean", steps=1, batch_size=3, log_every=0)
