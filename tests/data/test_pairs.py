"""Pairs: links both ways agree with a plain reading of the list, selections keep every true link."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from crossguard.data import OneToManyPairs, Picture, links_among


def build(links):
    links = np.array(sorted(links), dtype=np.int64)
    images = sorted({int(i) for i, _ in links})
    texts = sorted({int(j) for _, j in links})
    dense = np.array([(images.index(i), texts.index(j)) for i, j in links], dtype=np.int64)
    return OneToManyPairs(
        "toy",
        "test",
        tuple(Picture(str(i), Path(f"{i}.png")) for i in images),
        tuple(f"text {j}" for j in texts),
        dense,
    )


link_sets = st.sets(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=30)


@given(link_sets)
def test_both_directions_agree_with_the_list(links):
    pairs = build(links)
    for i in range(len(pairs.images)):
        assert set(pairs.texts_of(i)) == {int(t) for image, t in pairs.links if image == i}
    for j in range(len(pairs.texts)):
        assert set(pairs.images_of(j)) == {int(image) for image, t in pairs.links if t == j}


@given(link_sets, st.data())
def test_a_selection_keeps_exactly_the_links_among_the_chosen(links, data):
    pairs = build(links)
    chosen = data.draw(st.sets(st.integers(0, len(pairs.images) - 1), min_size=1))
    part = pairs.select(images=sorted(chosen))
    named = {(part.images[i].key, part.texts[j]) for i, j in part.links}
    assert named == {(pairs.images[i].key, pairs.texts[j]) for i, j in pairs.links if i in chosen}


@given(link_sets, st.data())
def test_links_among_finds_every_true_pair_of_a_batch(links, data):
    pairs = build(links)
    images = np.array(data.draw(st.lists(st.integers(0, len(pairs.images) - 1), min_size=1, max_size=8)))
    texts = np.array(data.draw(st.lists(st.integers(0, len(pairs.texts) - 1), min_size=1, max_size=8)))
    true = {tuple(link) for link in pairs.links.tolist()}
    expected = {(a, b) for a, i in enumerate(images) for b, j in enumerate(texts) if (int(i), int(j)) in true}
    found = links_among(pairs, images, texts)
    assert {tuple(row) for row in found.tolist()} == expected
    assert len(found) == len(expected)


PICTURE = Picture("a", Path("a.png"))


@pytest.mark.parametrize(
    ("images", "texts", "links", "message"),
    [
        ([PICTURE], ["a", " "], [[0, 0], [0, 1]], "not blank, but 1 are"),
        ([PICTURE], ["a", "a"], [[0, 0], [0, 1]], "different texts"),
        ([PICTURE], ["a"], [[0, 1]], r"text indices of `links` in \[0, 1\)"),
        ([PICTURE, PICTURE], ["a"], [[0, 0]], "every image to have a link, but 1 of 2"),
        ([PICTURE], ["a", "b"], [[0, 0]], "every text to have a link"),
        ([PICTURE], ["a"], [[0, 0], [0, 0]], "repeated"),
    ],
)
def test_what_is_not_a_pairs_file_is_refused(images, texts, links, message):
    with pytest.raises(ValueError, match=message):
        OneToManyPairs("toy", "test", images, texts, np.array(links))


def test_links_cannot_be_written():
    with pytest.raises(ValueError, match="read-only"):
        build({(0, 0)}).links[0, 0] = 1


def test_pictures_come_upright_on_white(tmp_path):
    clear = Image.new("RGBA", (4, 2), (255, 0, 0, 0))
    clear.save(tmp_path / "clear.png")
    assert Picture("c", tmp_path / "clear.png").load().getpixel((0, 0)) == (255, 255, 255)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    Image.new("L", (4, 2), 7).save(tmp_path / "turned.png", exif=exif)
    turned = Picture("t", tmp_path / "turned.png").load()
    assert (turned.size, turned.mode) == ((2, 4), "RGB")


def test_a_broken_picture_is_named(tmp_path):
    (tmp_path / "x.png").write_bytes(b"<html>")
    with pytest.raises(ValueError, match=r"x\.png"):
        Picture("x", tmp_path / "x.png").load()


def test_spread_meets_both_ends_and_keeps_all_texts(toy_pairs):
    few = toy_pairs.spread(5)
    assert len(few.images) == 5
    assert [few.images[0].key, few.images[-1].key] == [toy_pairs.images[0].key, toy_pairs.images[-1].key]
    assert len(few.texts_of(0)) == len(toy_pairs.texts_of(0))
    assert toy_pairs.spread(10**6).images == toy_pairs.images


def test_groups_are_what_links_join_and_own_links_alone_where_there_are_some():
    images = tuple(Picture(f"i{n}", Path(f"i{n}.png")) for n in range(4))
    links = np.array([[0, 0], [0, 1], [1, 1], [2, 2], [3, 3], [3, 2], [1, 4]])
    pairs = OneToManyPairs("toy", "test", images, tuple(f"text {n}" for n in range(5)), links)
    assert [found.tolist() for found in pairs.groups] == [[0, 0, 1, 1], [0, 0, 1, 1, 0]]
    own = np.array([[0, 0], [0, 1], [1, 4], [2, 2], [3, 3]])
    judged = OneToManyPairs("toy", "test", images, pairs.texts, links, own_links=own)
    assert [found.tolist() for found in judged.groups] == [[0, 1, 2, 3], [0, 0, 2, 3, 1]]
    kept = judged.select(images=[1, 3])
    alone = [2, 3, 1, 0]  # texts whose own image is gone
    assert [found.tolist() for found in kept.groups] == [[0, 1], alone]
    with pytest.raises(ValueError, match="`own_links` among `links`, but 1 are not"):
        OneToManyPairs("toy", "test", images, pairs.texts, links, own_links=np.array([[0, 4]]))
