"""Tables of captions: the field's own files are read without options, and broken lines are named."""

import csv
import io
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from crossguard.data import load_pairs


@pytest.fixture
def folder(tmp_path):
    for name in ("a.jpg", "b.jpg"):
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    return tmp_path


def load(folder, text, *, name="captions.txt", **options):
    (folder / name).write_text(text, encoding="utf-8")
    return load_pairs("csv", captions=folder / name, root=folder, **options)


def linked(pairs):
    return {(pairs.images[i].key, pairs.texts[j]) for i, j in pairs.links}


WANTED = {("a.jpg", 'A dog , "wet" .'), ("a.jpg", "A cat ; or | so"), ("b.jpg", "A cat ; or | so")}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "captions.txt",
            'image,caption\na.jpg,"A dog , ""wet"" ."\na.jpg,A cat ; or | so\nb.jpg,A cat ; or | so\n',
        ),
        (
            "results.csv",
            'image_name| comment_number| comment\na.jpg| 0| A dog , "wet" .\na.jpg| 1| A cat ; or | so\n'
            "b.jpg| 0| A cat ; or | so\n",
        ),
        (
            "results.token",
            'a.jpg#0\tA dog , "wet" .\na.jpg#1\tA cat ; or | so\nb.jpg#0\tA cat ; or | so\n',
        ),
        (
            "mine.tsv",
            'caption\tFilePath\tscore\nA dog , "wet" .\ta.jpg\t1\nA cat ; or | so\ta.jpg\t2\n\n'
            "A cat ; or | so\tb.jpg\t3",
        ),
        ("semicolon.csv", 'image;caption\r\na.jpg;A dog , "wet" .\r\na.jpg;A cat ; or | so\r\nb.jpg;A cat ; or | so'),
    ],
)
def test_the_fields_own_tables(folder, name, text):
    assert linked(load(folder, text, name=name)) == WANTED
    assert linked(load(folder, "\ufeff" + text, name=name)) == WANTED


def test_unquoted_commas_in_the_last_column(folder):
    assert load(folder, "image,caption\na.jpg,A dog, wet, runs\n").texts == ("A dog, wet, runs",)


def test_named_columns_and_delimiter(folder):
    text = "id,url,words\n1,a.jpg,one\n2,b.jpg,two\n"
    assert load(folder, text, image_column="url", caption_column="Words").texts == ("one", "two")
    with pytest.raises(ValueError, match="caption_column="):
        load(folder, text, image_column="url")
    with pytest.raises(ValueError, match="did you mean 'url'"):
        load(folder, text, image_column="urll")
    assert load(folder, "image/caption\na.jpg/x\n", delimiter="/").texts == ("x",)


def test_only_the_listed_images(folder):
    (folder / "split.txt").write_text("b.jpg\n\n")
    text = "image,caption\na.jpg,one\nb.jpg,two\ngone.jpg,three\n"
    assert linked(load(folder, text, only=folder / "split.txt")) == {("b.jpg", "two")}
    (folder / "split.txt").write_text("b.jpg\nc.jpg\n")
    with pytest.raises(ValueError, match=r"1 with no caption, although .*split\.txt lists it \(c\.jpg\)"):
        load(folder, text, only=folder / "split.txt")
    (folder / "split.txt").write_text("\n")
    with pytest.raises(ValueError, match="it is empty"):
        load(folder, text, only=folder / "split.txt")


def test_bad_lines_are_named_and_left_out(folder):
    # The second line lacks its delimiter, as one line of Flickr30k's results.csv does.
    text = "image_name| comment_number| comment\na.jpg| 0| one\na.jpg| 4   two\nb.jpg| 0|  \ngone.jpg| 0| three\n"
    with pytest.raises(ValueError, match=r"no image path or no caption \(line 3\), 1 with a caption that is blank .*"
                       r"\(line 4\); .* 1 are missing: gone\.jpg"):  # fmt: skip
        load(folder, text)
    pairs = load(folder, text, skip_bad=True)
    assert linked(pairs) == {("a.jpg", "one")}
    assert pairs.notes[0].startswith("1 of 4 rows")


def test_a_quotation_mark_without_its_end_costs_its_own_row(folder):
    text = 'image,caption\na.jpg,one\na.jpg,"two\nb.jpg,three\n'
    with pytest.raises(ValueError, match=r"1 with a quotation mark without its end \(line 3\)"):
        load(folder, text)
    assert linked(load(folder, text, skip_bad=True)) == {("a.jpg", "one"), ("b.jpg", "three")}


def test_two_stray_marks_in_a_thousand_rows(folder):
    captions = [f"caption {n}" for n in range(1000)]
    captions[200] = '"' + captions[200]
    captions[900] = '"' + captions[900]
    text = "image,caption\n" + "".join(f"a.jpg,{caption}\n" for caption in captions)
    pairs = load(folder, text, skip_bad=True)
    assert set(pairs.texts) == {caption for caption in captions if '"' not in caption}
    assert pairs.notes[0].startswith("998 of 1,000 rows")
    assert "2 with a quotation mark without its end (line 202, line 902)" in pairs.notes[0]


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        ('"Hello" said the man', '"Hello" said the man'),
        ('"Hello, you" said the man, and left', '"Hello, you" said the man, and left'),
        ('"A dog, wet"', "A dog, wet"),
        ('"A ""wet"" dog"', 'A "wet" dog'),
        ('a 5" pipe', 'a 5" pipe'),
        ('"a dog\n  in blue"', "a dog in blue"),
        ('"a dog\n\nin ""blue"", or\nred"', 'a dog  in "blue", or red'),
    ],
)
def test_quotation_marks(folder, cell, text):
    # Two more columns, so that no line of a caption over several lines looks like a row.
    if "\n" in cell:
        pairs = load(folder, f"id,score,image,caption\n1,2,a.jpg,{cell}\n1,2,b.jpg,last\n")
    else:
        pairs = load(folder, f"image,caption\na.jpg,{cell}\nb.jpg,last\n")
    assert linked(pairs) == {("a.jpg", text), ("b.jpg", "last")}
    assert pairs.notes == () or "equal byte for byte" in pairs.notes[0]


CELLS = st.text(st.sampled_from('ab ",;\t|'), min_size=1).filter(lambda text: text.strip() == text != "")


@given(st.lists(CELLS, min_size=1, max_size=6), st.sampled_from([",", ";", "\t"]))
def test_what_pythons_own_writer_writes_is_read_back(tmp_path_factory, captions, mark):
    folder = tmp_path_factory.mktemp("csv")
    Image.new("RGB", (4, 4)).save(folder / "a.jpg")
    file = io.StringIO()
    writer = csv.writer(file, delimiter=mark, lineterminator="\n")
    writer.writerows([["image", "caption"], *(["a.jpg", caption] for caption in captions)])
    pairs = load(folder, file.getvalue(), delimiter=mark)
    assert set(pairs.texts) == set(captions)


@given(st.lists(st.text(st.sampled_from('ab ",\n')), min_size=1, max_size=8))
def test_every_row_is_kept_or_counted(tmp_path_factory, lines):
    folder = tmp_path_factory.mktemp("csv")
    Image.new("RGB", (4, 4)).save(folder / "a.jpg")
    body = [line for line in "\n".join(lines).split("\n") if line.strip()]
    pairs = load(folder, "image,caption\na.jpg,whole\n" + "\n".join(body), skip_bad=True)
    told = re.match(r"(\d+) of (\d+) rows .* are kept; left out: (.*)", pairs.notes[0]) if pairs.notes else None
    if told is None:
        assert body == []
    else:
        lost = [int(number) for number in re.findall(r"(?:^|\), |, )(\d+) (?:with|whose)", told[3])]
        assert int(told[1]) + sum(lost) == int(told[2])
        # A row may have several lines; none is without a row.
        assert int(told[2]) <= len(body) + 1
        assert int(told[2]) == len(body) + 1 or any('"' in line for line in body)


def test_the_table_of_the_hub(folder):
    rows = [
        ("a.jpg", "train", ["one", 'two "three"']),
        ("b.jpg", "test", ["four, five", "six", "seven"]),
    ]
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(["raw", "sentids", "split", "filename", "img_id"])
    for number, (image, split, captions) in enumerate(rows):
        writer.writerow([json.dumps(captions), json.dumps([1, 2]), split, image, number])
    pairs = load(folder, file.getvalue(), name="flickr_annotations_30k.csv")
    assert linked(pairs) == {("b.jpg", "four, five"), ("b.jpg", "six"), ("b.jpg", "seven")}
    assert pairs.split == "test"
    assert "1 of 2 rows" in pairs.notes[0]
    assert "1 of other splits" in pairs.notes[0]
    path = folder / "flickr_annotations_30k.csv"
    train = load_pairs("csv", captions=path, root=folder, split="train")
    assert linked(train) == {("a.jpg", "one"), ("a.jpg", 'two "three"')}
    assert linked(load_pairs("flickr30k", root=folder, split="train")) == linked(train)
    with pytest.raises(ValueError, match=r"lines of split 'val' in .*splits are \['test', 'train'\]"):
        load_pairs("csv", captions=path, root=folder, split="val")


def test_lists_as_python_writes_them(folder):
    pairs = load(folder, """image,caption\na.jpg,"['one', ""it's two""]"\nb.jpg,[a list?]\n""")
    assert linked(pairs) == {("a.jpg", "one"), ("a.jpg", "it's two"), ("b.jpg", "[a list?]")}


def test_the_split_of_a_row_and_of_a_file(folder):
    text = "image,caption,split\na.jpg,one,validation\nb.jpg,two,test\nb.jpg,three,\n"
    with pytest.raises(ValueError, match=r"1 with no split \(line 4\)"):
        load(folder, text, split="val")
    assert linked(load(folder, text, split="val", skip_bad=True)) == {("a.jpg", "one")}
    plain = "image,caption\na.jpg,one\n"
    assert load(folder, plain, name="train.csv").split == "train"
    assert load(folder, plain, name="train.csv").name == folder.name
    with pytest.raises(ValueError, match=r"split 'test', but the name of .*train\.csv says 'train'"):
        load(folder, plain, name="train.csv", split="test")


@pytest.mark.parametrize("text", ["", "\nimage,caption\n", "name,price\na,1\n", "{}"])
def test_no_table_of_captions(folder, text):
    with pytest.raises(ValueError, match="Expected"):
        load(folder, text)


def test_no_text(folder):
    with pytest.raises(ValueError, match="in UTF-8"):
        load_pairs("csv", captions=folder / "a.jpg", root=folder)
    with pytest.raises(ValueError, match="in UTF-8"):
        load_pairs("csv", captions=folder / "none.csv", root=folder)


def test_an_empty_table(folder):
    with pytest.raises(ValueError, match="Expected images with captions in .*, but there are none"):
        load(folder, "image,caption\n")


def test_columns_that_come_twice_or_are_not_read(folder):
    with pytest.raises(ValueError, match="Expected different columns in .*, but some come twice: caption"):
        load(folder, "image,caption,Caption\na.jpg,x,y\n")
    both = "image,caption,title\na.jpg,x,y\nb.jpg,z,\n"
    assert "2 lines of" in load(folder, both).notes[0]
    assert "under 'title', too, which is not read" in load(folder, both).notes[0]
    assert not any("not read" in note for note in load(folder, both, caption_column="caption").notes)
