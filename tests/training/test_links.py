"""The ways to have more pairs, as one option of the trainer."""

import numpy as np
import pytest
import torch
from training_helpers import ToySource

import crossguard as cg
from crossguard.data.augmented import AugmentedPairs, save_augmented
from crossguard.training import Pictures, arrange, false_negatives, train
from shared import make_clip

THREAT = cg.ThreatModel(image=cg.LInf(eps=8 / 255), text=cg.WordEdits(words=1))
QUICK = {"threat": THREAT, "steps": 2, "batch_size": 8, "learning_rate": 1e-3, "source": ToySource(), "defence": "mat"}


@pytest.fixture
def augmented(toy_pairs):
    """12 originals with the texts that are theirs alone; the other 12 pictures and texts count as made from them."""
    part = toy_pairs.select(images=range(12))
    whole = toy_pairs.select(images=[*range(12), *range(12, 24)])
    order = [whole.texts.index(text) for text in part.texts]
    order += [j for j in range(len(whole.texts)) if j not in order]
    place = np.argsort(order)
    return AugmentedPairs(
        name="toy+more",
        split="train",
        images=whole.images,
        texts=tuple(whole.texts[j] for j in order),
        links=np.stack([whole.links[:, 0], place[whole.links[:, 1]]], axis=1),
        original_name="toy",
        original_images=12,
        original_texts=len(part.texts),
    )


def test_each_way_has_its_pairs_and_targets(augmented, toy_pairs):
    others = toy_pairs.select(images=range(16, 24))
    ways = {
        links: arrange(augmented, links, one_to_many=False, new_originals=others if "new" in links else None)
        for links in ("originals", "extra-pairs", "every-pair", "one-to-many", "new-originals")
    }
    assert {way: (len(a.pairs.images), a.one_to_many, a.every_pair) for way, a in ways.items()} == {
        "originals": (12, False, False),
        "extra-pairs": (24, False, False),
        "every-pair": (24, False, True),
        "one-to-many": (24, True, False),
        "new-originals": (20, False, False),
    }
    assert ways["every-pair"].samples == len(augmented.links)
    assert ways["originals"].pairs.name == "toy"
    assert ways["new-originals"].pairs.images[12:] == others.images
    plain = arrange(toy_pairs, "originals", one_to_many=False)
    assert plain.pairs is toy_pairs


@pytest.mark.parametrize("one_to_many", [False, True])
def test_without_a_word_the_defence_decides(augmented, one_to_many):
    found = arrange(augmented, None, one_to_many=one_to_many)
    assert (found.pairs, found.one_to_many) == (augmented, one_to_many)


def test_true_pairs_are_negatives_of_extra_pairs_but_not_of_one_to_many(augmented):
    ways = {
        links: arrange(augmented, links, one_to_many=False) for links in ("extra-pairs", "every-pair", "one-to-many")
    }
    false = {links: false_negatives(way.pairs, way.composition(12), seed=0, steps=20) for links, way in ways.items()}
    assert false["one-to-many"] == 0
    assert 0 < false["extra-pairs"] < false["every-pair"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"links": "one-to-may"}, "did you mean 'one-to-many'"),
        ({"links": "new-originals"}, "`new_originals` together with links='new-originals'"),
        ({"defence": "mat+", "links": "extra-pairs"}, "use 'mat' to compare the ways"),
        ({"links": "originals", "batch_size": 13}, "at least 13 images .* 'toy' .* has 12"),
        ({"links": "every-pair", "batch_size": 999}, "at least 999 pairs"),
        ({"links": "every-pair", "start": "warm"}, "start='uniform' or 'clean' with links='every-pair'"),
    ],
)
def test_ways_that_make_no_sense_are_refused(augmented, options, message):
    with pytest.raises(ValueError, match=message):
        train(make_clip(), augmented, **{**QUICK, **options})


def test_one_to_many_by_option_or_by_defence_is_the_same_training(augmented):
    model = make_clip()
    pictures = Pictures(model, augmented)
    by_option = train(model, augmented, links="one-to-many", pictures=pictures, **QUICK)
    by_defence = train(model, augmented, pictures=pictures, **{**QUICK, "defence": "mat+"})
    for a, b in zip(by_option.parameters(), by_defence.parameters(), strict=True):
        assert torch.equal(a, b)
    assert not all(
        torch.equal(a, b)
        for a, b in zip(
            by_option.parameters(),
            train(model, augmented, links="originals", pictures=pictures, **QUICK).parameters(),
            strict=True,
        )
    )


def test_pictures_of_other_pairs_are_refused(augmented, toy_pairs):
    pictures = Pictures(make_clip(), toy_pairs.select(images=range(12)))
    with pytest.raises(ValueError, match="image 12 .* is not at its place"):
        train(make_clip(), augmented, pictures=pictures, **QUICK)


def test_augmented_pairs_by_name(augmented, tmp_path):
    save_augmented(tmp_path / "made", augmented)
    again = cg.load_pairs("augmented", split="train", folder=tmp_path / "made")
    assert isinstance(again, AugmentedPairs)
    assert again.original_images == 12
    with pytest.raises(ValueError, match="Expected split 'test'"):
        cg.load_pairs("augmented", split="test", folder=tmp_path / "made")
