"""Whatever people hold pictures and texts in gives the same pairs; what cannot be read is named."""

import contextlib
import io

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset

import crossguard as cg
from crossguard.data import Reading

RNG = np.random.default_rng(0)
ARRAYS = [RNG.integers(0, 256, (6, 8, 3), dtype=np.uint8) for _ in range(3)]
PICTURES = [Image.fromarray(array) for array in ARRAYS]
TEXTS = [["a red thing", "one"], ["a thing", "two"], ["three"]]
WANTED = {(0, "a red thing"), (0, "one"), (1, "a thing"), (1, "two"), (2, "three")}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CROSSGUARD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    for number, picture in enumerate(PICTURES):
        picture.save(folder / f"{number}.png")
    return [folder / f"{number}.png" for number in range(3)]


def png(picture):
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def linked(pairs):
    """Every link as (which of our pictures it shows, text)."""
    shown = [
        next(n for n, array in enumerate(ARRAYS) if np.array_equal(array, np.asarray(pairs.image(i))))
        for i in range(len(pairs.images))
    ]
    return {(shown[i], pairs.texts[j]) for i, j in pairs.links.tolist()}


def flat(pictures):
    """Rows of one text each."""
    return [(picture, text) for picture, texts in zip(pictures, TEXTS, strict=True) for text in texts]


class Own(Dataset):
    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, place):
        return self.rows[place]


class Stream(IterableDataset):
    def __init__(self, rows):
        self.rows = rows

    def __iter__(self):
        return iter(self.rows)


def as_they_are(rows):
    return rows


def tables(pictures):
    """The same rows in everything that people hold them in."""
    rows = flat(pictures)
    images, texts = map(list, zip(*rows, strict=True))
    yield "list of rows", rows
    yield "list of lists of texts", list(zip(pictures, TEXTS, strict=True))
    yield "tuple of two lists", (images, texts)
    yield "list of two lists", [images, texts]
    yield "dict", {"image": images, "caption": texts}
    yield "dicts", [{"image": picture, "text": text} for picture, text in rows]
    yield "data set", Own(rows)
    yield "data set of dicts", Own([{"img": p, "captions": t} for p, t in zip(pictures, TEXTS, strict=True)])
    yield "stream", Stream(rows)
    yield "generator", iter(rows)
    yield "loader", DataLoader(Own(rows), batch_size=2, collate_fn=as_they_are)


TENSORS = [torch.from_numpy(array).permute(2, 0, 1) for array in ARRAYS]
FORMS = {
    "PIL": PICTURES,
    "bytes": [png(picture) for picture in PICTURES],
    "open files": None,
    "arrays": ARRAYS,
    "arrays, channels first": [array.transpose(2, 0, 1) for array in ARRAYS],
    "floating point": [array / np.float32(255) for array in ARRAYS],
    "doubles": [array / 255 for array in ARRAYS],
    "tensors": TENSORS,
    "float tensors": [tensor / 255 for tensor in TENSORS],
    "Hugging Face's dicts": [{"bytes": png(picture), "path": "x.png"} for picture in PICTURES],
}


@pytest.mark.parametrize("form", ["PIL", "bytes", "arrays", "paths", "strings"])
@pytest.mark.parametrize("place", range(11))
def test_every_holder(form, place, files):
    pictures = {"paths": files, "strings": [str(file) for file in files]}.get(form) or FORMS[form]
    name, obj = list(tables(pictures))[place]
    pairs = cg.as_pairs(obj)
    assert linked(pairs) == WANTED, name
    assert (len(pairs.images), pairs.notes) == (3, ())


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_picture(form):
    pictures = FORMS[form] or [io.BytesIO(png(picture)) for picture in PICTURES]
    rows = list(zip(pictures, TEXTS, strict=True))
    assert linked(cg.as_pairs(rows)) == WANTED


@pytest.mark.parametrize("size", [1, 2, 5])
def test_batches_of_a_loader(size):
    rows = [(tensor, text) for tensor, texts in zip(TENSORS, TEXTS, strict=True) for text in texts]
    assert linked(cg.as_pairs(DataLoader(Own(rows), batch_size=size))) == WANTED
    named = [{"image": tensor, "caption": text, "number": n} for n, (tensor, text) in enumerate(rows)]
    assert linked(cg.as_pairs(DataLoader(Own(named), batch_size=size))) == WANTED


def test_several_texts_in_batches():
    """PyTorch's own collation puts the first texts of all rows together."""
    rows = [(tensor, (f"a {n}", f"b {n}")) for n, tensor in enumerate(TENSORS)]
    wanted = {(n, f"{letter} {n}") for n in range(3) for letter in "ab"}
    assert linked(cg.as_pairs(DataLoader(Own(rows), batch_size=3))) == wanted
    with pytest.raises(ValueError, match="got 2 pictures and 2 lists of 2 texts"):
        cg.as_pairs(DataLoader(Own(rows), batch_size=2))


def test_pandas(files):
    pandas = pytest.importorskip("pandas")
    for pictures in (PICTURES, FORMS["bytes"], [str(file) for file in files]):
        frame = pandas.DataFrame(flat(pictures), columns=["image", "caption"])
        assert linked(cg.as_pairs(frame)) == WANTED
        assert linked(cg.as_pairs(frame.rename(columns={"image": "a", "caption": "b"}), image="a", text="b")) == WANTED
    frame.loc[1, "caption"] = float("nan")
    with pytest.raises(ValueError, match=r"1 with no image path or no caption \(row 1\)"):
        cg.as_pairs(frame)
    with pytest.raises(ValueError, match="Expected a column 'said', but got 'image', 'words'"):
        cg.as_pairs(frame.rename(columns={"caption": "words"}), text="said")


class TestHuggingFace:
    @pytest.fixture
    def datasets(self):
        return pytest.importorskip("datasets")

    def test_pictures_and_texts(self, datasets, files):
        features = datasets.Features({"image": datasets.Image(), "caption": datasets.List(datasets.Value("string"))})
        for pictures in (PICTURES, [str(file) for file in files]):
            made = datasets.Dataset.from_dict({"image": pictures, "caption": TEXTS}, features=features)
            for form in (made, made.with_format("torch"), made.to_iterable_dataset()):
                assert linked(cg.as_pairs(form)) == WANTED
        with pytest.raises(ValueError, match="one split of the data set"):
            cg.as_pairs(datasets.DatasetDict({"train": made}))

    def test_classes(self, datasets):
        features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
        made = datasets.Dataset.from_dict({"image": PICTURES, "label": [1, 0, 1]}, features=features)
        images = cg.as_images(made)
        assert (images.labels.tolist(), images.classes) == ([1, 0, 1], ("cat", "dog"))

    def test_bytes_are_kept_as_they_are(self, datasets):
        features = datasets.Features({"image": datasets.Image(), "caption": datasets.Value("string")})
        made = datasets.Dataset.from_dict(
            {"image": [{"bytes": FORMS["bytes"][0], "path": None}], "caption": ["x"]}, features=features
        )
        assert cg.as_pairs(made).images[0].read() == FORMS["bytes"][0]


def test_rows_of_one_id_have_one_picture():
    rows = [{"image": PICTURES[n], "caption": f"text {n}", "id": n // 2} for n in range(3)]
    pairs = cg.as_pairs(rows, id="id")
    assert linked(pairs) == {(0, "text 0"), (0, "text 1"), (2, "text 2")}
    with pytest.raises(ValueError, match="Expected a column 'number'"):
        cg.as_pairs(rows, id="number")
    with pytest.raises(ValueError, match="rows with names, so that one is the id 'id'"):
        cg.as_pairs(flat(PICTURES), id="id")


def test_rows_that_tell_their_split():
    rows = [
        {"image": PICTURES[n], "caption": f"text {n}", "split": part}
        for n, part in enumerate(("train", "validation", "train"))
    ]
    for obj in (rows, {key: [row[key] for row in rows] for key in rows[0]}):
        with pytest.raises(ValueError, match=r"rows of one split, but got \['train', 'val'\]: choose one with split="):
            cg.as_pairs(obj)
        pairs = cg.as_pairs(obj, split="val")
        assert (pairs.texts, pairs.split) == (("text 1",), "val")
        assert pairs.notes[0].startswith("1 of 3 rows")
        with pytest.raises(ValueError, match=r"rows of split 'test' in .*splits are \['train', 'validation'\]"):
            cg.as_pairs(obj, split="test")
    assert cg.as_pairs(rows[:1]).split == "train"
    labelled = [{"image": row["image"], "label": 0, "split": row["split"]} for row in rows]
    assert len(cg.as_images(labelled, split="train")) == 2


def test_the_same_pictures_have_the_same_file(cache):
    first, again, other = (cg.as_pairs(rows) for rows in (flat(PICTURES), flat(PICTURES), flat(PICTURES[::-1])))
    assert first.images == again.images
    assert {picture.path for picture in first.images} != {picture.path for picture in other.images}
    assert len(list((cache / "pictures").iterdir())) == 2
    assert {picture.key for picture in first.images} == {picture.key for picture in other.images}


def test_nothing_is_left_of_what_fails(cache):
    def rows():
        yield PICTURES[0], "one"
        raise KeyError("broken off")

    with pytest.raises(KeyError):
        cg.as_pairs(rows())
    assert list((cache / "pictures").iterdir()) == []


def test_pairs_and_paths_need_no_cache(monkeypatch, tmp_path, files):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CROSSGUARD_CACHE", str(tmp_path / "file"))
    pairs = cg.as_pairs(flat(files))
    assert linked(pairs) == WANTED
    assert cg.as_pairs(pairs) is pairs
    with pytest.raises(OSError, match="set CROSSGUARD_CACHE to a folder that can be written"):
        cg.as_pairs(flat(PICTURES))


def test_paths_below_a_root(files, tmp_path, monkeypatch):
    rows = [(file.name, text) for file, text in zip(files, TEXTS, strict=True)]
    assert linked(cg.as_pairs(rows, root=files[0].parent)) == WANTED
    monkeypatch.chdir(files[0].parent)
    assert linked(cg.as_pairs(rows)) == WANTED
    with pytest.raises(ValueError, match="3 are missing: 0.png"):
        cg.as_pairs(rows, root=tmp_path)
    with pytest.raises(ValueError, match="3 paths lead out of it"):
        cg.as_pairs([(file, "x") for file in files], root=tmp_path)
    with pytest.raises(ValueError, match="an address of the web, which is not fetched"):
        cg.as_pairs([("https://example.org/a.jpg", "x")])


BAD = {
    "of shape \\[2, 3, 4, 3\\]": np.zeros((2, 3, 4, 3), np.uint8),
    "of shape \\[5, 5, 5\\] instead of": np.zeros((5, 5, 5), np.uint8),
    "floating point in \\[-1, 0\\] instead of \\[0, 1\\]": np.array([[-1.0, 0.0]]),
    "floating point in \\[nan": np.array([[np.nan, 0.0]]),
    "of int64 instead of uint8": np.zeros((4, 4), np.int64),
    "no known image format": b"<html>",
    "of shape \\[0, 4\\], which is empty": np.zeros((0, 4), np.uint8),
    "but it is a int": 7,
    "but it is a NoneType": None,
    "without a path": "",
}


@pytest.mark.parametrize("said", BAD)
def test_what_is_no_picture_is_named(said):
    rows = [(PICTURES[0], "one"), (BAD[said], "two")]
    with pytest.raises(ValueError, match=rf"1 with a picture .*{said}.*\(row 1\)"):
        cg.as_pairs(rows)
    pairs = cg.as_pairs(rows, reading=Reading(skip_bad=True))
    assert pairs.texts == ("one",)
    assert pairs.notes[0].startswith("1 of 2 rows")


@pytest.mark.parametrize(
    "obj", [7, None, "pairs.csv", b"x", [7], [("only one",)], {"image": PICTURES}, np.zeros((4, 2)), {}, object()]
)
def test_what_is_no_data_set_is_named(obj):
    with pytest.raises(ValueError, match="Expected"):
        cg.as_pairs(obj)


def test_lists_of_other_lengths():
    with pytest.raises(ValueError, match="as many pictures as texts, but got 3 and 2"):
        cg.as_pairs((PICTURES, ["a", "b"]))


@pytest.mark.parametrize(
    "obj",
    [
        [["a.jpg", "b.jpg"], ["a cat", "a dog"]],
        [["a.jpg", "a cat"], ["b.jpg", "a dog"]],
        (["a.jpg", "b.jpg"], ["a cat", "a dog"]),
        [("a.jpg", "a cat"), ("b.jpg", "a dog")],
    ],
)
def test_two_rows_and_two_lists_of_two(obj, tmp_path):
    for name in ("a.jpg", "b.jpg"):
        PICTURES[0].save(tmp_path / name)
    pairs = cg.as_pairs(obj, root=tmp_path)
    assert [(p.key, pairs.texts[int(pairs.texts_of(i)[0])]) for i, p in enumerate(pairs.images)] == [
        ("a.jpg", "a cat"),
        ("b.jpg", "a dog"),
    ]


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=5)
    | st.just(PICTURES[0])
    | st.just(ARRAYS[0]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.sampled_from(["image", "caption", "x"]), inner)
    ),
    max_leaves=10,
)


@given(VALUES)
def test_anything_gives_pairs_or_a_sentence(tmp_path_factory, obj):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CROSSGUARD_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        with contextlib.suppress(ValueError):
            cg.as_pairs(obj)
        with contextlib.suppress(ValueError):
            cg.as_images(obj)
        with contextlib.suppress(ValueError):
            cg.as_samples(obj, [0, 1])


def test_they_train_and_evaluate(tiny_clip):
    rows = [(Image.new("RGB", (16, 16), colour), f"a {colour} square") for colour in ("red", "green", "blue", "yellow")]
    pairs = cg.as_pairs(rows)
    assert cg.evaluate(tiny_clip, rows).clean == cg.evaluate(tiny_clip, pairs).clean
    assert cg.evaluate(tiny_clip, rows).clean == cg.evaluate(tiny_clip, rows, task="retrieval").clean
    trained, again = (
        cg.train(tiny_clip, given, defence="clean", steps=1, batch_size=2).state_dict() for given in (rows, pairs)
    )
    assert all(torch.equal(trained[name], again[name]) for name in trained)
    with pytest.raises(ValueError, match="Expected a list of"):
        cg.evaluate(tiny_clip, 7)


class TestImages:
    def test_names_and_numbers(self, files):
        images = cg.as_images((PICTURES, ["dog", "cat", "dog"]), templates=["a {c}.", "one {c}"])
        assert (images.labels.tolist(), images.classes) == ([1, 0, 1], ("cat", "dog"))
        assert images.prompts("cat") == ("a cat.", "one cat")
        assert np.array_equal(np.asarray(images.image(2)), ARRAYS[2])
        numbers = cg.as_images(list(zip(files, np.array([10, 2, 10]), strict=True)))
        assert (numbers.labels.tolist(), numbers.classes) == ([1, 0, 1], ("2", "10"))
        named = cg.as_images((PICTURES, torch.tensor([2, 0, 2])), classes=["a", "b", "c"])
        assert named.labels.tolist() == [2, 0, 2]
        assert named.notes == ("1 of 3 classes have no picture: b",)
        assert cg.as_images(named) is named

    def test_names_that_two_classes_share(self):
        images = cg.as_images((PICTURES, [0, 1, 1]), classes=["crane", "crane"])
        assert images.labels.tolist() == [0, 1, 1]
        with pytest.raises(ValueError, match="of 2 classes, but it is 'crane'"):
            cg.as_images((PICTURES, ["crane"] * 3), classes=["crane", "crane"])

    def test_equal_pictures_stay_samples_of_their_own(self):
        images = cg.as_images(([PICTURES[0]] * 3, ["a", "a", "b"]))
        assert (len(images), images.labels.tolist()) == (3, [0, 0, 1])

    def test_a_data_set_with_classes(self):
        class Named(Own):
            classes = ("cat", "dog")

        rows = list(zip(TENSORS, [1, 0, 1], strict=True))
        for obj in (Named(rows), DataLoader(Named(rows), batch_size=2)):
            images = cg.as_images(obj)
            assert (images.labels.tolist(), images.classes) == ([1, 0, 1], ("cat", "dog"))

    def test_selections(self):
        images = cg.as_images((PICTURES, ["a", "b", "c"]))
        assert images.select([2, 0]).labels.tolist() == [2, 0]
        assert (images.head(2).labels.tolist(), images.spread(2).labels.tolist()) == ([0, 1], [0, 2])

    @pytest.mark.parametrize(
        ("labels", "options", "said"),
        [
            ([0, 1, 2], {"classes": ["a", "b"]}, r"of 2 classes, but it is 2 \(row 2\)"),
            ([0, 1.5, 2], {}, "whole number or a text, but it is '1.5'"),
            ([0, None, 2], {}, "but it is 'None'"),
            ([0, True, 2], {}, "but it is 'True'"),
            ([0, "x", 2], {}, "all whole numbers or all names, but got both"),
            (["a", " ", "b"], {"classes": ["a", " ", "b"]}, r"names of classes, but those of 1 are blank"),
            ([0, 1, 2], {"templates": ["a photo"]}, r"with \{c\} or \{\} in the place of a class name"),
        ],
    )
    def test_refused(self, labels, options, said):
        with pytest.raises(ValueError, match=said):
            cg.as_images((PICTURES, labels), **options)


class TestSamples:
    def test_arrays_and_tensors(self):
        samples = cg.as_samples(
            {
                "audio": torch.ones(3, 5, dtype=torch.bfloat16),
                "video": np.full((3, 4, 2), 60000, np.float16),
                "depth": np.zeros((3, 1, 4, 4), np.uint8),
            },
            np.array([0, 2, 1], np.int32),
            groups=["ann", "bob", "ann"],
        )
        assert {name: (values.shape, values.dtype.name) for name, values in samples.modalities.items()} == {
            "audio": ((3, 5, 1), "float32"),
            "video": ((3, 4, 2), "float32"),
            "depth": ((3, 1, 4, 4), "float32"),
        }
        assert np.isfinite(samples.modalities["video"].std())
        assert (samples.labels.dtype, samples.classes, samples.groups.tolist()) == (
            np.int64,
            ("0", "1", "2"),
            [0, 1, 0],
        )
        assert samples.notes == ()
        assert cg.as_samples(samples) is samples

    def test_without_groups(self):
        samples = cg.as_samples({"a": np.zeros((3, 2))}, ["x", "y", "x"])
        assert samples.groups.tolist() == [0, 1, 2]
        assert "no groups" in samples.notes[0]
        assert samples.head(2).notes == samples.notes

    @pytest.mark.parametrize(
        ("modalities", "labels", "said"),
        [
            ([np.zeros((2, 2))], [0, 1], "arrays by name and labels, but got a list"),
            ({"a": np.zeros((2, 2))}, None, "without labels"),
            ({"a": np.zeros(2)}, [0, 1], r"numbers \[samples, elements, ...\], but got float64 \[2\]"),
            ({"a": np.array([["x", "y"], ["x", "y"]])}, [0, 1], "modality 'a' to be numbers"),
            ({"a": [[1], [1, 2]]}, [0, 1], "to be one array"),
            ({"a": np.zeros((2, 2))}, [0.5, 1.0], "whole numbers as labels, but got float64"),
            ({"a": np.zeros((2, 2))}, [0, -2], "labels in"),
            ({"a": np.zeros((2, 2))}, [0, 1, 2], "Expected 3 samples .as labels., but got {'a': 2}"),
        ],
    )
    def test_refused(self, modalities, labels, said):
        with pytest.raises(ValueError, match=said):
            cg.as_samples(modalities, labels)


def test_more_forms_of_tables(files):
    """Arrow's tables, texts by the name of their picture, columns in capitals or there twice."""
    pandas, arrow = pytest.importorskip("pandas"), pytest.importorskip("pyarrow")
    names = [str(file) for file in files]
    table = arrow.table({"image": names, "caption": TEXTS})
    assert linked(cg.as_pairs(table)) == WANTED
    assert linked(cg.as_pairs(dict(zip(names, TEXTS, strict=True)))) == WANTED
    frame = pandas.DataFrame({"image": names, "caption": ["x", "y", "z"], "Split": ["train", "test", "test"]})
    assert cg.as_pairs(frame, split="test").texts == ("y", "z")
    with pytest.raises(ValueError, match="Expected one column 'caption', but got 2"):
        cg.as_pairs(pandas.DataFrame([[names[0], "x", "y"]], columns=["image", "caption", "caption"]))
    with pytest.raises(ValueError, match=r"Expected one column 'split', but got 'Split', 'split'"):
        cg.as_pairs(frame.assign(split="test"))


def test_a_label_below_zero_is_no_class(files):
    with pytest.raises(ValueError, match="a picture or label of a class, but it is -1"):
        cg.as_images((files[:2], [-1, 0]))


def test_two_lists_of_two_paths(files):
    assert linked(cg.as_pairs((files[:2], ["x", "y"]))) == {(0, "x"), (1, "y")}
    assert cg.as_images((files[:2], ["cat", "dog"])).labels.tolist() == [0, 1]


def test_root_in_the_home_folder(files, monkeypatch):
    monkeypatch.setenv("HOME", str(files[0].parent.parent))
    assert linked(cg.as_pairs([("0.png", "one")], root=f"~/{files[0].parent.name}")) == {(0, "one")}


class TestMoreHolders:
    """What else people hold rows in, and what stands in for pictures."""

    ROWS = (("0.png", "one"), ("1.png", "two"))
    LINKS = frozenset({("0.png", "one"), ("1.png", "two")})

    def read(self, obj, files, **options):
        pairs = cg.as_pairs(obj, root=files[0].parent, **options)
        return {(pairs.images[i].key, pairs.texts[j]) for i, j in pairs.links.tolist()}

    def test_objects(self, files):
        class Old:
            """Rows by number alone, as Python's first protocol of iteration has it."""

            def __getitem__(self, place):
                return TestMoreHolders.ROWS[place]

        loader = DataLoader(Own(self.ROWS), batch_size=None)
        assert self.read(Old(), files) == self.read(loader, files) == self.LINKS
        assert self.read({"train": self.ROWS[:1], "val": Own(self.ROWS)}, files, split="validation") == self.LINKS
        for obj in (Old, list, np.array(self.ROWS)):
            with pytest.raises(ValueError, match="Expected a list of"):
                cg.as_pairs(obj)

    def test_pandas(self, files):
        pandas = pytest.importorskip("pandas")
        frame = pandas.DataFrame(self.ROWS, columns=["image", "caption"])
        for obj in (frame.itertuples(), frame.to_dict(), frame.to_dict("index"), (frame.image, frame.caption)):
            assert self.read(obj, files) == self.LINKS
        assert self.read(frame[1:], files) == {("1.png", "two")}
        with pytest.raises(ValueError, match="Expected a list of"):
            cg.as_pairs(frame.groupby("image"))

    def test_hugging_face(self, files):
        datasets = pytest.importorskip("datasets")
        made = datasets.Dataset.from_list([dict(zip(("image", "caption"), row, strict=True)) for row in self.ROWS])
        both = datasets.DatasetDict({"train": made.select([0]), "validation": made})
        assert self.read(both, files, split="val") == self.LINKS
        with pytest.raises(ValueError, match=r"one split 'test' of the data set, but got all of \['train', 'valid"):
            cg.as_pairs(both, split="test")
        named = datasets.Dataset.from_list(list(made), split="validation[:50%]")
        assert cg.as_pairs(named, root=files[0].parent).split == "val"
        changed = made.with_transform(lambda batch: {"image": batch["image"], "caption": ["new"] * len(batch["image"])})
        assert self.read(changed, files) == {("0.png", "new"), ("1.png", "new")}

    @pytest.mark.parametrize(
        ("given", "said"),
        [
            (torch.zeros(4, 4).to_sparse(), "that is no plain array"),
            (np.ma.masked_array(ARRAYS[0], mask=ARRAYS[0] > 9), "with a mask"),
            (io.StringIO("x"), "in a file that gives str"),
        ],
    )
    def test_no_pictures(self, given, said):
        with pytest.raises(ValueError, match=f"1 with a picture {said}"):
            cg.as_pairs([(given, "one")])
