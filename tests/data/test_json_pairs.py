"""Annotation files: shared images and captions become one node, and mistakes are named before long work."""

import json

import pytest
from PIL import Image

from crossguard.data import load_pairs


@pytest.fixture
def folder(tmp_path):
    for name in ("a.png", "b.png"):
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    return tmp_path


def load(folder, rows):
    path = folder / "test.json"
    path.write_text(rows if isinstance(rows, str) else json.dumps(rows))
    return load_pairs("json", annotations=path, root=folder)


def test_rows_of_both_layouts_and_shared_nodes(folder):
    pairs = load(
        folder,
        [
            {"image": "a.png", "caption": ["one", "two"]},
            {"image": "b.png", "caption": "two"},
            {"image": "a.png", "caption": "3"},
        ],
    )
    named = {(pairs.images[i].key, pairs.texts[j]) for i, j in pairs.links}
    assert named == {("a.png", "one"), ("a.png", "two"), ("b.png", "two"), ("a.png", "3")}
    assert pairs.image(0).size == (4, 4)


def test_missing_files_are_counted_and_named(folder):
    rows = [{"image": f"{i}.png", "caption": "x"} for i in range(7)] + [{"image": "a.png", "caption": "x"}]
    with pytest.raises(ValueError, match=r"8 image files .* 7 are missing: 0\.png, 1\.png, .*\.\.\."):
        load(folder, rows)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("{", "JSON annotation file"),
        ("<html>", "JSON annotation file"),
        ([], "list of rows"),
        ({"image": "a.png"}, "list of rows"),
        ([{"image": "a.png"}], "row 0"),
        ([{"image": "a.png", "caption": "x"}, {"image": "a.png", "caption": []}], "row 1"),
        ([{"image": "a.png", "caption": ["x", "  "]}], "1 with a caption that is blank or no text \\(row 0\\)"),
        ([{"image": 3, "caption": "x"}], "row 0"),
    ],
)
def test_what_is_not_an_annotation_file_is_refused(folder, rows, message):
    with pytest.raises(ValueError, match=message):
        load(folder, rows)


def test_unknown_names_and_kinds_of_data_sets(folder):
    with pytest.raises(ValueError, match="did you mean 'emoji'"):
        load_pairs("emojis")
    with pytest.raises(ValueError, match="use load_samples"):
        load_pairs("watch")


def write_karpathy(folder, images):
    path = folder / "dataset_flickr30k.json"
    path.write_text(json.dumps({"images": images, "dataset": "flickr30k"}))


def sentences(*texts):
    return [{"raw": text, "tokens": text.split()} for text in texts]


class TestEveryMistakeAtOnce:
    ROWS = (
        {"image": "a.png", "caption": ["one", " "], "image_id": "x"},
        {"image": "gone.png", "caption": "two"},
        {"image": "b.png"},
        {"caption": "three"},
        "no row",
        {"image": "b.png", "caption": "four", "image_id": "x"},
        {"image": "html.png", "caption": "five"},
        {"image": "half.png", "caption": ["six", "six"]},
        {"image": "b.png", "caption": ["seven", "\ud83d"]},
    )

    @pytest.fixture
    def home(self, folder):
        (folder / "html.png").write_text("<html>not found</html>")
        whole = (folder / "a.png").read_bytes()
        (folder / "half.png").write_bytes(whole[: len(whole) // 2])
        return folder

    def test_named(self, home):
        with pytest.raises(ValueError, match="Expected whole rows") as told:
            load(home, self.ROWS)
        said = str(told.value)
        assert "2 with a caption that is blank or no text (row 0, row 8)" in said
        assert "3 with no image path or no caption (row 2, row 3, row 4)" in said
        assert "1 with an `image_id` of another image (row 5)" in said
        assert "1 are missing: gone.png" in said
        assert "skip_bad=True" in said

    def test_images_that_do_not_decode(self, home):
        rows = [{"image": name, "caption": name} for name in ("a.png", "html.png", "half.png")]
        assert len(load(home, rows).images) == 3  # lazily decoded
        path = home / "test.json"
        with pytest.raises(ValueError, match=r"3 images that decode, but 2 do not: html\.png \(no known .*half\.png"):
            load_pairs("json", annotations=path, root=home, verify=True)

    def test_left_out(self, home):
        path = home / "test.json"
        path.write_text(json.dumps(self.ROWS))
        pairs = load_pairs("json", annotations=path, root=home, skip_bad=True, workers=1)
        assert {(pairs.images[i].key, pairs.texts[j]) for i, j in pairs.links} == {("a.png", "one"), ("b.png", "seven")}
        assert len(pairs.notes) == 3
        assert any("2 do not: html.png" in note for note in pairs.notes)
        assert pairs.head(1).notes == pairs.notes

    def test_nothing_left(self, home):
        path = home / "test.json"
        path.write_text(json.dumps(self.ROWS[1:5]))
        with pytest.raises(ValueError, match="none is whole"):
            load_pairs("json", annotations=path, root=home, skip_bad=True)

    def test_workers(self, home):
        with pytest.raises(ValueError, match="`workers` >= 1"):
            load_pairs("json", annotations=self.write(home), root=home, verify=True, workers=0)

    @staticmethod
    def write(home):
        path = home / "test.json"
        path.write_text(json.dumps([{"image": "a.png", "caption": "x"}]))
        return path


def test_repeated_rows_are_noted(folder):
    pairs = load(folder, [{"image": "a.png", "caption": ["one", "one ", "two"]}])
    assert pairs.texts == ("one", "two")
    assert "1 captions of" in pairs.notes[0]


def test_other_scripts(folder):
    texts = ["一只狗在沙滩上", "كلب على الشاطئ", "пёс на пляже", "🐶 🏖️"]
    assert load(folder, [{"image": "a.png", "caption": texts}]).texts == tuple(texts)


def test_a_byte_order_mark(folder):
    (folder / "test.json").write_text(json.dumps([{"image": "a.png", "caption": "x"}]), encoding="utf-8-sig")
    assert load_pairs("json", annotations=folder / "test.json", root=folder).texts == ("x",)


def test_cocos_own_captions(folder):
    path = folder / "captions_val2017.json"
    content = {
        "images": [{"id": 7, "file_name": "a.png"}, {"id": 9, "file_name": "b.png"}],
        "annotations": [
            {"image_id": 9, "id": 1, "caption": "one"},
            {"image_id": 7, "id": 2, "caption": "two"},
            {"image_id": 9, "id": 3, "caption": "three"},
        ],
    }
    path.write_text(json.dumps(content))
    pairs = load_pairs("json", annotations=path, root=folder)
    assert {(pairs.images[i].key, pairs.texts[j]) for i, j in pairs.links} == {
        ("b.png", "one"), ("a.png", "two"), ("b.png", "three")
    }  # fmt: skip
    content["annotations"][0]["image_id"] = 8
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"`image_id` that no image has \(annotation 0\)"):
        load_pairs("json", annotations=path, root=folder)


class TestFlickr30k:
    @pytest.fixture
    def home(self, tmp_path):
        (tmp_path / "flickr30k-images").mkdir()
        for name in ("a.jpg", "b.jpg", "c.jpg"):
            Image.new("RGB", (4, 4)).save(tmp_path / "flickr30k-images" / name)
        return tmp_path

    def test_rows_of_training_and_lists_of_testing(self, home):
        train = [
            {"image": "flickr30k-images/a.jpg", "caption": text, "image_id": "1"} for text in ("one", "two", "one")
        ] + [{"image": "flickr30k-images/b.jpg", "caption": "two", "image_id": "2"}]
        (home / "flickr30k_train.json").write_text(json.dumps(train))
        (home / "annotations").mkdir()
        test = [{"image": "flickr30k-images/c.jpg", "caption": ["one", "two", "three"]}]
        (home / "annotations" / "flickr30k_test.json").write_text(json.dumps(test))
        pairs = load_pairs("flickr30k", root=home, split="train")
        assert (len(pairs.images), pairs.texts, len(pairs.links)) == (2, ("one", "two"), 3)
        assert (pairs.name, pairs.split) == ("flickr30k", "train")
        assert load_pairs("flickr30k", root=home).texts == ("one", "two", "three")

    def test_karpathys_own_file_and_bare_names(self, home):
        write_karpathy(
            home,
            [
                {"filename": "a.jpg", "split": "train", "sentences": sentences("x")},
                {"filename": "b.jpg", "split": "test", "sentences": sentences("one", "two")},
                {"filename": "c.jpg", "split": "restval", "sentences": sentences("y")},
            ],
        )
        pairs = load_pairs("flickr30k", root=home)
        assert [picture.path for picture in pairs.images] == [home / "flickr30k-images" / "b.jpg"]
        assert load_pairs("flickr30k", root=home, split="train").texts == ("x", "y")
        with pytest.raises(ValueError, match=r"split 'val' .*\['restval', 'test', 'train'\]"):
            load_pairs("flickr30k", root=home, split="val")
        moved = (home / "dataset_flickr30k.json").rename(home / "other.json")
        assert load_pairs("flickr30k", root=home, annotations=moved).texts == ("one", "two")

    def test_refused(self, home):
        with pytest.raises(ValueError, match=r"flickr30k_test\.json, dataset_flickr30k\.json in"):
            load_pairs("flickr30k", root=home)
        with pytest.raises(ValueError, match="train, val, test"):
            load_pairs("flickr30k", root=home, split="testA")
        with pytest.raises(ValueError, match="folder at `root`"):
            load_pairs("flickr30k", root=home / "none")
        with pytest.raises(ValueError, match="the option 'root' of data set 'flickr30k'"):
            load_pairs("flickr30k")
        with pytest.raises(ValueError, match="Unknown option 'rot' .* did you mean 'root'"):
            load_pairs("flickr30k", rot=home)


def test_coco_in_both_layouts(tmp_path):
    for place in ("train2014", "val2014"):
        (tmp_path / "images" / place).mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(tmp_path / "images" / place / "1.jpg")
    images = [
        {"filepath": "train2014", "filename": "1.jpg", "split": "train", "sentences": sentences("one")},
        {"filepath": "val2014", "filename": "1.jpg", "split": "restval", "sentences": sentences("two")},
    ]
    (tmp_path / "dataset_coco.json").write_text(json.dumps({"images": images, "dataset": "coco"}))
    pairs = load_pairs("coco", root=tmp_path, split="train")
    assert [picture.key for picture in pairs.images] == ["train2014/1.jpg", "val2014/1.jpg"]
    rows = [{"image": "val2014/1.jpg", "caption": [f"caption {n}" for n in range(7)]}]
    (tmp_path / "coco_karpathy_test.json").write_text(json.dumps(rows))
    assert len(load_pairs("coco", root=tmp_path).texts) == 7
