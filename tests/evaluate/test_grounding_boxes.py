"""Scores of boxes against pixels counted one by one, overlaps against areas on a grid and invariants."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from crossguard.evaluate.grounding_boxes import box_scores, choose, overlap
from crossguard.models import enlarge

corners = st.tuples(st.floats(-1, 40), st.floats(-1, 40), st.floats(0.5, 40), st.floats(0.5, 40))
whole = st.tuples(st.integers(0, 12), st.integers(0, 12), st.integers(1, 12), st.integers(1, 12))


def brute(map_, box, height, width):
    """Enlarge the map to the photo, pick the pixels in the box, add them up."""
    large = enlarge(torch.from_numpy(map_)[None], height=height, width=width)[0]
    left, top, wide, tall = box
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    inside = (rows >= int(top)) & (rows < int(top + tall)) & (columns >= int(left)) & (columns < int(left + wide))
    return float(large[inside].sum()) / (wide * tall) ** 0.5


@given(
    st.integers(0, 99),
    st.lists(corners, min_size=1, max_size=4),
    st.sampled_from([(5, 4), (24, 24), (1, 3)]),
    st.sampled_from([(30, 41), (17, 9)]),
)
def test_scores_equal_pixels_added_up(seed, boxes, grid, size):
    maps = np.random.default_rng(seed).exponential(size=(2, *grid))
    found = box_scores(maps, np.array(boxes), height=size[0], width=size[1])
    for m, map_ in enumerate(maps):
        for b, box in enumerate(boxes):
            assert found[m, b] == pytest.approx(brute(map_, box, *size), abs=1e-9)


def test_the_hot_corner_wins_and_the_first_among_equals():
    maps = np.zeros((3, 3, 3))
    maps[0, 0, 2] = 1.0
    maps[1, 2, 0] = 2.0
    boxes = np.array([[0, 20, 10, 10], [20, 0, 10, 10], [20, 0, 10, 10], [0, 0, 30, 30.0]])
    scores = box_scores(maps, boxes, height=30, width=30)
    assert choose(scores).tolist() == [1, 0, -1]
    assert not scores[2].any()


def test_a_small_box_around_all_beats_a_large_one():
    maps = np.zeros((1, 3, 3))
    maps[0, 1, 1] = 1.0
    boxes = np.array([[0, 0, 60, 60], [10, 10, 40, 40], [25, 25, 5, 5.0]])
    assert choose(box_scores(maps, boxes, height=60, width=60)).tolist() == [1]


def test_scores_that_are_not_above_zero_choose_nothing():
    assert choose(np.array([[0.0, -1.0], [-2.0, -1.0], [0.0, 1e-12]])).tolist() == [-1, -1, 1]


@given(whole, whole)
def test_overlap_equals_counted_cells(a, b):
    masks = []
    for left, top, wide, tall in (a, b):
        mask = np.zeros((24, 24), bool)
        mask[top : top + tall, left : left + wide] = True
        masks.append(mask)
    expected = (masks[0] & masks[1]).sum() / (masks[0] | masks[1]).sum()
    found = overlap(np.array([a], float), np.array([b], float))
    assert found[0] == pytest.approx(expected, abs=1e-12)


@given(corners, corners, st.floats(0.1, 10), st.floats(-50, 50), st.floats(-50, 50))
def test_overlap_is_symmetric_and_moves_and_scales_with_the_boxes(a, b, factor, right, down):
    one, other = np.array([a]), np.array([b])
    found = overlap(one, other)
    assert 0 <= found[0] <= 1
    assert overlap(other, one) == found
    shift = np.array([[right, down, 0, 0]])
    assert overlap(factor * (one + shift), factor * (other + shift))[0] == pytest.approx(found[0], abs=1e-6)
    assert overlap(one, one)[0] == pytest.approx(1)
    assume(a != b)
    apart = one + np.array([[100, 0, 0, 0]])
    assert overlap(apart, other)[0] == 0
