"""Labelled images on the disk: class folders and clip_benchmark's shards, read right or refused."""

import io
import tarfile

import numpy as np
import pytest
from PIL import Image

import crossguard as cg


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CROSSGUARD_CACHE", str(tmp_path / "cache"))


def picture(seed):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8))


@pytest.fixture
def pets(tmp_path):
    root = tmp_path / "pets"
    for number, name in enumerate(
        ["test/cat/0.png", "test/cat/old/1.webp", "test/dog/0.PNG", "validation/cat/2.png", "validation/dog/3.png"]
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        picture(number).save(root / name, lossless=True)
    (root / "test" / "cat" / "Thumbs.db").write_text("")
    return root


class TestFolders:
    def test_splits(self, pets):
        images = cg.load_images("imagefolder", root=pets)
        assert [p.key for p in images.images] == ["cat/0.png", "cat/old/1.webp", "dog/0.PNG"]
        assert (images.labels.tolist(), images.classes) == ([0, 0, 1], ("cat", "dog"))
        assert (images.name, images.split, images.templates) == ("pets", "test", ("a photo of a {c}.",))
        assert np.array_equal(np.asarray(images.image(1)), np.asarray(picture(1)))
        val = cg.load_images("imagefolder", root=pets, split="val")
        assert (val.split, len(val)) == ("val", 2)
        with pytest.raises(ValueError, match="Expected a split of .*, but got 'train'"):
            cg.load_images("imagefolder", root=pets, split="train")

    def test_class_folders_alone(self, pets):
        root = (pets / "test").rename(pets.parent / "mine")
        assert cg.load_images("imagefolder", root=root).labels.tolist() == [0, 0, 1]
        with pytest.raises(ValueError, match=r"a folder 'test' in .*mine, but there is none \(cat, dog\)"):
            cg.load_images("imagefolder", root=root, split="test")
        assert cg.load_images("imagefolder", root=pets / "validation", split="val").split == "val"

    def test_names_and_prompts(self, pets):
        (pets / "classnames.txt").write_text("tabby cat\nfriendly dog\n")
        (pets / "zeroshot_classification_templates.txt").write_text("a {c}\na photo of {c}, a pet\n")
        images = cg.load_images("imagefolder", root=pets)
        assert images.classes == ("tabby cat", "friendly dog")
        assert images.prompts("dog") == ("a dog", "a photo of dog, a pet")
        with pytest.raises(ValueError, match="2 names of classes, as folders in .*, but got 1"):
            cg.load_images("imagefolder", root=pets, classes=["cat"])

    def test_broken_pictures(self, pets):
        (pets / "test" / "dog" / "1.jpg").write_text("<html>")
        with pytest.raises(ValueError, match="1 do not: dog/1.jpg"):
            cg.load_images("imagefolder", root=pets, verify=True)
        images = cg.load_images("imagefolder", root=pets, skip_bad=True)
        assert len(images) == 3
        assert images.notes[0].startswith("3 of 4 rows")

    def test_one_picture_of_two_classes(self, pets):
        (pets / "test" / "dog" / "link.png").symlink_to(pets / "test" / "cat" / "0.png")
        with pytest.raises(ValueError, match="one label for each image, but 1 have several: cat/0.png"):
            cg.load_images("imagefolder", root=pets)

    def test_empty_classes_are_noted(self, pets):
        (pets / "test" / "bird").mkdir()
        images = cg.load_images("imagefolder", root=pets)
        assert images.notes == ("1 of 3 classes have no picture: bird",)
        assert images.labels.tolist() == [1, 1, 2]

    def test_refused(self, tmp_path):
        with pytest.raises(ValueError, match="Expected a folder of images"):
            cg.load_images("imagefolder", root=tmp_path / "none")
        with pytest.raises(ValueError, match="Expected images with labels in .*, but there are none"):
            cg.load_images("imagefolder", root=tmp_path)
        with pytest.raises(ValueError, match="use load_pairs"):
            cg.load_images("json")


def write_wds(root, samples, *, shards=2):
    (root / "test").mkdir(parents=True)
    (root / "classnames.txt").write_text("cat\ndog\nbird\n")
    (root / "zeroshot_classification_templates.txt").write_text("a photo of a {c}.\na {c}.\n")
    (root / "test" / "nshards.txt").write_text(f"{shards}\n")
    for shard in range(shards):
        with tarfile.open(root / "test" / f"{shard}.tar", "w") as tar:
            for key, image, label in samples[shard::shards]:
                for name, content in ((f"{key}.webp", image), (f"{key}.cls", label)):
                    if content is not None:
                        info = tarfile.TarInfo(name)
                        info.size = len(content)
                        tar.addfile(info, io.BytesIO(content))
    return root


def webp(seed):
    file = io.BytesIO()
    picture(seed).save(file, "WEBP", lossless=True)
    return file.getvalue()


class TestShards:
    def test_clip_benchmarks_layout(self, tmp_path):
        samples = [(f"s{n:07d}", webp(n), str(n % 3).encode()) for n in range(25)]
        root = write_wds(tmp_path / "wds_pets", samples, shards=12)
        images = cg.load_images("wds", root=root)
        order = [n for shard in range(12) for n in range(shard, 25, 12)]  # 10.tar comes after 9.tar
        assert images.labels.tolist() == [n % 3 for n in order]
        assert np.array_equal(np.asarray(images.image(4)), np.asarray(picture(order[4])))
        assert (images.classes, len(images.templates)) == (("cat", "dog", "bird"), 2)
        assert (images.name, images.split, images.notes) == ("wds_pets", "test", ())

    def test_bad_samples(self, tmp_path):
        samples = [
            ("a", webp(0), b"0"),
            ("b", webp(1), b"3"),
            ("c", webp(2), b"cat"),
            ("d", None, b"1"),
            ("e", webp(4), None),
            ("f", webp(5), b"-1"),
        ]
        root = write_wds(tmp_path / "pets", samples)
        with pytest.raises(ValueError, match=r"3 with a label that is none of 3 classes \(.*/[bcf], .*2 with no image"):
            cg.load_images("wds", root=root)
        images = cg.load_images("wds", root=root, skip_bad=True)
        assert images.labels.tolist() == [0]
        assert images.notes[0].startswith("1 of 6 rows")
        assert images.notes[-1] == "2 of 3 classes have no picture: dog, bird"

    def test_refused(self, tmp_path):
        root = write_wds(tmp_path / "pets", [("a", webp(0), b"0"), ("b", webp(1), b"1")])
        (root / "test" / "1.tar").unlink()
        with pytest.raises(ValueError, match="Expected 2 shards in .*, as nshards.txt says, but got 1"):
            cg.load_images("wds", root=root)
        (root / "test" / "nshards.txt").write_text("1")
        (root / "classnames.txt").unlink()
        with pytest.raises(ValueError, match="names of the classes in .*classnames.txt"):
            cg.load_images("wds", root=root)
        assert cg.load_images("wds", root=root, classes=["cat", "dog"]).labels.tolist() == [0]
        with pytest.raises(ValueError, match="Expected a split of .*, but got 'train'"):
            cg.load_images("wds", root=root, split="train")
        (root / "test" / "0.tar").unlink()
        with pytest.raises(ValueError, match="Expected shards such as 0.tar"):
            cg.load_images("wds", root=root, classes=["cat", "dog"])


def test_hidden_files_and_folders_are_left_out(pets):
    for name in (
        "test/cat/.ipynb_checkpoints/0-checkpoint.png",
        "test/dog/._0.png",
        "test/.dog-abcdefgh.partial/0.png",
    ):
        (pets / name).parent.mkdir(exist_ok=True)
        picture(9).save(pets / name)
    assert [p.key for p in cg.load_images("imagefolder", root=pets).images] == [
        "cat/0.png",
        "cat/old/1.webp",
        "dog/0.PNG",
    ]


def test_two_folders_of_one_split(pets):
    (pets / "val" / "cat").mkdir(parents=True)
    with pytest.raises(ValueError, match="'?val'? and '?validation'? are both 'val'"):
        cg.load_images("imagefolder", root=pets, split="val")
