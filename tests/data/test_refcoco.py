"""RefCOCO+ from its released files at tiny size; pickles as Python 2 wrote them, and pickles that want to run code."""

import json
import os
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from crossguard.data import ReferringExpressions, as_pairs, load_expressions, load_pairs
from crossguard.data.refcoco_convert import main
from crossguard.data.refcoco_refs import convert_references, read_references
from crossguard.data.referring import outside
from refcoco_files import BOXES, NAMES, Python2Pickle, released_references, write_refcoco


@pytest.fixture
def files(tmp_path):
    return write_refcoco(tmp_path)


def load(files, **changes):
    return load_expressions("refcoco+", **{"split": "val", **files, **changes})


def change(path, edit):
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("protocol", [0, 2])
def test_a_split_is_what_the_files_say(tmp_path, protocol):
    data = load(write_refcoco(tmp_path, protocol=protocol))
    assert isinstance(data, ReferringExpressions)
    assert (data.name, data.split, len(data)) == ("refcoco+", "val", 4)
    assert data.texts == ("left red disc", "the small one", "man’s dog in the café", "left red disc")
    assert data.keys == ("7", "7.2", "8", "10")
    assert [picture.key for picture in data.images] == [f"train2014/{NAMES[11]}", f"train2014/{NAMES[33]}"]
    assert data.image_of.tolist() == [0, 0, 0, 1]
    assert data.boxes.tolist() == [BOXES[101], BOXES[101], BOXES[102], BOXES[301]]
    assert data.sizes.tolist() == [[30, 40], [20, 20]]  # height, width
    assert data.proposals[0].tolist()[:3] == [[1.5, 2.5, 21.0, 16.0], [9.0, 0.0, 31.3, 29.9], [0, 0, 5, 5]]
    assert len(data.proposals[0]) == 5
    assert data.about(0).tolist() == [0, 1, 2]
    assert data.images[1].load().size == (20, 20)


def test_other_splits_and_the_first_images(files):
    other = load(files, split="testA")
    assert (other.texts, other.keys) == (("big square",), ("9",))
    first = load(files).head(1)
    assert (len(first.images), first.keys) == (1, ("7", "7.2", "8"))
    with pytest.raises(ValueError, match="Unknown split 'tests' of RefCOCO.*known: testA, testB, train, val"):
        load(files, split="tests")
    with pytest.raises(ValueError, match="of split 'testB' in .*refcoco\\+_test.json, but there are none"):
        load(files, split="testB")


class TestReferences:
    @pytest.mark.parametrize("protocol", [0, 2])
    def test_python_2_strings_become_text_in_both_encodings(self, tmp_path, protocol):
        refs = released_references()
        refs[0][b"sentences"][0][b"sent"] = "café".encode("latin-1")
        refs[1][b"sentences"][0][b"sent"] = "café".encode()
        refs[2][b"sentences"][0][b"sent"] = "é" * 300
        (tmp_path / "refs(unc).p").write_bytes(Python2Pickle(protocol).dumps(refs))
        found = read_references(tmp_path / "refs(unc).p")
        assert [reference.sentences[0] for reference in found[:3]] == ["café", "café", "é" * 300]
        assert (found[3].ref_id, found[3].ann_id, found[3].image_id, found[3].split) == (10, 301, 33, "val")

    @pytest.mark.parametrize("protocol", range(6))
    def test_pickles_of_python_3_are_read_too(self, tmp_path, protocol):
        plain = [{"ref_id": 1, "ann_id": 2, "image_id": 3, "split": "val", "sentences": [{"sent": "é"}], "x": 0.5}]
        (tmp_path / "refs.p").write_bytes(pickle.dumps(plain, protocol=protocol))
        assert read_references(tmp_path / "refs.p")[0].sentences == ("é",)

    @pytest.mark.parametrize("protocol", [0, 2, 4])
    def test_nothing_is_run(self, tmp_path, protocol):
        class Evil:
            def __reduce__(self):
                return os.mkdir, (str(tmp_path / "ran"),)

        (tmp_path / "refs.p").write_bytes(pickle.dumps([Evil()], protocol=protocol))
        with pytest.raises(ValueError, match=r"plain values in .*refs\.p .*but it asks for \w+\.mkdir"):
            read_references(tmp_path / "refs.p")
        assert not (tmp_path / "ran").exists()

    @pytest.mark.parametrize("value", [np.ones(3), {1, 2}, 3j, bytearray(b"x"), Image.new("L", (1, 1))])
    def test_other_objects_are_refused(self, tmp_path, value):
        (tmp_path / "refs.p").write_bytes(pickle.dumps([{"ref_id": value}], protocol=2))
        with pytest.raises(ValueError, match="but it asks for"):
            read_references(tmp_path / "refs.p")
        (tmp_path / "refs.p").write_bytes(pickle.dumps([{1, 2}], protocol=4))  # a set without a class
        with pytest.raises(ValueError, match="but it holds a set"):
            read_references(tmp_path / "refs.p")

    def test_references_that_multiply_or_never_end_are_refused(self, tmp_path):
        bomb = ["x"]
        for _ in range(60):
            bomb = [bomb, bomb]  # 2 ** 60 values in a file of a few hundred bytes
        (tmp_path / "refs.p").write_bytes(pickle.dumps(bomb))
        with pytest.raises(ValueError, match="more values than bytes"):
            read_references(tmp_path / "refs.p")
        ring = []
        ring.append(ring)
        (tmp_path / "refs.p").write_bytes(pickle.dumps(ring))
        with pytest.raises(ValueError, match="more values than bytes"):
            read_references(tmp_path / "refs.p")
        (tmp_path / "refs.p").write_bytes(b"\x80\x02" + b"]" * 50000 + b"a" * 49999 + b".")
        with pytest.raises(ValueError, match="nests without end"):
            read_references(tmp_path / "refs.p")

    @given(st.binary(max_size=200), st.integers(0, 400))
    def test_broken_files_give_one_kind_of_error(self, tmp_path_factory, noise, cut):
        path = tmp_path_factory.getbasetemp() / "broken.p"
        path.write_bytes(Python2Pickle(2).dumps(released_references())[:cut] + noise)
        with pytest.raises(ValueError, match="Expected"):
            read_references(path)

    def test_json_form_holds_the_same_and_is_preferred(self, files, tmp_path, capsys):
        boxes = files["boxes"]
        before = load(files)
        assert main([str(boxes / "refs(unc).p"), str(boxes / "refs.json")]) == 0
        assert "4 references written" in capsys.readouterr().out
        assert read_references(boxes / "refs.json") == read_references(boxes / "refs(unc).p")
        (boxes / "refs(unc).p").unlink()
        after = load(files)
        assert (after.texts, after.keys, after.boxes.tolist()) == (before.texts, before.keys, before.boxes.tolist())
        assert main([str(tmp_path / "none.p"), str(tmp_path / "none.json")]) == 2
        assert "none.p" in capsys.readouterr().err
        assert not (tmp_path / "none.json").exists()
        assert convert_references(boxes / "refs.json", boxes / "again.json") == 4

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ([], "a list of references"),
            ([1], "a dict as reference 0"),
            ([{"ref_id": "7"}], "int as `ref_id` of reference 0"),
            ([{"ref_id": 7, "ann_id": 1, "image_id": 1, "split": None}], "str as `split`"),
            ([{"ref_id": 7, "ann_id": 1, "image_id": 1, "split": "val", "sentences": [3]}], "texts as `sentences`"),
        ],
    )
    def test_other_rows_are_named(self, tmp_path, content, message):
        (tmp_path / "refs.json").write_text(json.dumps(content))
        with pytest.raises(ValueError, match=message):
            read_references(tmp_path / "refs.json")


class TestMistakes:
    @pytest.mark.parametrize(
        ("name", "edit", "message"),
        [
            ("instances", lambda c: c["annotations"].pop(0), "referred annotation .* missing: 1: 101"),
            ("instances", lambda c: c["images"].pop(0), "referred image .* missing: 1: 11"),
            ("instances", lambda c: c.pop("images"), "COCO's `images` and `annotations`"),
            ("instances", lambda c: c["annotations"][0].pop("bbox"), "as COCO has them"),
            ("instances", lambda c: c["annotations"][0].update(bbox=[1, 2, 3]), "annotation 101"),
            ("instances", lambda c: c["annotations"][0].update(bbox=["a", 2, 3, 4]), "annotation 101"),
            ("instances", lambda c: c["annotations"][0].update(image_id=22), "annotation is of their image.* 1: 7"),
            (
                "instances",
                lambda c: c["annotations"][0].update(bbox=[30, 3, 20, 15]),
                "inside .* not those of 2: 7, 7.2",
            ),
            ("instances", lambda c: c["annotations"][0].update(bbox=[3, 3, 0, 15]), "not those of 2: 7, 7.2"),
            ("instances", lambda c: c["annotations"][0].update(bbox=[3, 3, float("nan"), 5]), "not those of 2"),
            (
                "instances",
                lambda c: c["images"][0].update(width=41),
                "COCO_train2014_000000000011.jpg is 40 x 30 instead of 41 x 30",
            ),
            ("dets", lambda c: c.pop("11"), "proposals for every image .* none for 1: 11"),
            ("dets", lambda c: c.update({"33": []}), "none for 1: 33"),
            (
                "dets",
                lambda c: c["11"].append([-5, 0, 10, 10]),
                r"proposals inside their images, but not 1: .*11.jpg \[-5",
            ),
            ("dets", lambda c: c["11"].append([1, 2]), r"\[left, top, width, height\] for image 11"),
        ],
    )
    def test_boxes(self, files, name, edit, message):
        change(files["boxes"] / f"{name}.json", edit)
        with pytest.raises(ValueError, match=message):
            load(files)

    @pytest.mark.parametrize(
        ("edit", "message"),
        [
            (lambda c: c[0].update(ref_id=99), "every `ref_id` .* missing: 1: 99"),
            (lambda c: c[1].pop("text"), '"text", "ref_id"} in row 1'),
            (lambda c: c[1].update(text=" "), "row 1 of"),
            (lambda c: c[0].update(image="elsewhere.jpg"), "one path for image 11"),
            (lambda c: [row.update(image="gone.jpg") for row in c if row["ref_id"] == 10], "missing are 1: gone.jpg"),
            (lambda c: c.clear(), "list of rows"),
        ],
    )
    def test_annotations(self, files, edit, message):
        change(files["annotations"], edit)
        with pytest.raises(ValueError, match=message):
            load(files)

    def test_files(self, files):
        (files["root"] / "train2014" / NAMES[33]).write_bytes(b"<html>")
        with pytest.raises(ValueError, match="image file at .*33.jpg"):
            load(files)
        (files["boxes"] / "refs(unc).p").unlink()
        with pytest.raises(ValueError, match="Expected references in"):
            load(files)
        files["annotations"].write_text("<html>")
        with pytest.raises(ValueError, match="Expected a JSON file at"):
            load(files)

    def test_a_box_may_reach_one_pixel_out(self):
        sizes = np.array([[30, 40]] * 4)
        boxes = np.array([[-1.0, -1.0, 42.0, 32.0], [-1.1, 0, 5, 5], [39, 0, 2.1, 5], [0, 0, 5, np.inf]])
        assert outside(boxes, sizes).tolist() == [False, True, True, True]

    def test_photos_that_lie_on_their_side_are_measured_upright(self, files):
        path = files["root"] / "train2014" / NAMES[11]
        exif = Image.Exif()
        exif[274] = 6
        Image.new("RGB", (30, 40)).save(path, exif=exif)
        assert load(files).images[0].load().size == (40, 30)

    def test_lengths_and_indices(self, files, unchecked):
        data = load(files)
        values = {name: getattr(data, name) for name in data.__dataclass_fields__}
        for wrong, message in [
            ({"keys": data.keys[:2]}, "a key for each of 4"),
            ({"sizes": data.sizes[:1]}, "size and proposals of 2 images"),
            ({"image_of": data.image_of + 1}, r"in \[0, 2\), but got 1..2"),
            ({"image_of": data.image_of * 0}, "about every image, but none about 1"),
            ({"texts": ("", *data.texts[1:])}, "not blank, but these are 1: 7"),
            ({"proposals": (data.proposals[0], data.proposals[1][:0])}, "at least one proposal"),
        ]:
            with pytest.raises(ValueError, match=message):
                ReferringExpressions(**{**values, **wrong})
        assert not data.boxes.flags.writeable


def test_expressions_are_pairs_for_training(files):
    expressions = load(files)
    pairs = load_pairs("refcoco+", split="val", **files)
    assert pairs.images == expressions.images
    true = {(i, text.strip()) for i, text in zip(expressions.image_of.tolist(), expressions.texts, strict=True)}
    assert {(i, pairs.texts[j]) for i, j in pairs.links.tolist()} == true
    assert as_pairs(expressions).texts == pairs.texts
    assert set(pairs.text_kinds) == {"expression"}


def test_paths_out_of_the_root_are_asked_for(files):
    inside = files["root"] / "elsewhere"
    inside.mkdir()
    rows = json.loads(files["annotations"].read_text())
    files["annotations"].write_text(json.dumps([{**row, "image": f"../{row['image']}"} for row in rows]))
    with pytest.raises(ValueError, match="these paths lead out of it"):
        load({**files, "root": inside})
    assert len(load({**files, "root": inside}, outside_root=True)) == len(
        load({**files, "annotations": _old(files, rows)})
    )


def _old(files, rows):
    path = files["annotations"].with_name("old.json")
    path.write_text(json.dumps(rows))
    return path
