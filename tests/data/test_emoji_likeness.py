"""Near-equal pictures: families by a plain double loop, and no held-out picture near a training one."""

import re
from collections import Counter
from functools import cache
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from crossguard.data.emoji import load_emoji
from crossguard.data.emoji_art import ALIKE, SAME, SEEN_SIZE, drawings
from crossguard.data.emoji_likeness import families, shrunk
from crossguard.models import load_model


def _by_hand(pixels: np.ndarray, within: float) -> list[int]:
    """Lower every picture's number to that of any picture near it, until nothing changes."""
    label = list(range(len(pixels)))
    near = [
        (i, j)
        for i, j in combinations(range(len(pixels)), 2)
        if np.sqrt(np.mean((pixels[i].astype(float) - pixels[j]) ** 2)) <= within
    ]
    while True:
        before = list(label)
        for i, j in near:
            label[i] = label[j] = min(label[i], label[j])
        if label == before:
            return label


@given(
    pixels=arrays(
        np.uint8, st.tuples(st.integers(1, 9), st.just(4), st.just(8), st.just(3)), elements=st.integers(0, 9)
    ),
    within=st.floats(0, 6),
)
def test_families_are_those_of_a_double_loop(pixels: np.ndarray, within: float) -> None:
    assert families(pixels, within=within).tolist() == _by_hand(pixels, within)


@given(
    levels=st.lists(st.integers(0, 255), min_size=1, max_size=12),
    within=st.floats(0, 40),
    seed=st.integers(0, 2**31),
)
def test_families_chain_and_meet_across_chunks(levels: list[int], within: float, seed: int) -> None:
    """Flat pictures: the distance is the difference of levels. Far more than a chunk of others lie between."""
    noise = np.random.default_rng(seed).integers(0, 256, (600, 4, 4, 3), dtype=np.uint8)
    flat = [np.full((1, 4, 4, 3), level, np.uint8) for level in levels]
    half = len(flat) // 2
    found = families(np.concatenate([*flat[:half], noise, *flat[half:]]), within=within)
    mine = np.concatenate([found[:half], found[half + len(noise) :]])
    alone = families(np.concatenate(flat), within=within)
    assert ((mine[:, None] == mine) == (alone[:, None] == alone)).all()
    assert alone.tolist() == _by_hand(np.concatenate(flat), within)


@cache
def _pixels(split: str) -> torch.Tensor:
    """Every picture of a split as emoji-clip reads it, in grey levels, flat."""
    pairs = load_emoji(split=split)
    model = load_model("emoji-clip")
    parts = [model.preprocess([pairs.image(i)]) for i in range(len(pairs.images))]
    return 255 * torch.cat(parts).flatten(1)


@pytest.mark.parametrize(
    ("held_out", "other"),
    [("test", "val"), *(pytest.param(split, "train", marks=pytest.mark.slow) for split in ("val", "test"))],
)
def test_no_held_out_picture_is_like_one_of_another_split(held_out, other) -> None:
    """All distances between splits, under the model's own preprocessing; it sees what was measured."""
    pixels = _pixels(other)
    assert torch.cdist(_pixels(held_out), pixels).amin() / pixels.shape[1] ** 0.5 > ALIKE - 0.01


@pytest.mark.slow
def test_the_page_counts_mirror_images_and_measures_the_styles() -> None:
    page = " ".join((Path(__file__).parents[2] / "docs" / "emoji.md").read_text(encoding="utf-8").split())
    nearer = re.search(r"two styles of a concept are never nearer than (\d+)/255", page)
    counted = re.search(r"(\d+) pictures of `val` and (\d+) of `test` mirror a training picture to within 4/255", page)
    assert nearer
    assert counted
    side = SEEN_SIZE
    mirrored = _pixels("train").view(-1, 3, side, side).flip(3).flatten(1)
    for split, count in zip(("val", "test"), counted.groups(), strict=True):
        distances = torch.cdist(_pixels(split), mirrored).amin(1) / mirrored.shape[1] ** 0.5
        assert (distances <= ALIKE).sum() == int(count)
    pairs = load_emoji(split="train")
    twemoji = torch.tensor([picture.style == "twemoji" for picture in pairs.images])
    pixels = _pixels("train")
    assert torch.cdist(pixels[twemoji], pixels[~twemoji]).amin() / pixels.shape[1] ** 0.5 > int(nearer[1])


def test_one_picture_is_not_there_twice() -> None:
    pixels = _pixels("test")
    distances = torch.cdist(pixels, pixels) / pixels.shape[1] ** 0.5
    assert distances.fill_diagonal_(255).amin() > SAME - 0.01


@pytest.mark.slow
def test_drawings_carry_their_families() -> None:
    found = drawings()
    small = shrunk([Image.open(drawing.path) for drawing in found], side=SEEN_SIZE)
    assert [drawing.picture for drawing in found] == families(small, within=SAME).tolist()
    assert [drawing.family for drawing in found] == families(small, within=ALIKE).tolist()


def test_some_drawings_share_a_picture_or_a_family() -> None:
    found = drawings()
    sizes = Counter(drawing.family for drawing in found)
    shared = [drawing for drawing in found if sizes[drawing.family] > 1]
    small = shrunk([Image.open(drawing.path) for drawing in shared], side=SEEN_SIZE)
    for within, kind in ((SAME, "picture"), (ALIKE, "family")):
        numbers = [getattr(drawing, kind) for drawing in shared]
        first = [numbers.index(number) for number in numbers]
        assert first == families(small, within=within).tolist()
        assert len(set(numbers)) < len(numbers)
    assert len({drawing.family for drawing in shared}) < len({drawing.picture for drawing in shared})
