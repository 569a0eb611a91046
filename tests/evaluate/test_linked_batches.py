"""Batches keep linked images and texts together."""

import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossguard.data import OneToManyPairs, Picture
from crossguard.evaluate.batches import ahead, in_order, linked_groups, pair_batch


@st.composite
def links_of_pairs(draw):
    images, texts = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    links = {(i, draw(st.integers(0, texts - 1))) for i in range(images)}
    links |= {(draw(st.integers(0, images - 1)), t) for t in range(texts)}
    return images, texts, sorted(links)


@given(links_of_pairs(), st.integers(1, 6))
def test_every_image_once_and_no_link_crosses(drawn, batch_size):
    images, texts, links = drawn
    pictures = tuple(Picture(str(i), Path(f"{i}.png")) for i in range(images))
    pairs = OneToManyPairs("drawn", "test", pictures, tuple(f"t{t}" for t in range(texts)), np.array(links))
    groups = linked_groups(pairs, batch_size=batch_size)
    assert sorted(int(i) for group in groups for i in group) == list(range(len(pairs.images)))
    home = {int(i): number for number, group in enumerate(groups) for i in group}
    for text in range(len(pairs.texts)):
        assert len({home[int(i)] for i in pairs.images_of(text)}) == 1
    for group in groups:
        assert list(group) == sorted(group)
        if len(group) > batch_size:  # only a cluster that cannot be cut
            reached, grown = {int(group[0])}, True
            while grown:
                wider = {int(i) for image in reached for t in pairs.texts_of(image) for i in pairs.images_of(int(t))}
                grown, reached = wider != reached, wider
            assert reached == set(group.tolist())


def test_separate_pairs_fill_their_batches_in_order():
    pictures = tuple(Picture(str(i), Path(f"{i}.png")) for i in range(7))
    pairs = OneToManyPairs("sep", "test", pictures, tuple("abcdefg"), np.array([[i, i] for i in range(7)]))
    assert [group.tolist() for group in linked_groups(pairs, batch_size=4)] == [[0, 1, 2, 3], [4, 5, 6]]


@pytest.mark.parametrize(
    ("images", "sizes"),
    [(64, [64]), (65, [33, 32]), (95, [48, 47]), (96, [64, 32]), (128, [64, 64]), (130, [64, 33, 33]), (3, [3])],
)
def test_a_small_rest_shares_with_the_batch_before(images, sizes):
    assert [len(group) for group in in_order(images, batch_size=64)] == sizes
    assert np.concatenate(in_order(images, batch_size=64)).tolist() == list(range(images))
    pictures = tuple(Picture(str(i), Path(f"{i}.png")) for i in range(images))
    links = np.array([[i, i] for i in range(images)])
    pairs = OneToManyPairs("rest", "test", pictures, tuple(map(str, range(images))), links)
    groups = linked_groups(pairs, batch_size=64)
    assert [len(group) for group in groups] == sizes
    assert np.concatenate(groups).tolist() == list(range(images))


def test_what_is_linked_is_not_split_for_a_small_rest():
    pictures = tuple(Picture(str(i), Path(f"{i}.png")) for i in range(7))
    links = np.array([[0, 0], [1, 0], *([i, 1] for i in range(2, 6)), [6, 2]])  # clusters of 2, 4 and 1
    pairs = OneToManyPairs("linked", "test", pictures, ("a", "b", "c"), links)
    assert [group.tolist() for group in linked_groups(pairs, batch_size=6)] == [[0, 1], [2, 3, 4, 5, 6]]
    assert [group.tolist() for group in linked_groups(pairs, batch_size=4)] == [[0, 1], [2, 3, 4, 5], [6]]


def test_refuses_no_room():
    pairs = OneToManyPairs("one", "test", (Picture("a", Path("a.png")),), ("a",), np.array([[0, 0]]))
    with pytest.raises(ValueError, match="`batch_size` >= 1"):
        linked_groups(pairs, batch_size=0)


def test_a_batch_holds_all_texts_of_its_images(tiny_clip, toy_pairs):
    images = np.array([2, 3, 9])
    batch = pair_batch(tiny_clip, toy_pairs, images)
    told = {(int(images[i]), batch.texts[t]) for i, t in batch.links.tolist()}
    assert told == {(i, toy_pairs.texts[t]) for i, t in toy_pairs.links.tolist() if i in images}
    assert [toy_pairs.texts[j] for j in batch.text_ids.tolist()] == list(batch.texts)


def test_what_is_made_ahead_comes_in_order_and_no_further():
    started = []

    def make(item):
        started.append(item)
        time.sleep(0.02 if item % 2 else 0.0)
        return item * item

    results = ahead(make, range(9), workers=2)
    assert next(results) == 0
    assert max(started) <= 3
    assert list(results) == [n * n for n in range(1, 9)]


def test_an_error_ahead_reaches_the_caller():
    def make(item):
        if item == 2:
            raise ValueError("broken")
        return item

    results = ahead(make, range(50), workers=2)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match="broken"):
        next(results)
