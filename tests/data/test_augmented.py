"""Augmented pairs on the disk."""

import json

import numpy as np
import pytest

from crossguard.augment import augment
from crossguard.data.augmented import AugmentedPairs, load_augmented, save_augmented


@pytest.fixture
def augmented(toy_pairs):
    """The toy pairs, of which the first 20 pictures and 40 texts count as originals where those are linked."""
    part = toy_pairs.select(images=range(20))
    return AugmentedPairs(
        name="toy+more",
        split="test",
        images=part.images,
        texts=part.texts,
        links=part.links,
        text_kinds=part.text_kinds,
        original_name="toy",
        original_images=len(part.images),
        original_texts=len(part.texts),
    )


def test_round_trip(augmented, tmp_path):
    save_augmented(tmp_path / "a", augmented)
    again = load_augmented(tmp_path / "a")
    assert again.folder == (tmp_path / "a").resolve()
    for field in ("name", "split", "texts", "text_kinds", "original_name", "original_images", "original_texts"):
        assert getattr(again, field) == getattr(augmented, field)
    assert [(p.key, p.path.resolve(), p.style) for p in again.images] == [
        (p.key, p.path.resolve(), p.style) for p in augmented.images
    ]
    assert np.array_equal(again.links, augmented.links)


def test_originals_are_the_pairs_as_they_were(augmented):
    before = augmented.originals()
    assert before.name == "toy"
    assert np.array_equal(before.links, augmented.links)


def test_the_first_originals_come_with_what_was_made_from_them(toy_pairs, tmp_path):
    whole = augment(toy_pairs, sources=["eda", "crops", "shuffled"], per_sample=2, folder=tmp_path / "a")
    for few, ids in ((whole.head(5), range(5)), (whole.spread(3), np.linspace(0, 23, 3).round().astype(int).tolist())):
        before = toy_pairs.select(images=list(ids))
        found = few.originals()
        assert [p.key for p in found.images] == [p.key for p in before.images]
        assert found.texts == before.texts
        assert np.array_equal(found.links, before.links)
        assert {p.style for p in few.images} == {p.style for p in whole.images}
        assert {*few.text_kinds} == {*whole.text_kinds}
        assert len(few.images) < len(whole.images)
        kept = {p.key for p in few.images}, {*few.texts}
        true = {(whole.images[i].key, whole.texts[j]) for i, j in whole.links}
        assert {(few.images[i].key, few.texts[j]) for i, j in few.links} == {
            (key, text) for key, text in true if key in kept[0] and text in kept[1]
        }


def test_a_selection_counts_its_originals_anew(toy_pairs, tmp_path):
    whole = augment(toy_pairs, sources=["crops"], per_sample=1, folder=tmp_path / "a")
    some = whole.select(images=[1, 4, len(toy_pairs.images) + 7])
    assert some.original_images == 2
    assert [p.key for p in some.originals().images] == [toy_pairs.images[1].key, toy_pairs.images[4].key]


def test_more_originals_than_there_are(augmented):
    with pytest.raises(ValueError, match=r"`original_texts` in 0\.\."):
        AugmentedPairs("x", "test", augmented.images, augmented.texts, augmented.links, original_texts=10_000)


def test_a_failed_save_leaves_the_old_pairs(augmented, tmp_path, monkeypatch):
    save_augmented(tmp_path / "a", augmented)

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(OSError, match="No space"):
        save_augmented(tmp_path / "a", augmented)
    monkeypatch.undo()
    assert load_augmented(tmp_path / "a").texts == augmented.texts


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 99}, "schema 1 or older"),
        ({"schema": None}, "`schema` number"),
        ({"texts": None}, "'texts'"),
    ],
)
def test_files_of_other_making(augmented, tmp_path, change, message):
    save_augmented(tmp_path / "a", augmented)
    path = tmp_path / "a" / "pairs" / "pairs.json"
    content = {**json.loads(path.read_text()), **change}
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
    with pytest.raises(ValueError, match=message):
        load_augmented(tmp_path / "a")


def test_links_of_another_type(augmented, tmp_path):
    save_augmented(tmp_path / "a", augmented)
    np.save(tmp_path / "a" / "pairs" / "links.npy", augmented.links.astype(np.float32))
    with pytest.raises(ValueError, match="int64"):
        load_augmented(tmp_path / "a")
    np.save(tmp_path / "a" / "pairs" / "links.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="pairs of an augmentation"):
        load_augmented(tmp_path / "a")


def test_nothing_there(tmp_path):
    with pytest.raises(ValueError, match="finished augmentation"):
        load_augmented(tmp_path)
