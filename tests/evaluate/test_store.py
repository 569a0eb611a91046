"""Stored batches come back bit by bit; fingerprints and descriptions tell what differs and only that."""

import json
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from crossguard.attacks.base import Adversarial
from crossguard.data import Picture
from crossguard.evaluate.examples import Example, Item, load_examples, save_pictures
from crossguard.evaluate.fingerprint import describe, pairs_fingerprint, weights_fingerprint
from crossguard.evaluate.store import Store
from crossguard.evaluate.stored_batch import StoredBatch
from crossguard.models import load_model


def found(batch, **changes):
    texts = len(batch.texts)
    values = {
        "pixels": batch.pixels,
        "texts": batch.texts,
        "linf": torch.zeros(len(batch.pixels)),
        "words": torch.zeros(texts, dtype=torch.int64),
        "image_drop": torch.zeros(len(batch.pixels)),
        "text_drop": torch.zeros(texts),
    }
    return Adversarial(**{**values, **changes})


def test_a_batch_comes_back_as_it_was(toy_batch, tmp_path):
    pixels = torch.randint(0, 256, toy_batch.pixels.shape, generator=torch.Generator().manual_seed(0)) / 255
    texts = ("a «text» with\n\x00 all of it", *toy_batch.texts[1:])
    stored = StoredBatch.from_attack(toy_batch, found(toy_batch, pixels=pixels, texts=texts))
    store = Store(tmp_path / "store", {"seed": 0})
    ids = stored.image_ids
    assert store.read(7, ids) is None
    store.write(7, ids, stored.arrays())
    assert store.read(7, ids[1:]) is None
    again = StoredBatch.of_arrays(store.read(7, ids))
    assert torch.equal(again.pixels, pixels)
    assert again.texts == texts
    for name in ("image_ids", "text_ids", "linf", "words"):
        assert np.array_equal(getattr(again, name), getattr(stored, name))


def test_a_batch_with_any_wrong_byte_is_damaged_or_whole(toy_batch, tmp_path):
    stored = StoredBatch.from_attack(toy_batch, found(toy_batch))
    store = Store(tmp_path / "store", {"seed": 0})
    store.write(0, stored.image_ids, stored.arrays())
    content, lost = (tmp_path / "store" / "batch-00000.npz").read_bytes(), 0
    for place in range(0, len(content), max(1, len(content) // 250)):
        damaged = bytearray(content)
        damaged[place] ^= 0xFF
        (tmp_path / "store" / "batch-00000.npz").write_bytes(damaged)
        read = store.read(0, stored.image_ids)
        lost += read is None
        again = None if read is None else StoredBatch.of_arrays(read)
        assert again is None or (np.array_equal(again.grey, stored.grey) and again.texts == stored.texts)
    assert lost > 100


def test_damaged_example_pictures_are_told(tmp_path):
    shown = np.arange(96, dtype=np.uint8).reshape(2, 4, 4, 3)
    item = Item("a picture", picture=shown[0], clean=shown[1])
    example = Example((item,), {"found": (Item(text="b", source="a", right=True), Item(picture=shown[1], right=False))})
    save_pictures([example, example], tmp_path / "whole.npz")
    values = [example.to_dict(), example.to_dict()]
    for again in load_examples(json.loads(json.dumps(values)), tmp_path / "whole.npz"):
        assert np.array_equal(again.asked[0].picture, shown[0])
        assert np.array_equal(again.asked[0].clean, again.answers["found"][1].picture)
        assert again.answers["found"][0] == example.answers["found"][0]
    content = (tmp_path / "whole.npz").read_bytes()
    lost = 0
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 0xFF
        (tmp_path / "damaged.npz").write_bytes(damaged)
        with suppress(ValueError):  # no other error
            load_examples(values, tmp_path / "damaged.npz")
            continue
        lost += 1
    assert lost > len(content) / 4


def test_what_does_not_fit_is_refused(toy_batch):
    fewer = {"pixels": toy_batch.pixels[1:], "linf": torch.zeros(7), "image_drop": torch.zeros(7)}
    with pytest.raises(ValueError, match="adversarial pixels and"):
        StoredBatch.from_attack(toy_batch, found(toy_batch, **fewer))
    with pytest.raises(ValueError, match="whole multiples of 1/255"):
        StoredBatch.from_attack(toy_batch, found(toy_batch, pixels=toy_batch.pixels * 0.9))


def test_a_store_belongs_to_its_settings(tmp_path):
    Store(tmp_path, {"seed": 0, "sizes": (1, 2)})
    Store(tmp_path, {"sizes": [1, 2], "seed": 0})
    with pytest.raises(ValueError, match="`seed` is 0 there and 1 now"):
        Store(tmp_path, {"seed": 1, "sizes": [1, 2]})


def test_weights_are_told_apart(tiny_clip):
    before = weights_fingerprint(tiny_clip)
    assert weights_fingerprint(tiny_clip) == before
    with torch.no_grad():
        weight = next(tiny_clip.parameters())
        old = weight.flatten()[0].clone()
        weight.view(-1)[0] = torch.nextafter(old, torch.tensor(10.0))
    assert weights_fingerprint(tiny_clip) != before
    with torch.no_grad():
        weight.view(-1)[0] = old
    assert weights_fingerprint(tiny_clip) == before
    assert weights_fingerprint(tiny_clip.bfloat16()) != before


def test_buffers_that_are_not_saved_count_too():
    part = torch.nn.Linear(2, 2)
    part.register_buffer("rate", torch.tensor(50), persistent=False)
    before = weights_fingerprint(part)
    part.rate = torch.tensor(2)
    assert weights_fingerprint(part) != before


@pytest.mark.parametrize("changed", [{"prompt": "a photo of"}, {"sizes": (3, [2])}, {"rates": {"x": 0.25, "y": None}}])
def test_plain_attributes_of_parts_count_too(changed):
    model = torch.nn.Sequential(torch.nn.Linear(2, 2))
    vars(model[0]).update(prompt="", sizes=(3, [1]), rates={"x": 0.5, "y": None})
    before = weights_fingerprint(model)
    vars(model[0]).update(changed)
    assert weights_fingerprint(model) != before


def test_a_model_is_the_same_wherever_it_lies(tiny_clip, tmp_path):
    for place in ("here", "there"):
        tiny_clip.save_pretrained(tmp_path / place)
    models = [load_model(tmp_path / place) for place in ("here", "there")]
    models[1].train()
    assert len({weights_fingerprint(model) for model in models}) == 1


def test_data_are_told_apart(toy_pairs, tmp_path):
    before = pairs_fingerprint(toy_pairs)
    assert pairs_fingerprint(replace(toy_pairs)) == before
    texts = (*toy_pairs.texts[:-1], "another text")
    other_links = toy_pairs.links.copy()
    other_links[0, 1] = toy_pairs.texts_of(1)[-1]
    picture = toy_pairs.images[0]
    moved = tmp_path / "other.png"
    Image.new("RGB", (24, 24), "white").save(moved)
    for other in (
        replace(toy_pairs, texts=texts),
        replace(toy_pairs, links=np.unique(np.concatenate([toy_pairs.links, other_links]), axis=0)),
        replace(toy_pairs, images=(replace(picture, file=moved), *toy_pairs.images[1:])),
        replace(toy_pairs, images=(replace(picture, key="renamed"), *toy_pairs.images[1:])),
    ):
        assert pairs_fingerprint(other) != before


class Inner:
    def __init__(self, limit):
        self.limit, self._calls = limit, object()


class Outer:
    def __init__(self, inner, rule=len):
        self.inner, self.rule = inner, rule

    def __call__(self):
        return None


def test_options_are_described_to_their_depth():
    assert describe(Outer(Inner(3))) == {
        "class": "Outer",
        "inner": {"class": "Inner", "limit": 3},
        "rule": "<built-in function len>",
    }
    assert describe(Outer(Inner(3))) == describe(Outer(Inner(3)))
    assert describe(Outer(Inner(3))) != describe(Outer(Inner(4)))
    assert describe({"s": {"b", "a"}, "f": float("inf"), "t": torch.device("cpu")}) == {
        "s": ['"a"', '"b"'],
        "f": "inf",
        "t": "device(type='cpu')",
    }
    long = describe(list(range(5000)))
    assert len(long) == 32
    assert long != describe(list(range(5001)))
    assert " at 0x" not in describe(lambda: None)


def test_objects_of_many_options_and_networks_are_described():
    assert describe(Outer(Inner(list(range(5000))))) != describe(Outer(Inner(list(range(5001)))))
    many = Inner(1)
    vars(many).update({f"option_{i}": "x" * 20 for i in range(100)})
    told = describe(Outer(many))
    assert told["class"] == "Outer"
    assert len(told["inner"]) == 32
    network = torch.nn.Linear(2, 2)
    before = describe(Outer(network))
    assert before["inner"] == {"class": "Linear", "weights": weights_fingerprint(network)}
    with torch.no_grad():
        network.bias += 1
    assert describe(Outer(network)) != before
    # An object whose own attributes are too long to be told in full.
    assert len(describe(many)) == 32


@given(st.recursive(st.integers() | st.text(max_size=5) | st.none(), lambda inner: st.lists(inner, max_size=4)))
def test_plain_options_stay_as_they_are(value):
    assert describe(value) == value


def test_broken_images_are_named_before_any_work(toy_pairs, tmp_path):
    pictures = list(toy_pairs.images)
    for place, content in ((3, b"<html>"), (7, pictures[7].read()[:60]), (9, b"")):
        path = tmp_path / f"bad-{place}.png"
        path.write_bytes(content)
        pictures[place] = Picture(f"bad-{place}", path)
    broken = replace(toy_pairs, images=tuple(pictures))
    with pytest.raises(
        ValueError, match=r"24 images that decode, but 3 do not: bad-3 \(no known .* bad-9 \(the file is"
    ):
        pairs_fingerprint(broken)
