"""Samples of one's own: npz files and folders of colour, depth and labels."""

import io
import json
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

import crossguard as cg
from files import real

ARRAYS = {
    "audio": np.arange(24, dtype=np.float32).reshape(4, 3, 2),
    "video": np.ones((4, 5), np.float16),
    "labels": np.array([0, 1, 1, 0], np.int32),
    "groups": np.array([7, 7, 8, 9]),
}


class TestNpz:
    def write(self, path, **changes):
        np.savez(path, **{name: values for name, values in {**ARRAYS, **changes}.items() if values is not None})
        return path

    def test_arrays(self, tmp_path):
        samples = cg.load_samples("npz", file=self.write(tmp_path / "mine_train.npz"))
        assert (samples.name, samples.split, samples.classes) == ("mine_train", "train", ("0", "1"))
        assert np.array_equal(samples.modalities["audio"], ARRAYS["audio"])
        assert samples.modalities["video"].shape == (4, 5, 1)
        assert (samples.groups.tolist(), samples.notes) == ([7, 7, 8, 9], ())
        with pytest.raises(ValueError, match="says 'train'"):
            cg.load_samples("npz", file=tmp_path / "mine_train.npz", split="test")

    def test_splits_and_classes(self, tmp_path):
        path = self.write(
            tmp_path / "mine.npz",
            split=np.array(["train", "validation", "train", "val"]),
            classes=np.array(["no", "yes"]),
        )
        samples = cg.load_samples("npz", file=path, split="val")
        assert (samples.labels.tolist(), samples.groups.tolist(), samples.classes) == ([1, 0], [7, 9], ("no", "yes"))
        with pytest.raises(ValueError, match=r"split 'test' in .*splits are \['train', 'val'\]"):
            cg.load_samples("npz", file=path)

    def test_names(self, tmp_path):
        path = self.write(tmp_path / "mine.npz", labels=None, y=np.array(["b", "a", "b", "a"]), groups=None)
        samples = cg.load_samples("npz", file=path, labels="y", modalities=["audio"])
        assert (list(samples.modalities), samples.labels.tolist()) == (["audio"], [1, 0, 1, 0])
        assert "no groups" in samples.notes[0]
        with pytest.raises(ValueError, match=r"an array 'labels' in .*known: audio, video, y"):
            cg.load_samples("npz", file=path)

    def test_objects_are_not_unpickled(self, tmp_path):
        path = self.write(tmp_path / "mine.npz", audio=np.array([[object()]] * 4))
        with pytest.raises(ValueError, match=r"'audio\.npy' holds Python objects"):
            cg.load_samples("npz", file=path)

    def test_bombs(self, tmp_path):
        path = tmp_path / "bomb.npz"
        np.savez_compressed(path, audio=np.zeros((1, 2**28, 2), np.int8), labels=np.zeros(1, int))
        assert path.stat().st_size < 2**20
        with pytest.raises(ValueError, match=r"its arrays take 536,871,\d+ bytes, more than 536,870,912 \(max_bytes\)"):
            cg.load_samples("npz", file=path)
        small = self.write(tmp_path / "small.npz")
        with pytest.raises(ValueError, match="more than 100 "):
            cg.load_samples("npz", file=small, max_bytes=100)

    def test_a_header_that_claims_more_than_there_is(self, tmp_path):
        file = io.BytesIO()
        np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": (10**13,)})
        with zipfile.ZipFile(tmp_path / "lie.npz", "w") as archive:
            archive.writestr("audio.npy", file.getvalue())
        with pytest.raises(ValueError, match="Expected arrays by name"):
            cg.load_samples("npz", file=tmp_path / "lie.npz")

    @pytest.mark.parametrize("content", [b"", b"<html>", b"PK\x03\x04"])
    def test_no_npz(self, tmp_path, content):
        (tmp_path / "x.npz").write_bytes(content)
        with pytest.raises(ValueError, match=r"Expected arrays by name .* in .*x\.npz"):
            cg.load_samples("npz", file=tmp_path / "x.npz")


def write_rgbd(root, stems, *, size=(6, 8), seed=0):
    generator = np.random.default_rng(seed)
    for part in ("rgb", "depth", "label"):
        (root / part).mkdir(parents=True)
    made = {}
    for stem in stems:
        colours = generator.integers(0, 256, (*size, 3), dtype=np.uint8)
        depth = generator.integers(0, 60000, size, dtype=np.uint16)
        label = generator.integers(0, 3, size, dtype=np.uint8)
        Image.fromarray(colours).save(root / f"rgb/{stem}.png")
        Image.fromarray(depth).save(root / f"depth/{stem}.png")
        Image.fromarray(label).save(root / f"label/{stem}.png")
        made[stem] = colours, depth, label
    return made


class TestRGBD:
    def test_blocks(self, tmp_path):
        stems = [str(number) for number in range(1, 11)]  # 10 comes after 9
        made = write_rgbd(tmp_path / "farm", stems)
        parts = {
            split: cg.load_samples("rgbd", root=tmp_path / "farm", split=split) for split in ("train", "val", "test")
        }
        assert [len(part) for part in parts.values()] == [7, 1, 2]
        test = parts["test"]
        for place, stem in enumerate(("9", "10")):
            assert np.array_equal(test.modalities["rgb"][place] * 255, made[stem][0].transpose(2, 0, 1))
            assert np.array_equal(test.modalities["depth"][place, 0], made[stem][1])
            assert np.array_equal(test.labels[place], made[stem][2])
        assert (test.name, test.classes, test.groups.tolist()) == ("farm", ("0", "1", "2"), [8, 9])
        assert len(cg.load_samples("rgbd", root=tmp_path / "farm", split="all")) == 10

    def test_splits_by_name_and_by_folder(self, tmp_path):
        write_rgbd(tmp_path / "named", ["train_1", "train_2", "test_1"])
        assert len(cg.load_samples("rgbd", root=tmp_path / "named", split="train")) == 2
        with pytest.raises(
            ValueError, match=r"split 'val' in .*all are of \['test', 'train'\]: take these, or blocks=True"
        ):
            cg.load_samples("rgbd", root=tmp_path / "named", split="val")
        for split in ("train", "validation"):
            write_rgbd(tmp_path / "folders" / split, ["1", "2", "3"])
        assert len(cg.load_samples("rgbd", root=tmp_path / "folders", split="val")) == 3
        with pytest.raises(ValueError, match="or in its folder of split 'test', but there is none"):
            cg.load_samples("rgbd", root=tmp_path / "folders")

    def test_classes_scale_and_what_is_not_judged(self, tmp_path):
        root = tmp_path / "x"
        made = write_rgbd(root, ["1"])
        (root / "classes.json").write_text(json.dumps({"road": 1, "none": 0, "grass": 2}))
        samples = cg.load_samples("rgbd", root=root, split="all", scale=0.001, ignore=2)
        assert samples.classes == ("none", "road", "grass")
        assert np.array_equal(samples.labels[0], np.where(made["1"][2] == 2, -1, made["1"][2].astype(int)))
        assert np.allclose(samples.modalities["depth"][0, 0], made["1"][1] * 0.001)
        Image.fromarray((made["1"][2] > 0).astype(np.uint8) * 255).save(root / "label/1.png")
        assert set(np.unique(cg.load_samples("rgbd", root=root, split="all").labels)) == {0, 1}
        small = cg.load_samples("rgbd", root=root, split="all", size=(3, 4))
        assert small.modalities["rgb"].shape == (1, 3, 3, 4)

    @pytest.mark.parametrize(
        ("damage", "said"),
        [
            (lambda root: (root / "depth/1.png").unlink(), r"1 are missing: depth/1"),
            (lambda root: (root / "depth/1.png").write_text("<html>"), r"a picture at .*depth/1\.png"),
            (lambda root: Image.new("RGB", (8, 6)).save(root / "depth/1.png"), "one channel .* but got mode 'RGB'"),
            (lambda root: Image.new("L", (4, 4)).save(root / "label/1.png"), "of one size, but got"),
            (lambda root: Image.new("L", (8, 6), 9).save(root / "label/1.png"), "3 classes .* but got 9"),
            (lambda root: Image.new("L", (8, 6), 9).save(root / "rgb/1.jpg"), "one picture called 1 in .*several"),
        ],
    )
    def test_refused(self, tmp_path, damage, said):
        write_rgbd(tmp_path, ["1"])
        damage(tmp_path)
        with pytest.raises(ValueError, match=said):
            cg.load_samples("rgbd", root=tmp_path, split="all", classes=["a", "b", "c"])

    @pytest.mark.parametrize(("name", "split", "count"), [("tools_rgbd", "train", 217), ("freespace_rgbd", "test", 8)])
    def test_real_scenes(self, name, split, count):
        samples = cg.load_samples("rgbd", root=real(name), split=split, size=(54, 96))
        assert len(samples) == count
        assert samples.modalities["rgb"].max() <= 1
        assert len(samples.classes) == (6 if name == "tools_rgbd" else 2)


@pytest.mark.parametrize(
    ("labels", "groups", "said"),
    [
        ([0, 2**31], None, "Expected labels that count classes from 0, up to 1,048,576, but got 2147483648"),
        ([0, 1], np.array(3), r"Expected 2 groups .*, but got int64 \[\]"),
        ([0, 1], [0.5, 1.0], "whole numbers or names, but got float64"),
        (np.array(1), None, r"Expected labels \[samples\] or \[samples, height, width\], but got \[\]"),
    ],
)
def test_labels_and_groups_that_are_none(labels, groups, said):
    with pytest.raises(ValueError, match=said):
        cg.as_samples({"a": np.ones((2, 3))}, labels, groups=groups)


class TestUnusualArrays:
    """What NumPy knows and PyTorch does not, and what would be read as something else."""

    VALUES = np.arange(6, dtype=np.float64).reshape(2, 3)

    @pytest.mark.parametrize("kind", [">f8", ">f4", ">i4", "<f2", np.longdouble, np.uint16])
    def test_numbers_of_any_kind(self, kind):
        found = cg.as_samples({"a": self.VALUES.astype(kind)}, np.array([0, 1], ">i8"))
        values = found.modalities["a"]
        assert np.array_equal(values[..., 0], self.VALUES)
        assert values.dtype.isnative
        assert values.dtype.itemsize in (4, 8)
        assert np.array_equal(torch.from_numpy(values).numpy(), values)
        assert torch.from_numpy(found.labels).tolist() == [0, 1]

    def test_masked_values_are_refused(self):
        values = np.ma.masked_greater(self.VALUES, 4)
        with pytest.raises(ValueError, match="modality 'a' to be one array, but got: 1 values are masked"):
            cg.as_samples({"a": values}, [0, 1])
        assert len(cg.as_samples({"a": np.ma.asarray(self.VALUES)}, [0, 1])) == 2
        with pytest.raises(ValueError, match="Expected labels in one array, but got: 1 values are masked"):
            cg.as_samples({"a": self.VALUES}, np.ma.masked_equal([0, 1], 1))

    @pytest.mark.parametrize("labels", [[0, None], ["a", 1.5], ["a", float("nan")]])
    def test_labels_of_several_kinds_are_refused(self, labels):
        with pytest.raises(ValueError, match="all whole numbers or all names, but some are"):
            cg.as_samples({"a": self.VALUES}, np.array(labels, dtype=object))

    def test_names_as_bytes_and_names_that_come_twice(self, tmp_path):
        assert cg.as_samples({"a": self.VALUES}, [b"no", b"yes"]).classes == ("no", "yes")
        with pytest.raises(ValueError, match="different names of classes, but some come again: a"):
            cg.as_samples({"a": self.VALUES}, ["a", "b"], classes=["a", "b", "a"])
        np.savez(tmp_path / "mine.npz", a=self.VALUES, labels=np.array([0, 1]), split=np.array([b"train", b"test"]))
        assert cg.load_samples("npz", file=tmp_path / "mine.npz").labels.tolist() == [1]

    def test_what_is_no_array(self):
        with pytest.raises(ValueError, match="modality 'a' to be one array"):
            cg.as_samples({"a": torch.eye(2).to_sparse()}, [0, 1])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"labels": [0, "x", 1]}, "labels that are all whole numbers or all names, but some are int, str"),
        ({"groups": ["a", 1, 2]}, "groups that are all whole numbers or all names, but some are int, str"),
        ({"labels": [-1, 1, -1]}, "-1 marks what is not judged"),
        ({"a": np.full((3, 2), 1e39)}, "numbers of 32 bits can be, up to 3.4e.38, but 'a' has more"),
        ({" ": np.ones((3, 2))}, "names of modalities that can be read, but got ' '"),
        ({"a\x1b[2J": np.ones((3, 2))}, r"but got 'a\\x1b\[2J'"),
    ],
)
def test_values_that_would_be_lost(given, said):
    labels, groups = given.pop("labels", [0, 1, 2]), given.pop("groups", [0, 1, 2])
    with pytest.raises(ValueError, match=said):
        cg.as_samples({"b": np.ones((3, 2)), **given}, labels, groups=groups)


def test_samples_that_are_not_judged_and_of_other_splits_are_counted(tmp_path):
    assert (
        "1 of 3 samples have the label -1 and are not judged" in cg.as_samples({"a": np.ones((3, 2))}, [-1, 0, 1]).notes
    )
    path = tmp_path / "mine.npz"
    arrays = {"a": np.ones((3, 2)), "labels": np.arange(3), "Split": np.array(["train", "validation", "train"])}
    np.savez(path, **arrays)
    samples = cg.load_samples("npz", file=path, split="train")
    assert (samples.labels.tolist(), samples.notes[0]) == (
        [0, 2],
        f"2 of 3 samples of {path} are kept; left out: 1 of other splits",
    )
    np.savez(path, **arrays | {"Split": np.array([["train"], ["test"], ["train"]])})
    with pytest.raises(ValueError, match=r"a split for each of 3 samples .* but got \[3, 1\]"):
        cg.load_samples("npz", file=path)
