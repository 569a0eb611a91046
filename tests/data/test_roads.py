"""Drawn roads: KITTI's layout, one geometry for colours, depth and masks, the same scene for the same seed."""

import numpy as np
import pytest
import torch
from PIL import Image

from crossguard.data import load_samples
from crossguard.data.depth import read_calibration, read_depth
from crossguard.data.kitti_road import SIZE as KITTI_SIZE
from crossguard.data.kitti_road import read_mask
from crossguard.data.normals import normals_from_depth
from crossguard.data.road_render import render
from crossguard.data.road_scenes import draw_scene
from crossguard.data.road_solids import Ball, Box, first_hit
from crossguard.data.roads import KITTI_CAMERA, write_roads
from crossguard.progress import Silent

SMALL = (48, 160)
CAMERA = KITTI_CAMERA.scaled(SMALL[0] / KITTI_SIZE[0], SMALL[1] / KITTI_SIZE[1])


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("roads")
    write_roads(folder, size=SMALL, scenes=6, seed=3, progress=Silent())
    return folder


def drawn(category="um", seed=0):
    generator = np.random.default_rng(seed)
    scene = draw_scene(category, generator)
    return scene, render(scene, CAMERA, SMALL, generator)


def test_files_lie_as_in_kitti(root):
    found = sorted(str(path.relative_to(root)) for path in root.rglob("*.*"))
    assert len(found) == 4 * 6
    for name in (
        "image_2/um_000000.png",
        "calib/umm_000001.txt",
        "gt_image_2/uu_road_000001.png",
        "depth_u16/um_000001.png",
    ):
        assert f"training/{name}" in found
    with Image.open(root / "training/depth_u16/um_000000.png") as image:
        assert image.mode == "I;16"
    colours = np.unique(np.asarray(Image.open(root / "training/gt_image_2/um_road_000000.png")).reshape(-1, 3), axis=0)
    assert {tuple(c) for c in colours.tolist()} <= {(255, 0, 255), (255, 0, 0), (0, 0, 0)}
    camera = read_calibration(root / "training/calib/um_000000.txt", size=SMALL)
    assert camera.fx == pytest.approx(721.5377 * 160 / 1242)


def test_a_scene_depends_on_its_seed_and_number_alone(root, tmp_path):
    write_roads(tmp_path, size=SMALL, scenes=4, seed=3, progress=Silent())
    for path in tmp_path.rglob("*.*"):
        assert path.read_bytes() == (root / path.relative_to(tmp_path)).read_bytes()
    other = drawn(seed=1)[1].rgb
    assert not np.array_equal(drawn(seed=0)[1].rgb, other)


@pytest.mark.parametrize("category", ["um", "umm", "uu"])
def test_depth_and_mask_are_one_geometry(category):
    """Seen road pixels, lifted by depth and calibration, lie on the road's plane and between its edges."""
    for seed in range(4):
        scene, seen = drawn(category, seed)
        v, u = np.nonzero((seen.mask == 1) & (seen.exact < 40))
        assert len(v) > 100
        z = seen.exact[v, u].astype(np.float64)
        points = np.stack([(u - CAMERA.cx) / CAMERA.fx * z, (v - CAMERA.cy) / CAMERA.fy * z, z], axis=1)
        cos, sin = np.cos(scene.roll), np.sin(scene.roll)
        points = np.stack([cos * points[:, 0] - sin * points[:, 1], sin * points[:, 0] + cos * points[:, 1], z], axis=1)
        cos, sin = np.cos(scene.pitch), np.sin(scene.pitch)
        x, y, z = points[:, 0], cos * points[:, 1] + sin * points[:, 2], cos * points[:, 2] - sin * points[:, 1]
        np.testing.assert_allclose(y, scene.height, atol=0.02)
        assert (np.abs(x - scene.middle(z)) <= scene.width / 2 * 1.05 + 0.05).all()


def test_roads_look_up_in_the_normals():
    _, seen = drawn(seed=2)
    normals = normals_from_depth(torch.from_numpy(seen.exact)[None], CAMERA)[0].numpy()
    inner = (seen.mask == 1) & (seen.exact < 12)
    assert np.median(-normals[1][inner]) > 0.99


def test_measured_depth_is_near_the_true_one_and_has_holes():
    _, seen = drawn(seed=5)
    known = seen.depth > 0
    assert 0.5 < known[seen.exact > 0].mean() < 1
    assert not known[seen.exact == 0].any()
    near = known & (seen.exact < 20)
    assert np.abs(seen.depth - seen.exact)[near].max() < 0.0008 * 20**2 * 6


def test_solids_are_met_where_geometry_says():
    ahead, origin = np.array([[0.0, 0.0, 1.0]]), np.zeros((1, 3))
    box = Box((0.0, 0.0, 10.0), (1.0, 1.0, 2.0), 0.0, (1.0, 1.0, 1.0))
    turned = Box((0.0, 0.0, 10.0), (1.0, 1.0, 2.0), np.pi / 2, (1.0, 1.0, 1.0))
    ball = Ball((0.0, 0.0, 10.0), (1.0, 1.0, 3.0), (1.0, 1.0, 1.0))
    assert [round(float(solid.meet(origin, ahead)[0]), 6) for solid in (box, turned, ball)] == [8.0, 9.0, 7.0]
    distance, which = first_hit((box, ball), origin, np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]))
    assert (round(float(distance[0]), 6), which.tolist()) == (7.0, [1, -1])
    np.testing.assert_allclose(turned.normal(np.array([[0.0, 0.0, 9.0]])), [[0, 0, -1]], atol=1e-9)


def test_loading_draws_once_and_splits_without_overlap(tmp_path, monkeypatch):
    monkeypatch.setenv("CROSSGUARD_CACHE", str(tmp_path))
    options = {"size": [32, 96], "scenes": 30, "seed": 1, "progress": Silent()}
    parts = {split: load_samples("roads", split=split, **options) for split in ("train", "val", "test", "all")}
    assert [len(part) for part in parts.values()] == [21, 3, 6, 30]
    assert len(list(tmp_path.iterdir())) == 1
    groups = [set(parts[split].groups.tolist()) for split in ("train", "val", "test")]
    assert set.union(*groups) == set(range(30))
    test = parts["test"]
    assert test.modalities["rgb"].shape == (6, 3, 32, 96)
    assert test.modalities["depth"].shape == (6, 1, 32, 96)
    assert test.modalities["rgb"].max() <= 1
    assert 0.05 < (test.labels == 1).mean() < 0.5
    normals = load_samples("roads", split="test", geometry="normals", **options).modalities["normals"]
    length = np.linalg.norm(normals, axis=1)
    assert np.all((length == 0) | (np.abs(length - 1) < 1e-5))


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match="3 scenes or more"):
        load_samples("roads", scenes=2)
    with pytest.raises(ValueError, match="32 x 32 or more"):
        load_samples("roads", size=(16, 320))


def test_depth_survives_the_file(root):
    depth = read_depth(root / "training/depth_u16/um_000000.png")
    assert depth.dtype == np.float32
    assert depth[depth > 0].min() > 0
    assert depth.max() < 65.535
    assert set(np.unique(read_mask(root / "training/gt_image_2/um_road_000000.png"))) <= {-1, 0, 1}


def test_mistakes_are_told_before_anything_is_drawn(monkeypatch):
    monkeypatch.setattr("crossguard.data.roads.whole_folder", lambda *_: pytest.fail("it draws"))
    with pytest.raises(ValueError, match=r"Unknown split 'x/\.\./\.\./E'"):
        load_samples("roads", split="x/../../E")
