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
        ([{"image": "a.png", "caption": ["x", "  "]}], "not blank"),
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
