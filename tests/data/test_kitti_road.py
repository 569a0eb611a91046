"""KITTI Road: splits, sizes, masks and depth as documented; every kind of wrong file is named."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from crossguard.data import kitti_road, load_samples
from crossguard.data.depth import Camera, read_calibration, write_depth
from crossguard.data.kitti_road import write_mask
from crossguard.data.roads import KITTI_CAMERA, calibration_text

SIZE = (24, 40)
CAMERA = Camera(fx=20.0, fy=20.0, cx=19.5, cy=11.5)


def write_scene(folder: Path, stem: str, *, size=SIZE, seed=0):
    generator = np.random.default_rng(seed)
    for part in ("image_2", "calib", "gt_image_2", "depth_u16"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    category, number = stem.split("_")
    rgb = generator.integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(rgb).save(folder / "image_2" / f"{stem}.png")
    write_depth(folder / "depth_u16" / f"{stem}.png", generator.uniform(1, 60, size).astype(np.float32))
    label = generator.integers(-1, 2, size).astype(np.int8)
    write_mask(folder / "gt_image_2" / f"{category}_road_{number}.png", label)
    (folder / "calib" / f"{stem}.txt").write_text(calibration_text(CAMERA, 1.65))
    return rgb, label


@pytest.fixture
def root(tmp_path):
    for category in ("um", "umm", "uu"):
        for number in range(5):
            write_scene(tmp_path / "training", f"{category}_{number:06d}", seed=number)
    return tmp_path


def load(root, **options):
    return load_samples("kitti-road", root=root, **{"size": SIZE, "split": "all", **options})


def test_arrays_hold_what_the_files_say(tmp_path):
    rgb, label = write_scene(tmp_path / "training", "uu_000007")
    samples = load(tmp_path)
    np.testing.assert_allclose(samples.modalities["rgb"][0], rgb.transpose(2, 0, 1) / 255, rtol=1e-6)
    assert np.array_equal(samples.labels[0], label)
    millimetres = np.asarray(Image.open(tmp_path / "training/depth_u16/uu_000007.png"))
    np.testing.assert_allclose(samples.modalities["depth"][0, 0], millimetres / 1000, rtol=1e-6)
    assert (samples.classes, samples.name) == (("not road", "road"), "kitti-road")


def test_the_last_fifth_of_each_category_is_held_out(root):
    assert [len(load(root, split=split)) for split in ("train", "test", "all")] == [12, 3, 15]
    assert load(root, split="test").groups.tolist() == [4, 9, 14]
    assert load(root, split="test", categories=["uu"]).groups.tolist() == [4]
    with pytest.raises(ValueError, match=r"split 'val'.*too few"):
        load(root, split="val")


def test_the_benchmarks_289_images_give_58_for_testing():
    where = [kitti_road.split_of(i, members) for members in (95, 96, 98) for i in range(members)]
    assert {split: where.count(split) for split in ("train", "val", "test")} == {"train": 201, "val": 30, "test": 58}
    assert where[:95] == ["train"] * 66 + ["val"] * 10 + ["test"] * 19


def test_images_of_another_size_are_brought_to_one(root):
    write_scene(root / "training", "um_000009", size=(26, 44))
    samples = load(root, geometry="normals")
    assert samples.modalities["normals"].shape == (16, 3, *SIZE)
    assert set(np.unique(samples.labels)) == {-1, 0, 1}


def test_missing_files_are_counted_and_named_at_once(root):
    (root / "training/depth_u16/um_000001.png").unlink()
    (root / "training/calib/uu_000002.txt").unlink()
    (root / "training/gt_image_2/umm_road_000003.png").unlink()
    with pytest.raises(
        ValueError, match=r"3 files are missing: .*depth_u16/um_000001.png.*umm_road_000003.*calib/uu_000002"
    ):
        load(root)


@pytest.mark.parametrize(
    ("file", "write", "message"),
    [
        ("calib/um_000000.txt", lambda p: p.write_text("P0: 1 2 3\n"), "one line 'P2:'"),
        ("calib/um_000000.txt", lambda p: p.write_text("P2: 1 2 3\n"), "12 finite numbers"),
        ("calib/um_000000.txt", lambda p: p.write_text("P2: " + "x " * 12), "Expected numbers after"),
        ("calib/um_000000.txt", lambda p: p.write_text("P2: 20 3 19 0 0 20 11 0 0 0 1 0"), "rectified camera"),
        ("calib/um_000000.txt", lambda p: p.write_text(calibration_text(KITTI_CAMERA, 1.6)), "principal point"),
        ("depth_u16/um_000000.png", lambda p: Image.new("L", SIZE[::-1], 9).save(p), "one channel of 16 bits"),
        ("depth_u16/um_000000.png", lambda p: write_depth(p, np.zeros(SIZE, np.float32)), "no pixel has any"),
        ("depth_u16/um_000000.png", lambda p: write_depth(p, np.ones((24, 41), np.float32)), "of one size"),
        ("depth_u16/um_000000.png", lambda p: p.write_bytes(p.read_bytes()[:-60]), "could not be read"),
        ("image_2/um_000000.png", lambda p: p.write_bytes(b"no image"), "could not be read"),
        (
            "gt_image_2/um_road_000000.png",
            lambda p: Image.new("RGB", SIZE[::-1], (0, 255, 0)).save(p),
            r"\(0, 255, 0\)",
        ),
    ],
)
def test_wrong_files_are_refused_by_name(root, file, write, message):
    path = root / "training" / file
    write(path)
    with pytest.raises(ValueError, match=message) as error:
        load(root, split="all")
    assert path.name.split(".")[0].replace("road_", "") in str(error.value).replace("road_", "")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "tset"}, "did you mean 'test'"),
        ({"categories": ["um", "ux"]}, "Unknown category 'ux'"),
        ({"geometry": "mesh"}, "to be one of .'depth', 'normals'."),
        ({"size": (1, 5)}, "2 or more"),
    ],
)
def test_wrong_options_are_refused(root, options, message, unchecked):
    with pytest.raises(ValueError, match=message):
        load(root, **options)


def test_no_such_folder_and_no_images(tmp_path):
    with pytest.raises(ValueError, match="no such folder"):
        load(tmp_path)
    (tmp_path / "training/image_2").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"um_000000\.png"):
        load(tmp_path)


def test_a_real_image_with_its_depth(tmp_path):
    """KITTI's own RGB and depth, where the folder named by CROSSGUARD_DATA has them."""
    source = Path(os.environ.get("CROSSGUARD_DATA", "no folder")) / "kitti"
    if not source.is_dir():
        pytest.skip("CROSSGUARD_DATA names no folder with kitti/rgb.png and kitti/depth_u16.png")
    folder = tmp_path / "training"
    write_scene(folder, "um_000000", size=(375, 1242))
    shutil.copy(source / "rgb.png", folder / "image_2/um_000000.png")
    shutil.copy(source / "depth_u16.png", folder / "depth_u16/um_000000.png")
    (folder / "calib/um_000000.txt").write_text(calibration_text(KITTI_CAMERA, 1.65))
    samples = load(tmp_path, size=(375, 1242), geometry="normals")
    normals = samples.modalities["normals"][0]
    ahead = normals[:, 320:360, 450:700]  # the road before the car
    known = np.abs(ahead).sum(axis=0) > 0
    assert known.mean() > 0.9
    assert np.median(-ahead[1][known]) > 0.98
    assert read_calibration(folder / "calib/um_000000.txt", size=(375, 1242)) == KITTI_CAMERA
