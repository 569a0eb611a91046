"""Potholes: split by recording, unknown disparity stays apart from even road, wrong files are named."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from crossguard.data import load_samples
from files import write_potholes


@pytest.fixture
def root(tmp_path):
    return write_potholes(tmp_path)


def test_recordings_are_held_out_and_values_are_offsets_from_the_road(root):
    assert [len(load_samples("pothole", root=root, split=split)) for split in ("train", "val", "test")] == [1, 1, 2]
    test = load_samples("pothole", root=root)
    assert (test.groups.tolist(), test.labels.sum()) == ([1, 1], 2)
    assert {values.dtype for values in test.modalities.values()} == {np.dtype(np.float32)}
    disparity = test.modalities["disparity"][0, 0]
    assert (disparity[5, 5], (disparity == 0).sum()) == (-1.0, 3)
    assert load_samples("pothole", root=root, size=[6, 10]).labels.shape == (2, 6, 10)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: (r / "disp/1_01.png").unlink(), "1 are missing: disp/1_01.png"),
        (lambda r: Image.new("L", (20, 12), 7).save(r / "label/1_02.png"), "Expected 0 and 255"),
        (lambda r: Image.new("L", (21, 12), 0).save(r / "label/1_02.png"), "of one size"),
        (lambda r: Image.new("I;16", (20, 12), 0).save(r / "disp/1_02.png"), "no pixel has any"),
        (lambda r: [path.unlink() for path in (r / "rgb").glob("1_*")], "got none"),
    ],
)
def test_wrong_files_are_refused(root, change, message):
    change(root)
    with pytest.raises(ValueError, match=message):
        load_samples("pothole", root=root)


def test_real_photographs():
    source = Path(os.environ.get("CROSSGUARD_DATA", "no folder")) / "pothole"
    if not source.is_dir():
        pytest.skip("CROSSGUARD_DATA names no folder with pothole/rgb")
    parts = {split: load_samples("pothole", root=source, split=split) for split in ("train", "val", "test")}
    assert [len(part) for part in parts.values()] == [27, 3, 14]
    for part in parts.values():
        assert 0.005 < part.labels.mean() < 0.3
        offsets = part.modalities["disparity"]
        # A pothole lies deeper than the road: its disparity is smaller.
        assert offsets[:, 0][part.labels == 1].mean() < offsets[:, 0][part.labels == 0].mean()
