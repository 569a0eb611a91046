"""The same rows mean the same in memory and in every kind of file."""

import csv
import io
import json
import tarfile
from collections import namedtuple

import pytest
from PIL import Image

import crossguard as cg
from crossguard.data import Reading


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CROSSGUARD_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def root(tmp_path):
    for number, name in enumerate(("a.png", "b.png", "sub/c.png")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4), (40 * number, 9, 9)).save(tmp_path / name)
    return tmp_path


def as_table(rows):
    """Rows as a CSV table; what is no text is written as JSON."""
    file = io.StringIO()
    writer = csv.DictWriter(file, list(dict.fromkeys(key for row in rows for key in row)))
    writer.writeheader()
    writer.writerows(
        {key: json.dumps(said) if isinstance(said, list | dict) else said for key, said in row.items()} for row in rows
    )
    return file.getvalue()


def written(root, name, text):
    path = root / "files" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def in_memory(rows, root, skip_bad=False, **options):
    return cg.as_pairs(rows, root=root, reading=Reading(skip_bad=skip_bad), **options)


def frame(rows, root, **options):
    return in_memory(pytest.importorskip("pandas").DataFrame(rows), root, **options)


def parquet(rows, root, **options):
    pytest.importorskip("pyarrow")
    path = written(root, "mine.parquet", "")
    pytest.importorskip("pandas").DataFrame(rows).to_parquet(path)
    return cg.load_pairs("parquet", files=path, root=root, **options)


def json_list(rows, root, **options):
    return cg.load_pairs("json", annotations=written(root, "mine.json", json.dumps(rows)), root=root, **options)


def json_lines(rows, root, **options):
    text = "\n".join(map(json.dumps, rows))
    return cg.load_pairs("json", annotations=written(root, "mine.jsonl", text), root=root, **options)


def table(rows, root, **options):
    return cg.load_pairs("csv", captions=written(root, "mine.csv", as_table(rows)), root=root, **options)


HOLDERS = [in_memory, frame, parquet, json_list, json_lines, table]
ONE = {"image": "a.png", "caption": "one"}
TWO = {"image": "b.png", "caption": "two"}
SAID = {
    "Karpathy's sentences": [{"filename": "a.png", "sentences": [{"raw": "one", "tokens": []}, {"raw": "uno"}]}],
    "one sentence": [{"image": "a.png", "sentences": {"raw": "one", "tokens": ["one"]}}],
    "a folder and a file": [{"filepath": "sub", "filename": "c.png", "caption": "three"}],
    "a path and a file": [{"filepath": "sub/c.png", "filename": "c.png", "caption": "three"}],
    "JSON in a text": [{"image": "a.png", "caption": '["one", "uno"]'}],
    "Python in a text": [{"image": "a.png", "raw": "['one', 'it\\'s one']"}],
    "brackets in a text": [{"image": "a.png", "caption": "[one] and {two}"}],
    "capitals": [{"Image": "a.png", "Caption": "one"}],
    "restval": [{**ONE, "split": "restval"}, {**TWO, "split": "train"}],
    "Split": [{**ONE, "Split": "training"}, {**TWO, "Split": "test"}],
}
WANTED = {
    "Karpathy's sentences": {("a.png", "one"), ("a.png", "uno")},
    "one sentence": {("a.png", "one")},
    "a folder and a file": {("sub/c.png", "three")},
    "a path and a file": {("sub/c.png", "three")},
    "JSON in a text": {("a.png", "one"), ("a.png", "uno")},
    "Python in a text": {("a.png", "one"), ("a.png", "it's one")},
    "brackets in a text": {("a.png", "[one] and {two}")},
    "capitals": {("a.png", "one")},
    "restval": {("a.png", "one"), ("b.png", "two")},
    "Split": {("a.png", "one")},
}


def linked(pairs):
    return {(pairs.images[i].key, pairs.texts[j]) for i, j in pairs.links.tolist()}


@pytest.mark.parametrize("holder", HOLDERS)
@pytest.mark.parametrize("said", SAID)
def test_read_alike(said, holder, root):
    pairs = holder(SAID[said], root, **({"split": "train"} if said in ("restval", "Split") else {}))
    assert linked(pairs) == WANTED[said]
    assert not any("too, which is not read" in note for note in pairs.notes)


REFUSED = {
    "1 with no split": [{**ONE, "split": ""}, {**TWO, "split": "train"}],
    "1 with a caption that is blank or no text": [ONE, {**TWO, "caption": "[1]"}],
    "2 with no image path or no caption": [{**ONE, "caption": "{}"}, {**TWO, "caption": "[]"}],
    "(an address|addresses) of the web": [{**ONE, "image": "https://example.org/a.png"}],
}


@pytest.mark.parametrize("holder", HOLDERS)
def test_refused_alike(holder, root):
    for said, rows in REFUSED.items():
        with pytest.raises(ValueError, match=said):
            holder(rows, root)


@pytest.mark.parametrize("holder", HOLDERS)
def test_a_second_column_of_captions_is_noted(holder, root):
    pairs = holder([{**ONE, "text": "uno"}, {**TWO, "text": "due"}], root)
    assert linked(pairs) == {("a.png", "one"), ("b.png", "two")}
    assert any(note.startswith("2 ") and "under 'text', too, which is not read" in note for note in pairs.notes)


@pytest.mark.parametrize("holder", [in_memory, json_list, json_lines])
def test_some_rows_without_split(holder, root):
    with pytest.raises(
        ValueError, match=r"Expected a `split` in every .*, but 1 have one and others do not \(.* [01]\)"
    ):
        holder([ONE, {**TWO, "split": "train"}], root, skip_bad=True)


OBJECTS = {
    "captions by picture": {"a.png": ["one", "uno"], "b.png": "two"},
    "rows by picture": {"a.png": {"caption": ["one", "uno"]}, "b.png": {"text": "two"}},
    "columns": {"image": ["a.png", "a.png", "b.png"], "caption": ["one", "uno", "two"]},
    "columns by number": {
        "image": {"0": "a.png", "1": "a.png", "2": "b.png"}, "caption": {"0": "one", "1": "uno", "2": "two"}
    },
    "rows by number": {"7": {"image": "a.png", "caption": ["one", "uno"]}, "9": TWO},
    "rows under a key": {"version": 1, "data": [{"image": "a.png", "captions": ["one", "uno"]}, TWO], "tags": ["x"]},
    "rows as annotations": {"info": {}, "annotations": [{"image": "a.png", "caption": ["one", "uno"]}, TWO]},
    "rows as images": {"images": [{"file_name": "a.png", "captions": ["one", "uno"]}, TWO]},
    "one row": {"image": "a.png", "caption": ["one", "uno"]},
    "pairs": [["a.png", ["one", "uno"]], ["b.png", "two"]],
    "two lists": [["a.png", "a.png", "b.png"], ["one", "uno", "two"]],
    "COCO's": {
        "images": [{"id": 3, "file_name": "a.png"}, {"id": 4, "file_name": "b.png"}],
        "annotations": [{"image_id": i, "caption": text} for i, text in ((3, "one"), (4, "two"), (3, "uno"))],
    },
    "Karpathy's": {
        "images": [
            {"filename": "a.png", "split": "test", "sentences": [{"raw": "one"}, {"raw": "uno"}]},
            {"filename": "b.png", "split": "test", "sentences": [{"raw": "two"}]},
            {"filename": "c.png", "split": "train", "sentences": [{"raw": "three"}]},
        ],
        "dataset": "mine",
    },
    "splits": {"test": [{"image": "a.png", "caption": ["one", "uno"]}, TWO], "train": [{**ONE, "caption": "three"}]},
}  # fmt: skip


@pytest.mark.parametrize("layout", OBJECTS)
@pytest.mark.parametrize("load", [in_memory, json_list])
def test_layouts(layout, load, root):
    """An object of JSON is read as it is in memory."""
    pairs = load(OBJECTS[layout], root, split="test")
    expected = {("a.png", "one"), ("a.png", "uno"), ("b.png", "two")}
    assert linked(pairs) == {link for link in expected if layout != "one row" or link[0] == "a.png"}
    told = layout in ("Karpathy's", "splits")
    assert [note.split(" of ")[0] for note in pairs.notes] == ["2"] * told
    assert pairs.split == "test"


@pytest.mark.parametrize("load", [in_memory, json_list])
def test_layouts_of_nothing_known(load, root):
    for obj in ({}, {"a": 1}, {"a.png": None}, {"image": "a.png"}, {"data": [ONE], "more": [TWO]}, [[]], [["a.png"]]):
        with pytest.raises(ValueError, match="Expected"):
            load(obj, root)


def test_keys_that_come_twice_in_an_object(root):
    inner = '{"7": {"image": "a.png", "caption": "one"}, "8": {"image": "b.png", "caption": "x", "caption": "y"}}'
    path = written(root, "mine.json", inner)
    with pytest.raises(ValueError, match=r"1 with a key that comes twice \(row 1\)"):
        cg.load_pairs("json", annotations=path, root=root)
    assert linked(cg.load_pairs("json", annotations=path, root=root, skip_bad=True)) == {("a.png", "one")}
    for text in (
        '{"a.png": ["one"], "a.png": ["two"]}',
        '{"image": {"0": "a.png", "0": "b.png"}, "caption": {"0": "x"}}',
    ):
        with pytest.raises(ValueError, match="Expected"):
            cg.load_pairs("json", annotations=written(root, "mine.json", text), root=root)


def test_splits_of_coco_images(root):
    images = [{"id": 1, "file_name": "a.png", "split": "train"}, {"id": 2, "file_name": "b.png", "split": "test"}]
    content = {"images": images, "annotations": [{"image_id": i, "caption": f"text {i}"} for i in (1, 2)]}
    for load in (in_memory, json_list):
        assert linked(load(content, root, split="train")) == {("a.png", "text 1")}


def test_a_column_that_is_asked_for_is_not_replaced(root):
    rows = [{**ONE, "photo": "b.png", "said": "two"}]
    assert linked(in_memory(rows, root, image="photo", text="said")) == {("b.png", "two")}
    for options in ({"image": "phto"}, {"text": "sad"}):
        with pytest.raises(
            ValueError, match="Expected a column '(phto|sad)', but got 'image', 'caption', 'photo', 'said'"
        ):
            in_memory(rows, root, **options)


def test_named_tuples_in_any_order(root):
    row = namedtuple("row", ["caption", "image"])
    assert linked(in_memory([row("one", "a.png"), row("two", "b.png")], root)) == {("a.png", "one"), ("b.png", "two")}
    other = namedtuple("other", ["first", "second"])
    assert linked(in_memory([other("a.png", "one")], root)) == {("a.png", "one")}


def test_paths_as_keys(root):
    assert linked(in_memory({root / "a.png": "one"}, root)) == {(str(root / "a.png"), "one")}


class TestShards:
    def write(self, root, members):
        picture = (root / "a.png").read_bytes()
        with tarfile.open(root / "shard.tar", "w") as shard:
            for name, content in members.items():
                content = picture if content is None else content.encode()
                info = tarfile.TarInfo(name)
                info.size = len(content)
                shard.addfile(info, io.BytesIO(content))
        return {"shards": str(root / "shard.tar")}

    def test_lines_of_a_text(self, root):
        """As clip_benchmark writes its retrieval data."""
        options = self.write(root, {"0.png": None, "0.txt": "one\nuno\n", "1.png": None, "1.txt": "two\n\n due \n"})
        with pytest.raises(ValueError, match=r"2 of 2 have several lines: lines=True takes each line as a caption"):
            cg.load_pairs("webdataset", **options)
        assert cg.load_pairs("webdataset", **options, lines=True).texts == ("one", "uno", "two", "due")
        assert cg.load_pairs("webdataset", **options, lines=False).texts == ("one uno", "two due")
        options = self.write(root, {"0.png": None, "0.txt": "one\nuno\n", "1.png": None, "1.txt": "two\n"})
        pairs = cg.load_pairs("webdataset", **options)
        assert pairs.texts == ("one uno", "two")
        assert "1 captions have several lines, which are read as one" in pairs.notes[-1]

    def test_splits_and_names_in_json(self, root):
        said = [
            {"caption": "one", "split": "train"},
            {"text": ["two", "due"], "split": "val"},
            {"caption": '["three"]'},
        ]
        rows = {
            f"{n}.{kind}": None if kind == "png" else json.dumps(row)
            for n, row in enumerate(said)
            for kind in ("png", "json")
        }
        options = {**self.write(root, dict(list(rows.items())[:4])), "captions": "json"}
        assert cg.load_pairs("webdataset", **options).texts == ("one",)
        assert cg.load_pairs("webdataset", **options, split="validation").texts == ("two", "due")
        with pytest.raises(ValueError, match=r"splits are \['train', 'val'\]"):
            cg.load_pairs("webdataset", **options, split="test")
        options = {**self.write(root, rows), "captions": "json"}
        with pytest.raises(
            ValueError, match=r"a `split` in every sample of .*, but 2 have one and others do not \(shard.tar/2\)"
        ):
            cg.load_pairs("webdataset", **options)

    def test_hidden_members(self, root):
        hidden = {".x/0.png": None, ".x/0.txt": "z", "._0.png": "x", "./0.png": None, "._0.txt": "y"}
        options = self.write(root, {**hidden, "./0.txt": "\ufeffone"})
        assert cg.load_pairs("webdataset", **options).texts == ("one",)
