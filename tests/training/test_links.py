"""The four ways to have more pairs, as one option of the trainer."""

import numpy as np
import pytest
import torch
from training_helpers import ToySource

import crossguard as cg
from crossguard.data.augmented import AugmentedPairs, save_augmented
from crossguard.training import Pictures, draw_step, train
from crossguard.training.composition import Composition
from crossguard.training.links import arrange
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
        for links in ("originals", "extra-pairs", "one-to-many", "new-originals")
    }
    assert {way: (len(a.pairs.images), a.one_to_many) for way, a in ways.items()} == {
        "originals": (12, False),
        "extra-pairs": (24, False),
        "one-to-many": (24, True),
        "new-originals": (20, False),
    }
    assert ways["originals"].pairs.name == "toy"
    assert ways["new-originals"].pairs.images[12:] == others.images
    plain = arrange(toy_pairs, "originals", one_to_many=False)
    assert plain.pairs is toy_pairs


@pytest.mark.parametrize("one_to_many", [False, True])
def test_without_a_word_the_defence_decides(augmented, one_to_many):
    found = arrange(augmented, None, one_to_many=one_to_many)
    assert (found.pairs, found.one_to_many) == (augmented, one_to_many)


def test_true_pairs_are_negatives_of_extra_pairs_but_not_of_one_to_many(augmented):
    false = {}
    for links in ("extra-pairs", "one-to-many"):
        way = arrange(augmented, links, one_to_many=False)
        composition = Composition(12, one_to_many=way.one_to_many)
        false[links] = 0
        for step in range(20):
            draw = draw_step(way.pairs, composition, seed=0, step=step)
            true = np.zeros_like(draw.targets)
            true[draw.links[:, 0], draw.links[:, 1]] = True
            false[links] += int((true & ~draw.targets & ~draw.ignored).sum())
    assert false["one-to-many"] == 0
    assert false["extra-pairs"] > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"links": "one-to-may"}, "did you mean 'one-to-many'"),
        ({"links": "new-originals"}, "`new_originals` together with links='new-originals'"),
        ({"defence": "mat+", "links": "extra-pairs"}, "use 'mat' to compare the four"),
        ({"links": "originals", "batch_size": 13}, "at least 13 images .* 'toy' .* has 12"),
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
