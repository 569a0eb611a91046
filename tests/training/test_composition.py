"""Steps as pure functions of (seed, step): what is paired, and that no true pair is ever a negative in one-to-many."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossguard.data import OneToManyPairs, Picture
from crossguard.training import Composition, draw_step, false_negatives

SEEDS = st.integers(0, 10_000)


def many_to_many(seed):
    rng = np.random.default_rng(seed)
    images, texts = int(rng.integers(4, 21)), int(rng.integers(4, 31))
    links = {(i, int(rng.integers(texts))) for i in range(images)} | {
        (int(rng.integers(images)), j) for j in range(texts)
    }
    links |= {(int(rng.integers(images)), int(rng.integers(texts))) for _ in range(int(rng.integers(20)))}
    return OneToManyPairs(
        "drawn",
        "train",
        tuple(Picture(str(i), Path(f"{i}.png")) for i in range(images)),
        tuple(f"text {j}" for j in range(texts)),
        np.array(sorted(links)),
    )


def true_links(pairs, draw):
    known = {tuple(link) for link in pairs.links.tolist()}
    return np.array([[(int(i), int(j)) in known for j in draw.text_ids] for i in draw.image_ids])


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.integers(1, 3), st.integers(1, 2), st.integers(0, 30), st.data())
def test_every_true_pair_of_a_one_to_many_step_is_a_target(seed, texts_each, images_each, step, data):
    pairs = many_to_many(seed)
    size = data.draw(st.integers(2 * images_each, len(pairs.images)))
    composition = Composition(size, one_to_many=True, texts_per_image=texts_each, images_per_text=images_each)
    draw = draw_step(pairs, composition, seed=3, step=step)
    assert (draw.targets == true_links(pairs, draw)).all()
    assert not draw.ignored.any()
    assert len(set(draw.image_ids.tolist())) == len(draw.image_ids) == size
    assert len(set(draw.text_ids.tolist())) == len(draw.text_ids)
    reachable = {int(j) for i in draw.image_ids for j in pairs.texts_of(int(i))}
    assert len(draw.text_ids) == min(composition.texts, len(reachable))
    assert draw.targets.any(axis=0).all()


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.integers(0, 30), st.data())
def test_one_to_one_steps_have_their_own_text_as_target(seed, step, data):
    pairs = many_to_many(seed)
    size = data.draw(st.integers(2, len(pairs.images)))
    draw = draw_step(pairs, Composition(size), seed=1, step=step)
    assert (draw.targets == np.eye(size, dtype=bool)).all()
    assert (draw.targets <= true_links(pairs, draw)).all()
    same_text = draw.text_ids[:, None] == draw.text_ids[None, :]
    assert (draw.ignored == (same_text & ~np.eye(size, dtype=bool))).all()


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.integers(2, 4))
def test_every_pair_is_met_once_in_an_epoch_and_is_the_only_target_of_its_row(seed, size):
    pairs = many_to_many(seed)
    composition, per_epoch = Composition(size, every_pair=True), len(pairs.links) // size
    met = Counter()
    for step in range(per_epoch, 2 * per_epoch):
        draw = draw_step(pairs, composition, seed=seed, step=step)
        assert (draw.targets == np.eye(size, dtype=bool)).all()
        same_text = draw.text_ids[:, None] == draw.text_ids[None, :]
        assert (draw.ignored == (same_text & ~draw.targets)).all()
        assert draw.false_negatives == int((true_links(pairs, draw) & ~draw.targets & ~draw.ignored).sum())
        known = draw_step(pairs, Composition(size, one_to_many=True, every_pair=True), seed=seed, step=step)
        assert (known.image_ids == draw.image_ids).all()
        assert (known.text_ids == draw.text_ids).all()
        assert (known.targets == true_links(pairs, draw)).all()
        assert not known.ignored.any()
        assert known.false_negatives == 0
        met.update(zip(draw.image_ids.tolist(), draw.text_ids.tolist(), strict=True))
    assert set(met.values()) == {1}
    assert len(met) == size * per_epoch
    assert set(met) <= {tuple(link) for link in pairs.links.tolist()}


def photos(count, captions):
    """Pictures that each have as many texts of their own."""
    links = np.stack([np.repeat(np.arange(count), captions), np.arange(count * captions)], axis=1)
    pictures = tuple(Picture(str(i), Path(f"{i}.png")) for i in range(count))
    return OneToManyPairs("photos", "train", pictures, tuple(f"text {j}" for j in range(count * captions)), links)


def test_false_negatives_are_as_many_as_chance_has_it():
    """Of n (n - 1) ordered pairs of samples of a batch, each is of one picture with chance (k - 1) / (N k - 1)."""
    pairs, size = photos(12, 5), 20
    found = false_negatives(pairs, Composition(size, every_pair=True), seed=0, steps=600)
    assert found == pytest.approx(size * (size - 1) * 4 / (12 * 5 - 1), rel=0.05)
    assert false_negatives(pairs, Composition(10), seed=0, steps=50) == 0  # a picture comes once
    many = Composition(10, one_to_many=True, texts_per_image=2)
    assert false_negatives(pairs, many, seed=0, steps=50) == 0  # every true pair is known


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.booleans())
def test_an_epoch_takes_every_image_once_as_anchor(seed, one_to_many):
    pairs = many_to_many(seed)
    composition = Composition(2, one_to_many=one_to_many)
    per_epoch = len(pairs.images) // 2
    seen = Counter(
        int(i)
        for step in range(per_epoch, 2 * per_epoch)
        for i in draw_step(pairs, composition, seed=seed, step=step).image_ids
    )
    assert max(seen.values()) == 1
    assert len(seen) == 2 * per_epoch


def test_steps_are_functions_of_seed_and_step(toy_pairs):
    composition = Composition(8, one_to_many=True, texts_per_image=2, images_per_text=2)
    first = draw_step(toy_pairs, composition, seed=5, step=17)
    again = draw_step(toy_pairs, composition, seed=5, step=17)
    assert (first.image_ids == again.image_ids).all()
    assert (first.text_ids == again.text_ids).all()
    others = [draw_step(toy_pairs, composition, seed=s, step=t) for s, t in ((5, 18), (6, 17))]
    assert all(first.text_ids.tolist() != other.text_ids.tolist() for other in others)


def test_equal_compute_of_the_default_steps(toy_pairs):
    one = draw_step(toy_pairs, Composition(8), seed=0, step=0)
    many = draw_step(toy_pairs, Composition(8, one_to_many=True, texts_per_image=2, images_per_text=2), seed=0, step=0)
    assert (len(one.image_ids), len(one.text_ids)) == (len(many.image_ids), len(many.text_ids)) == (8, 8)
    assert many.targets.sum() > one.targets.sum()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"images": 1}, "at least 2 images per step"),
        ({"images": 8, "texts_per_image": 2}, "one text per image in one-to-one training"),
        ({"images": 8, "one_to_many": True, "texts_per_image": 0}, ">= 1, but got 0 and 1"),
        ({"images": 2, "one_to_many": True, "images_per_text": 2}, "at least 2 texts per step"),
        ({"images": 4, "one_to_many": True, "every_pair": True, "texts_per_image": 2}, "every pair is a sample, but"),
    ],
)
def test_impossible_steps_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        Composition(**values)


def test_too_few_images_are_refused(toy_pairs):
    with pytest.raises(ValueError, match="at least 25 images .* has 24"):
        draw_step(toy_pairs, Composition(25), seed=0, step=0)
    links = len(toy_pairs.links)
    with pytest.raises(ValueError, match=f"at least {links + 1} pairs .* has {links}"):
        draw_step(toy_pairs, Composition(links + 1, every_pair=True), seed=0, step=0)
