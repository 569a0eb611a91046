"""The page: well formed, self-contained, escaped, and saying what its inputs say."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image
from report_helpers import Page, make_certificate, make_row

from crossguard.report import (
    Asked,
    ExampleView,
    GalleryView,
    Hit,
    RunView,
    Word,
    render_report,
    write_report,
)

NASTY = "<script>alert('x')</script> & \"co\""


def picture(value, size=8):
    return np.full((size, size, 3), value, dtype=np.uint8)


def example(**changes):
    values = {
        "before": Asked(words=(Word("a", False), Word("red", True), Word("disc", False))),
        "after": Asked(words=(Word("a", False), Word("plain", True), Word("disc", False))),
        "found_before": [Hit(True, picture=picture(10)), Hit(False, picture=picture(20))],
        "found_after": [Hit(False, picture=picture(20)), Hit(True, picture=picture(12))],
        "picture": (picture(10), picture(12)),
    }
    return ExampleView(**{**values, **changes})


def decode(uri):
    head, _, body = uri.partition(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(body))))


def test_the_page_is_whole_and_loads_nothing():
    text = render_report(
        title="A title",
        settings=[RunView("one", {"seed": "0", "attack.name": "sga"}), RunView("two", {"seed": "1"})],
        retrieval=[make_row("base"), make_row("mat")],
        certificates=[make_certificate(), make_certificate(baseline=np.zeros((3, 4)))],
        galleries=[GalleryView("base", "sga", [example()])],
    )
    page = Page(text)
    for target in page.loads:
        assert target.startswith(("data:", "#")), target
    assert "@import" not in text
    assert not re.search(r"url\(\s*['\"]?(?!data:)", text)
    assert "<script" not in text
    assert "prefers-color-scheme: dark" in text
    anchors = {a["id"] for _, a in page.tags if "id" in a}
    assert {target[1:] for target in page.loads if target.startswith("#")} <= anchors
    assert page.text.index("Settings") < page.text.index("Retrieval, clean")
    assert page.text.index("A title") < page.text.index("attack.name")


def test_everything_from_outside_is_escaped():
    text = render_report(
        title=NASTY,
        settings=[RunView(NASTY, {NASTY: NASTY})],
        retrieval=[make_row(NASTY, data=NASTY, attack=NASTY, threat=NASTY)],
        certificates=[make_certificate(label=NASTY, note=NASTY, modalities=(NASTY, "b"), scope=NASTY)],
        galleries=[
            GalleryView(
                NASTY,
                NASTY,
                [
                    example(
                        before=Asked(words=(Word(NASTY, True),)),
                        after=Asked(words=(Word(NASTY, True),)),
                        found_before=[Hit(True, words=(Word(NASTY, False),))],
                    )
                ],
            )
        ],
    )
    page = Page(text)
    assert page.count("script") == 0
    assert page.text.count(NASTY) > 10


def test_the_table_holds_every_figure():
    views = [make_row("base"), make_row("only clean", columns=("clean",), attack=None, threat="")]
    page = Page(render_report(title="t", retrieval=views))
    for column in views[0].columns.values():
        for metric, share in column.items():
            assert f"{share.value:.1f}" in page.words, metric
            assert f"{share.low:.1f}–{share.high:.1f}" in page.words, metric
    for heading in ("clean", "image only", "text only", "joint"):
        assert heading in page.words
    assert page.words.count("–") >= 6  # what was not measured
    drop = views[0].success["joint"]["drop"]["ir@1"]
    assert f"{drop.value:.1f}" in page.words
    assert f"{drop.low:.1f}–{drop.high:.1f}" in page.words
    assert "100 / 25" in page.words


def test_two_charts_have_a_bar_per_model_and_column():
    views = [make_row("base"), make_row("mat"), make_row("clean one", columns=("clean",))]
    page = Page(render_report(title="t", retrieval=views))
    assert sum(tag == "rect" for tag, _ in page.tags) == 2 * (4 + 4 + 1)


def test_a_page_of_certificates_alone():
    page = Page(render_report(title="t", certificates=[make_certificate()]))
    assert "An attack bounds" not in page.text
    assert "N = 1,000" in page.text
    assert "alpha = 0.001 (per sample, all radii at once)" in page.text
    assert "accelerometer: k = 12 of n = 64 elements kept, threat: substitution" in page.text
    assert "gyroscope: k = 8 of n = 32 elements kept, threat: insertion" in page.text
    assert page.count("rect", class_="cell") == 12
    assert "r = (2, 5): 5.0 % right and certified" in page.words
    assert "r = (0, 0): 95.0 % right and certified" in page.words


def test_the_gallery_frames_right_and_wrong_and_marks_words():
    page = Page(render_report(title="t", retrieval=[make_row()], galleries=[GalleryView("base", "sga", [example()])]))
    assert page.count("li", class_="right") == page.count("li", class_="wrong") == 2
    assert page.count("s") == page.count("mark") == 1
    shown = [decode(attributes["src"]) for tag, attributes in page.tags if tag == "img"]
    assert [int(image[0, 0, 0]) for image in shown] == [10, 12, 128 + 32 * 2, 10, 20, 20, 12]
    assert "change × 32" in page.words


def test_a_picture_query_with_texts_found():
    asked = example(
        before=Asked(picture=picture(10)),
        after=Asked(picture=picture(10)),
        found_before=[Hit(True, words=(Word("a", False),))],
        found_after=[Hit(False, words=(Word("b", True),))],
        picture=None,
    )
    page = Page(render_report(title="t", retrieval=[make_row()], galleries=[GalleryView("base", "sga", [asked])]))
    assert sum(tag == "img" for tag, _ in page.tags) == 1
    assert "The query is a picture" in page.words
    assert page.count("mark") == 1


def test_large_pictures_are_made_smaller():
    large = example(picture=(picture(10, 600), picture(12, 600)), found_before=[Hit(True, picture=picture(3, 600))])
    text = render_report(title="t", retrieval=[make_row()], galleries=[GalleryView("base", "sga", [large])])
    sizes = {decode(uri).shape[0] for uri in re.findall(r'src="(data:image/png[^"]+)"', text)}
    assert max(sizes) == 224
    assert 128 in sizes


def test_settings_of_several_runs_stand_side_by_side():
    runs = [RunView("one", {"seed": "0", "lr": "1e-5"}), RunView("two", {"seed": "1"})]
    page = Page(render_report(title="t", settings=runs, retrieval=[make_row()]))
    assert "0; 1" in page.words
    assert {"one", "two", "lr", "1e-5"} <= set(page.words)


def test_writing_replaces_the_file(tmp_path):
    target = tmp_path / "deep" / "report.html"
    assert write_report(target, title="one", retrieval=[make_row()]) == target
    write_report(target, title="two", retrieval=[make_row()])
    assert "<h1>two</h1>" in target.read_text()
    assert [path.name for path in target.parent.iterdir()] == ["report.html"]


def test_nothing_to_report_is_refused(tmp_path):
    with pytest.raises(ValueError, match="retrieval results or certificates"):
        write_report(tmp_path / "report.html", title="t")
    assert not list(tmp_path.iterdir())
