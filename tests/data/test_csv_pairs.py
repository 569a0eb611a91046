"""Tables of captions: the field's own files are read without options, and broken lines are named."""

import pytest
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
    assert len(pairs.notes) == 2


def test_a_quotation_mark_without_its_end(folder):
    text = 'image,caption\na.jpg,one\na.jpg,"two\nb.jpg,three\n'
    with pytest.raises(ValueError, match=r"several lines .*\(line 4\)"):
        load(folder, text)


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
    with pytest.raises(ValueError, match="none is whole"):
        load(folder, "image,caption\n")
