"""Tar shards: every image is read in place, as webdataset itself would give it, and damage is named."""

import contextlib
import importlib.util
import io
import json
import os
import tarfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from crossguard.data import load_pairs, shards


def encoded(seed):
    file = io.BytesIO()
    noise = np.random.default_rng(seed).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file, "PNG")
    return file.getvalue()


def write(path, members, **options):
    with tarfile.open(path, options.pop("mode", "w"), **options) as shard:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            shard.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CROSSGUARD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def home(tmp_path):
    """Three shards of two samples: long names (two headers), folders, members that nobody asked for."""
    folder = tmp_path / "mine"
    folder.mkdir()
    for number in range(3):
        members = []
        for sample in range(2):
            key = f"{'long/' * 30 if number == 1 else ''}{number}{sample}"
            members += [
                (f"{key}.png", encoded(10 * number + sample)),
                (f"{key}.json", json.dumps({"caption": [f"json {key}", "shared"], "width": 7}).encode()),
                (f"{key}.txt", f"text {number}{sample}\n".encode()),
                (f"{key}.cls", b"3"),
            ]
        write(folder / f"part-{number:03d}.tar", members)
    return folder


def test_every_image_and_text(home):
    pairs = load_pairs("webdataset", shards=f"{home}/part-{{000..002}}.tar")
    assert pairs.texts == ("text 00", "text 01", "text 10", "text 11", "text 20", "text 21")
    for place, picture in enumerate(pairs.images):
        expected = encoded(10 * (place // 2) + place % 2)
        assert picture.read() == expected
        assert np.array_equal(np.asarray(pairs.image(place)), np.asarray(Image.open(io.BytesIO(expected))))
    assert (pairs.name, pairs.split) == ("mine", "train")


def test_as_webdataset_reads_them(home):
    if importlib.util.find_spec("webdataset") is None:
        pytest.skip("webdataset is not installed")
    from webdataset.tariterators import group_by_keys, tar_file_iterator

    paths, theirs = sorted(home.glob("*.tar")), []
    for path in paths:
        with path.open("rb") as shard:
            theirs += group_by_keys({**member, "__url__": path.name} for member in tar_file_iterator(shard))
    pairs = load_pairs("webdataset", shards=paths)
    assert [sample["png"] for sample in theirs] == [picture.read() for picture in pairs.images]
    assert [sample["txt"].decode().strip() for sample in theirs] == list(pairs.texts)
    assert [sample["__key__"] for sample in theirs] == [p.key.split("/", 1)[1] for p in pairs.images]


def test_captions_in_json(home):
    pairs = load_pairs("webdataset", shards=f"{home}/*.tar", captions="json")
    assert len(pairs.images_of(pairs.texts.index("shared"))) == 6
    with pytest.raises(ValueError, match=r"6 with no image path or no caption \(part-000\.tar/00, "):
        load_pairs("webdataset", shards=f"{home}/*.tar", captions="json", field="width")


def test_captions_in_anything_else(home):
    with pytest.raises(ValueError, match="to end in txt, text or json, but got 'yaml'"):
        load_pairs("webdataset", shards=f"{home}/*.tar", captions="yaml")


def test_the_index_is_kept_until_a_shard_changes(home, cache, monkeypatch):
    def scan(path, **_):
        raise AssertionError(f"{path.name} read again")

    first = load_pairs("webdataset", shards=f"{home}/*.tar")
    with monkeypatch.context() as patch:
        patch.setattr(shards, "_scan", scan)
        assert load_pairs("webdataset", shards=f"{home}/*.tar").images == first.images
        write(home / "part-001.tar", [("x.png", encoded(5)), ("x.txt", b"new")])
        with pytest.raises(AssertionError, match="part-001"):
            load_pairs("webdataset", shards=f"{home}/*.tar")
    assert "new" in load_pairs("webdataset", shards=f"{home}/*.tar").texts
    for file in (cache / "shards").iterdir():
        file.write_text("{")
    assert "new" in load_pairs("webdataset", shards=f"{home}/*.tar").texts


def test_a_cut_off_shard(home):
    path = home / "part-002.tar"
    content = path.read_bytes()
    path.write_bytes(content[:700])
    with pytest.raises(ValueError, match=r"1 with an early end \(it ends inside 20\.png\) \(part-002\.tar\)"):
        load_pairs("webdataset", shards=f"{home}/*.tar")
    pairs = load_pairs("webdataset", shards=f"{home}/*.tar", skip_bad=True)
    assert len(pairs.images) == 4
    assert "early end" in pairs.notes[0]


def test_bad_samples(home):
    write(home / "part-001.tar", [("a.txt", b"no image"), ("b.png", encoded(0)), ("c.png", b"<html>"), ("c.txt", b"c")])
    with pytest.raises(ValueError, match=r"2 with no image path or no caption \(part-001\.tar/a, part-001\.tar/b\)"):
        load_pairs("webdataset", shards=f"{home}/*.tar")
    pairs = load_pairs("webdataset", shards=f"{home}/*.tar", skip_bad=True)
    assert len(pairs.images) == 4
    assert pairs.notes[0].startswith("4 of 7 rows")
    assert "1 whose image does not decode (part-001.tar/c (no known image format" in pairs.notes[0]


@pytest.mark.parametrize("damage", ["gzip", "html", "nothing"])
def test_what_is_no_plain_tar(home, damage):
    path = home / "part-000.tar"
    if damage == "gzip":
        write(path, [("a.txt", b"x")], mode="w:gz")
    else:
        path.write_bytes(b"<html>" if damage == "html" else b"")
    with pytest.raises(ValueError, match=r"uncompressed tar at .*part-000"):
        load_pairs("webdataset", shards=path)


def test_missing_shards(home):
    with pytest.raises(ValueError, match=r"4 of 7 are missing: .*part-003\.tar"):
        load_pairs("webdataset", shards=f"{home}/part-{{000..006}}.tar")
    with pytest.raises(ValueError, match=r"1 of 4 are missing: .*none-\*\.tar"):
        load_pairs("webdataset", shards=[f"{home}/*.tar", f"{home}/none-*.tar"])
    with pytest.raises(ValueError, match="none are named"):
        load_pairs("webdataset", shards=[])


def test_shards_of_the_same_name_in_different_folders(tmp_path):
    paths = [tmp_path / "all" / folder / "00000.tar" for folder in ("a", "b")]
    for number, path in enumerate(paths):
        path.parent.mkdir(parents=True)
        write(path, [("0.png", encoded(number)), ("0.txt", f"text {number}".encode())])
    pairs = load_pairs("webdataset", shards=paths)
    assert [picture.key for picture in pairs.images] == ["a/00000.tar/0", "b/00000.tar/0"]
    assert [picture.read() for picture in pairs.images] == [encoded(0), encoded(1)]
    assert [pairs.texts[j] for i in range(2) for j in pairs.texts_of(i)] == ["text 0", "text 1"]
    assert pairs.name == "all"


def test_braces():
    names = [str(path) for path in shards.expand_braces("{a,b}/x-{098..101}.tar")]
    assert names == [f"{folder}/x-{number}.tar" for folder in "ab" for number in ("098", "099", "100", "101")]
    assert [str(path) for path in shards.expand_braces("plain.tar")] == ["plain.tar"]


def test_dotted_names(tmp_path):
    path = tmp_path / "a.tar"
    write(path, [("s1.input.jpg", encoded(1)), ("s1.txt", b"one"), ("s2.input.JPG", encoded(2)), ("s2.txt", b"two")])
    pairs = load_pairs("webdataset", shards=path)
    assert [picture.read() for picture in pairs.images] == [encoded(1), encoded(2)]
    write(path, [("s1.input.jpg", encoded(1)), ("s1.mask.png", encoded(3)), ("s1.txt", b"one")])
    with pytest.raises(ValueError, match=r"several images under one key \(choose with image=\) \(a\.tar/s1\)"):
        load_pairs("webdataset", shards=path)
    pairs = load_pairs("webdataset", shards=path, image="input.jpg")
    assert [picture.read() for picture in pairs.images] == [encoded(1)]
    members = [
        (f"photo.{n}.{kind}", encoded(n) if kind == "jpg" else f"text {n}".encode())
        for n in range(3)
        for kind in ("jpg", "txt")
    ]
    write(path, members)
    pairs = load_pairs("webdataset", shards=path)
    assert [picture.key for picture in pairs.images] == [f"a.tar/photo.{n}" for n in range(3)]
    assert [picture.read() for picture in pairs.images] == [encoded(n) for n in range(3)]
    assert pairs.texts == ("text 0", "text 1", "text 2")


def test_keys_that_come_again(tmp_path):
    path = write(
        tmp_path / "a.tar",
        [
            ("x.png", encoded(1)),
            ("x.txt", b"one"),
            ("y.png", encoded(2)),
            ("y.txt", b"two"),
            ("x.png", encoded(3)),
            ("x.txt", b"three"),
        ],
    )
    with pytest.raises(ValueError, match=r"2 with a key that comes again in its shard \(a\.tar/x, a\.tar/x\)"):
        load_pairs("webdataset", shards=path)
    pairs = load_pairs("webdataset", shards=path, skip_bad=True)
    assert pairs.texts == ("two",)
    assert pairs.notes[0].startswith("1 of 3 rows")


def test_the_split_that_names_tell(tmp_path):
    (tmp_path / "val").mkdir()
    members = [("x.png", encoded(1)), ("x.txt", b"one")]
    for path, split in ((tmp_path / "test-000.tar", "test"), (tmp_path / "val" / "0.tar", "val")):
        write(path, members)
        assert load_pairs("webdataset", shards=path).split == split
        with pytest.raises(ValueError, match=f"says '{split}'"):
            load_pairs("webdataset", shards=path, split="train")


NAMES = st.text(
    st.characters(codec="utf-8", exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=120
).filter(lambda name: name.strip(".") == name)


@given(
    st.lists(st.tuples(NAMES, NAMES, st.binary(max_size=1500)), max_size=5),
    st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
)
def test_members_are_those_of_the_standard_library(tmp_path_factory, members, form):
    path = tmp_path_factory.getbasetemp() / "members.tar"
    try:
        write(path, [(f"{folder}/{name}", content) for folder, name, content in members], format=form)
    except ValueError:
        return  # ustar has no place for a name as long as this
    with tarfile.open(path) as shard:
        expected = [(member.name, shard.extractfile(member).read()) for member in shard if member.isfile()]
    handle = os.open(path, os.O_RDONLY)
    try:
        found = [
            (m.name, os.pread(handle, m.size, m.offset)) for m in shards.read_members(shards.ReadAhead(handle), path)
        ]
    finally:
        os.close(handle)
    assert found == expected


@given(st.binary(max_size=300), st.lists(st.tuples(st.integers(0, 310), st.integers(0, 40)), max_size=20))
def test_reading_ahead_gives_the_bytes_of_the_file(tmp_path_factory, content, asked):
    path = tmp_path_factory.getbasetemp() / "ahead.bin"
    path.write_bytes(content)
    handle = os.open(path, os.O_RDONLY)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(shards, "_LEAST_AHEAD", 4)
            patch.setattr(shards, "_MOST_AHEAD", 64)
            ahead = shards.ReadAhead(handle)
            for at, size in asked:
                assert ahead.read(at, size) == content[at : at + size]
    finally:
        os.close(handle)


@given(st.integers(0, 4000), st.integers(0, 255))
def test_a_wrong_byte_ends_in_no_traceback(tmp_path_factory, place, value):
    path = tmp_path_factory.getbasetemp() / "damaged.tar"
    write(path, [("a.png", encoded(1)), ("a.txt", b"one"), ("b" * 200 + ".png", encoded(2))], format=tarfile.GNU_FORMAT)
    content = bytearray(path.read_bytes())
    content[place] = value
    path.write_bytes(content)
    handle = os.open(path, os.O_RDONLY)
    try:
        with contextlib.suppress(ValueError, EOFError):
            list(shards.read_members(shards.ReadAhead(handle), path))
    finally:
        os.close(handle)
