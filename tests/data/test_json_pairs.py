"""Annotation files: shared images and captions become one node, and mistakes are named before long work."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from crossguard.data import json_stream, load_pairs


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
        assert "2 with no image path or no caption (row 2, row 3)" in said
        assert "1 with no object (row 4)" in said
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
        # Rows 0 and 8 lost one caption each; all others are left out.
        assert pairs.notes[0].startswith("2 of 9 rows")
        assert "2 whose image does not decode (html.png (no known" in pairs.notes[0]
        assert "left out of kept rows: 2 with a caption that is blank" in pairs.notes[1]
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
        with pytest.raises(ValueError, match=r"flickr30k_test\.json, dataset_flickr30k\.json, .*\.csv in"):
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


class TestSplits:
    def test_rows_that_tell_theirs(self, folder):
        rows = [
            {"image": "a.png", "caption": "one", "split": "train"},
            {"image": "b.png", "caption": "two", "split": "validation"},
        ]
        path = folder / "all.json"
        path.write_text(json.dumps(rows))
        pairs = load_pairs("json", annotations=path, root=folder, split="val")
        assert (pairs.texts, pairs.split) == (("two",), "val")
        assert pairs.notes[0] == f"1 of 2 rows of {path} are kept; left out: 1 of other splits"
        with pytest.raises(ValueError, match=r"split 'test' in .*splits are \['train', 'validation'\]"):
            load_pairs("json", annotations=path, root=folder)
        path.write_text(json.dumps([*rows, {"image": "a.png", "caption": "three"}]))
        with pytest.raises(ValueError, match=r"in every row of .* 2 have one and others do not \(row 2\)"):
            load_pairs("json", annotations=path, root=folder, skip_bad=True)

    @pytest.mark.parametrize(
        ("file", "split"),
        [("train.json", "train"), ("captions_val2017.json", "val"), ("dev.json", "val"), ("mine.json", "test")],
    )
    def test_files_that_tell_theirs(self, folder, file, split):
        path = folder / file
        path.write_text(json.dumps([{"image": "a.png", "caption": "one"}]))
        assert load_pairs("json", annotations=path, root=folder).split == split
        if file != "mine.json":
            with pytest.raises(ValueError, match=f"name of .* says '{split}'"):
                load_pairs("json", annotations=path, root=folder, split="test")
        assert load_pairs("json", annotations=path, root=folder, split="testA").split == "testA"

    def test_a_name_that_is_a_split_alone_is_the_folders(self, folder):
        assert load(folder, [{"image": "a.png", "caption": "one"}]).name == folder.name

    def test_karpathys_entries_without_one(self, folder):
        write_karpathy(
            folder,
            [
                {"filename": "a.png", "split": "test", "sentences": sentences("x")},
                None,
                {"filename": "b.png", "sentences": sentences("y")},
                {"filename": "b.png", "split": "test", "sentences": "one caption"},
            ],
        )
        path = folder / "dataset_flickr30k.json"
        with pytest.raises(ValueError, match=r"2 with no split \(image 1, image 2\)"):
            load_pairs("json", annotations=path, root=folder)
        pairs = load_pairs("json", annotations=path, root=folder, skip_bad=True)
        assert pairs.texts == ("x", "one caption")
        assert pairs.notes[0].startswith("2 of 4 rows")


def test_rows_one_a_line(folder):
    path = folder / "metadata.jsonl"
    path.write_text(
        '{"file_name": "a.png", "text": "one"}\n\n{"file_name": "b.png", "captions": ["two", "three"]}\n{"file_name"\n'
    )
    with pytest.raises(ValueError, match=r"1 with no object \(line 4\)"):
        load_pairs("json", annotations=path, root=folder)
    pairs = load_pairs("json", annotations=path, root=folder, skip_bad=True)
    assert pairs.texts == ("one", "two", "three")
    assert pairs.notes[0].startswith("2 of 3 rows")
    path.write_text('{"file": "a.png", "said": "one"}\n{"file": "b.png", "said": "two"}\n')
    moved = path.rename(folder / "lines.json")  # known by what it holds, too
    assert load_pairs("json", annotations=moved, root=folder, caption_key="said").texts == ("one", "two")


def test_keys_that_come_twice(folder):
    with pytest.raises(ValueError, match=r"1 with a key that comes twice \(row 1\)"):
        load(folder, '[{"image": "a.png", "caption": "x"}, {"image": "a.png", "caption": "y", "caption": "z"}]')
    with pytest.raises(ValueError, match=r"the key 'images' comes twice"):
        load(folder, '{"images": [], "images": []}')


def test_coco_images_of_one_id(folder):
    path = folder / "captions.json"
    content = {
        "images": [{"id": 7, "file_name": "a.png"}, {"id": 7, "file_name": "b.png"}, {"id": 8, "file_name": "b.png"}],
        "annotations": [{"image_id": 7, "caption": "one"}, {"image_id": 8, "caption": "two"}],
    }
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"1 with an `image_id` that several images have \(annotation 0\)"):
        load_pairs("json", annotations=path, root=folder)
    pairs = load_pairs("json", annotations=path, root=folder, skip_bad=True)
    assert [(p.key, *pairs.texts) for p in pairs.images] == [("b.png", "two")]


class TestOnePictureIsOnePicture:
    def test_spellings_and_links(self, folder):
        (folder / "sub").mkdir()
        (folder / "link.png").symlink_to(folder / "a.png")
        (folder / "linked").symlink_to(folder)
        names = ["a.png", "./a.png", "sub/../a.png", "link.png", "linked/a.png", str(folder / "a.png")]
        pairs = load(folder, [{"image": name, "caption": f"{n}"} for n, name in enumerate(names)])
        assert (len(pairs.images), len(pairs.texts)) == (1, 6)
        assert "4 paths are another spelling" in pairs.notes[0]

    def test_equal_files_are_noted(self, folder):
        Image.new("RGB", (4, 4), "red").save(folder / "c.png")
        pairs = load(folder, [{"image": name, "caption": name} for name in ("a.png", "b.png", "c.png")])
        assert len(pairs.images) == 3
        assert (
            "1 image files are equal byte for byte to another, and yet images of their own: b.png = a.png"
            in (pairs.notes[0])
        )

    def test_a_link_to_itself(self, folder):
        (folder / "loop.png").symlink_to(folder / "loop.png")
        assert len(load(folder, [{"image": "a.png", "caption": "x"}]).images) == 1
        with pytest.raises(ValueError, match=r"1 are missing: loop\.png"):
            load(folder, [{"image": "a.png", "caption": "x"}, {"image": "loop.png", "caption": "x"}])

    def test_outside_of_the_root(self, folder):
        inner = folder / "inner"
        inner.mkdir()
        (inner / "link.png").symlink_to(folder / "a.png")
        (inner / "folder").symlink_to(folder)
        names = ["../a.png", str(folder / "a.png"), "link.png", "folder/a.png"]
        (inner / "mine.json").write_text(json.dumps([{"image": name, "caption": name} for name in names]))
        with pytest.raises(ValueError, match=r"4 paths lead out of it: \.\./a\.png, .*outside_root=True"):
            load_pairs("json", annotations=inner / "mine.json", root=inner)
        pairs = load_pairs("json", annotations=inner / "mine.json", root=inner, outside_root=True)
        assert [picture.path for picture in pairs.images] == [(folder / "a.png").resolve()]

    def test_texts_of_several_images_are_noted(self, folder):
        pairs = load(folder, [{"image": "a.png", "caption": "x"}, {"image": "b.png", "caption": "x"}])
        assert any("1 captions are those of several images" in note for note in pairs.notes)


def test_names_cannot_drive_a_terminal(folder):
    with pytest.raises(ValueError, match=r"missing: a\\x1b\[2J\.png") as told:
        load(folder, [{"image": "a\x1b[2J.png", "caption": "x"}])
    assert "\x1b" not in str(told.value)
    with pytest.raises(ValueError, match="null character"):
        load(folder, [{"image": "a\0.png", "caption": "x"}])


ELEMENTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(st.lists(ELEMENTS), st.sampled_from([None, 2]), st.integers(1, 9), st.booleans())
def test_elements_are_those_of_the_standard_library(tmp_path_factory, elements, indent, chunk, ascii_only):
    path = tmp_path_factory.getbasetemp() / "elements.json"
    path.write_text(json.dumps(elements, indent=indent, ensure_ascii=ascii_only), encoding="utf-8", errors="replace")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_stream, "_CHUNK", chunk)
        found = [element for batch in json_stream.read_list(path) for element in batch]
    assert found == json.loads(path.read_text(encoding="utf-8"))


@given(
    st.lists(st.dictionaries(st.sampled_from(["a", "b", 'a":', "c "]), st.text('"\\:, a{}') | st.integers())), st.data()
)
def test_many_objects_at_once_are_those_one_by_one(tmp_path_factory, objects, data):
    """Keys that come twice are found wherever they are, whatever strings hold."""
    path = tmp_path_factory.getbasetemp() / "objects.json"
    separators = data.draw(st.sampled_from([(",", ":"), (", ", ": "), (" , ", " : ")]))
    written = [json.dumps(one, separators=separators) for one in objects]
    for place in data.draw(st.sets(st.integers(0, 3))):
        if place < len(objects) and objects[place]:
            written[place] = written[place][:-1] + ',"a":1,"a":2}'
    said = separators[0].join(written)
    path.write_text(f"[{said}]")
    found = [element for batch in json_stream.read_list(path) for element in batch]
    alone = [json_stream._DECODER.decode(json.dumps(one)) for one in json.loads(f"[{said}]")]
    assert found == alone
    repeated = [isinstance(one, json_stream.Repeated) for one in found]
    assert repeated == [isinstance(one, json_stream.Repeated) for one in json_stream.decode(f"[{said}]")]


@given(st.dictionaries(st.text(), ELEMENTS), st.integers(1, 9))
def test_members_are_those_of_the_standard_library(tmp_path_factory, content, chunk):
    path = tmp_path_factory.getbasetemp() / "members.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_stream, "_CHUNK", chunk)
        found = list(json_stream.read_object(path, set(content)))
        assert list(json_stream.read_object(path, ())) == list(content.items())
    assert found == [
        (key, element) for key, value in content.items() for element in (value if isinstance(value, list) else [value])
    ]


@given(st.text(st.sampled_from('[]{}":, 1ae\\\n'), max_size=30))
def test_what_is_no_json_is_refused(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "broken.json"
    path.write_text(text)
    try:
        whole = json.loads(text)
    except ValueError:
        whole = None
    if not isinstance(whole, list | dict):
        with pytest.raises(ValueError, match=r"."):
            list(
                json_stream.read_list(path)
                if json_stream.opening(path)[:1] == "["
                else json_stream.read_object(path, ())
            )


def test_nesting_without_end(folder):
    with pytest.raises(ValueError, match="nests too deep|Expected a JSON"):
        load(folder, "[" * 100_000)
    with pytest.raises(ValueError, match="Expected a list of rows in .* but got something else: Expected rows of"):
        load(folder, [[]])


def test_the_split_in_capitals(folder):
    rows = [{"image": "a.png", "caption": "x", "Split": "train"}, {"image": "b.png", "caption": "y", "Split": "test"}]
    pairs = load(folder, rows)
    assert pairs.texts == ("y",)
    assert "1 of other splits" in pairs.notes[0]
    with pytest.raises(ValueError, match=r"1 with several splits \(row 1\)"):
        load(folder, [rows[0], {**rows[0], "split": "test"}, {"image": "b.png", "caption": "y", "split": "test"}])


def test_what_else_a_row_says_is_told(folder):
    rows = [{"image": "a.png", "caption": "x", "captions": ["y"]}, {"image": "b.png", "caption": "z", "title": None}]
    told = f"1 rows of {folder / 'test.json'} have something under 'captions', too, which is not read"
    assert load(folder, rows).notes[0] == told
    chosen = load_pairs("json", annotations=folder / "test.json", root=folder, caption_key="caption")
    assert not any("not read" in note for note in chosen.notes)


@pytest.mark.parametrize("sign", ["\u200b", "\ufeff ", " \u200d\u2060"])
def test_a_caption_of_unseen_signs_is_blank(folder, sign):
    with pytest.raises(ValueError, match=r"1 with a caption that is blank or no text \(row 1\)"):
        load(folder, [{"image": "a.png", "caption": f"x{sign}y"}, {"image": "b.png", "caption": sign}])
