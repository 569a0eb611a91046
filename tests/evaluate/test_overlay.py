"""Overlays pixel by pixel."""

import numpy as np

from crossguard.evaluate.overlay import HEAT, RIGHT, TRUTH, WRONG, overlay

GREY = np.full((24, 24, 3), 100, np.uint8)


def drawn(**changes):
    values = {"size": (60, 120), "truth": (10.0, 10.0, 40.0, 30.0), "chosen": (60.0, 20.0, 30.0, 30.0), "right": False}
    heat = np.zeros((3, 3), np.float32)
    heat[2, 2] = 0.5
    return overlay(GREY, changes.pop("heat", heat), **{**values, **changes})


def test_the_picture_takes_the_photos_shape_and_is_warm_where_the_map_is():
    found = drawn()
    assert found.shape == (60, 120, 3)
    assert np.allclose(found[52, 105], 0.35 * 100 + 0.65 * np.array(HEAT), atol=8)  # the middle of the hot cell
    assert found[30, 2].tolist() == [100, 100, 100]


def test_boxes_lie_where_they_should_in_their_colours():
    found = drawn()
    assert tuple(found[10, 10]) == tuple(found[39, 49]) == TRUTH
    assert tuple(found[20, 60]) == tuple(found[49, 89]) == WRONG
    assert tuple(drawn(right=True)[20, 60]) == RIGHT
    assert tuple(drawn(chosen=None)[20, 60]) not in (RIGHT, WRONG)


def test_a_map_of_zeros_leaves_the_picture():
    found = drawn(heat=np.zeros((3, 3), np.float32), chosen=None, truth=(0.0, 0.0, 5.0, 5.0))
    assert (found[10:, 10:] == 100).all()


def test_large_photos_are_drawn_smaller():
    assert drawn(size=(800, 1600), truth=(0.0, 0.0, 100.0, 100.0), chosen=None).shape == (224, 448, 3)
