"""The page: well formed, self-contained, escaped, and saying what its inputs say."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image
from report_helpers import Page, make_certificate, make_row

from crossguard.evaluate import Estimate, Example, Item
from crossguard.report import Difference, RunView, render_report, write_report
from crossguard.report.pictures import MOST_BYTES, Album

NASTY = "<script>alert('x')</script> & \"co\""


def picture(value, size=8):
    return np.full((size, size, 3), value, dtype=np.uint8)


def example(**changes):
    """A text that asks for pictures, as retrieval keeps it."""
    values = {
        "asked": (
            Item("The query", "a red disc"),
            Item("Under attack", "a plain disc", source="a red disc"),
            Item("One of its pictures", picture=picture(12), clean=picture(10)),
        ),
        "answers": {
            "Found without attack": (Item(picture=picture(10), right=True), Item(picture=picture(20), right=False)),
            "Found under attack": (Item(picture=picture(20), right=False), Item(picture=picture(12), right=True)),
        },
    }
    return Example(**{**values, **changes})


def decode(uri):
    head, _, body = uri.partition(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(body))))


def test_the_page_is_whole_and_loads_nothing():
    text = render_report(
        title="A title",
        settings=[RunView("one", {"seed": "0", "attack.name": "sga"}), RunView("two", {"seed": "1"})],
        results=[make_row("base", examples=[example()]), make_row("mat")],
        certificates=[make_certificate(), make_certificate(baseline=np.zeros((3, 4)))],
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
    text = page.text.replace("Settings", "", 1)  # in the contents
    assert text.index("A title") < text.index("keeps the most") < text.index("Retrieval, clean and under attack")
    assert text.index("Retrieval, clean and under") < text.index("How to read these") < text.index("attack.name")


def test_everything_from_outside_is_escaped():
    text = render_report(
        title=NASTY,
        settings=[RunView(NASTY, {NASTY: NASTY})],
        results=[
            make_row("base"),
            make_row(
                NASTY,
                heading=NASTY,
                data=NASTY,
                samples=NASTY,
                attack=NASTY,
                threat=NASTY,
                headline=(NASTY,),
                columns={
                    "clean": {NASTY: Estimate(1.0, None, None, why=NASTY)},
                    NASTY: {NASTY: Estimate(1.0, 0.0, 2.0)},
                },
                success={NASTY: {NASTY: {NASTY: None}}},
                explained=NASTY,
                notes=[NASTY],
                warnings=[NASTY],
                difference=Difference(NASTY, {NASTY: {NASTY: Estimate(1.0, 0.0, 2.0)}}),
                examples=[
                    Example(
                        (Item(NASTY, NASTY), Item(NASTY, NASTY + " x", source=NASTY)),
                        {NASTY: (Item(NASTY, NASTY, right=True), Item(NASTY, picture=picture(1)))},
                    )
                ],
            ),
        ],
        certificates=[make_certificate(label=NASTY, note=NASTY, modalities=(NASTY, "b"), scope=NASTY)],
    )
    page = Page(text)
    assert page.count("script") == 0
    assert page.text.count(NASTY) > 30


def test_the_table_holds_every_figure():
    views = [make_row("base"), make_row("only clean", columns=("clean",), attack=None, threat="")]
    page = Page(render_report(title="t", results=views))
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
    assert {"TR@1", "IR@1", "IR@10", "TR@1, of those right before", "IR@1, drop"} <= set(page.words)


def test_two_charts_have_a_bar_per_model_and_column():
    views = [make_row("base"), make_row("mat"), make_row("clean one", columns=("clean",))]
    page = Page(render_report(title="t", results=views))
    assert sum(tag == "rect" for tag, _ in page.tags) == 2 * (4 + 4 + 1)


def test_a_page_of_certificates_alone():
    page = Page(render_report(title="t", certificates=[make_certificate()]))
    assert "An attack bounds" not in page.text
    assert "N = 1,000" in page.text
    assert "alpha = 0.001 (per sample, all radii at once)" in page.text
    assert "accelerometer k = 12 of 64 elements (substitution)" in page.text
    assert "gyroscope k = 8 of 32 elements (insertion)" in page.text
    assert page.count("rect", class_="cell") == 12
    assert "r = (2, 5): 5.0 % right and certified" in page.words
    assert "r = (0, 0): 95.0 % right and certified" in page.words


def test_examples_frame_right_and_wrong_and_mark_words():
    page = Page(render_report(title="t", results=[make_row("base", examples=[example()])]))
    assert page.count("li", class_="right") == page.count("li", class_="wrong") == 2
    assert page.count("s") == page.count("mark") == 1
    shown = [decode(attributes["src"]) for tag, attributes in page.tags if tag == "img"]
    assert [int(image[0, 0, 0]) for image in shown] == [10, 12, 128 + 32 * 2, 10, 20, 20, 12]
    assert "change × 32" in page.words
    assert page.words.count("1 right") == page.words.count("2 right") == 1


def test_a_picture_query_with_texts_found():
    asked = example(
        asked=(Item("The query is a picture", picture=picture(10)),),
        answers={
            "Found without attack": (Item(text="a", right=True), Item(text="c", right=False)),
            "Found under attack": (Item(text="b", source="a", right=False),),
        },
    )
    page = Page(render_report(title="t", results=[make_row(examples=[asked])]))
    assert sum(tag == "img" for tag, _ in page.tags) == 1
    assert "The query is a picture" in page.words
    assert page.count("mark") == 1
    assert page.count("s") == 0  # an answer is not struck because another one was changed


def test_answers_that_are_no_question_of_right_or_wrong():
    said = {
        "It writes": (Item(text="a red disc"),),
        "Under attack": (Item(text="", source="a red disc"),),
        "People wrote": (Item(text="one"), Item(text="two")),
    }
    page = Page(render_report(title="t", results=[make_row(examples=[example(answers=said)])]))
    assert page.count("li", class_="open") == 4
    assert "nothing" in page.words
    assert "right" not in page.words
    assert page.count("s") == 2  # "red" of the query; "a red disc" that it no longer writes, as neighbours
    assert {"one", "two"} <= set(page.words)


def test_large_pictures_are_made_smaller():
    found = {"Found": (Item(picture=picture(3, 600), right=True), Item(picture=picture(4, 600), right=False))}
    large = example(asked=(Item("", picture=picture(12, 600), clean=picture(10, 600)),), answers=found)
    text = render_report(title="t", results=[make_row(examples=[large])])
    sizes = {decode(uri).shape[0] for uri in re.findall(r'src="(data:image/png[^"]+)"', text)}
    assert sizes == {224, 128}
    alone = example(asked=(), answers={"Without attack": (Item("overlap 0.75", picture=picture(3, 900), right=True),)})
    text = render_report(title="t", results=[make_row(examples=[alone])])
    assert [decode(uri).shape[0] for uri in re.findall(r'src="(data:image/png[^"]+)"', text)] == [640]
    assert "right overlap 0.75" in Page(text).words


def test_pictures_beyond_what_a_page_may_hold_are_left_out_and_counted(monkeypatch):
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    shown = example(asked=(), answers={"Found": (Item(picture=noise, right=True),)})
    results = [make_row(f"model {number}", examples=[shown]) for number in range(9)]
    monkeypatch.setattr("crossguard.report.page.Album", lambda: Album(700_000))
    page = Page(render_report(title="t", results=results))
    assert page.count("img") == 4
    assert "5 pictures are left out, so that this page stays below 20 MB." in page.text
    assert MOST_BYTES < 20e6
    monkeypatch.undo()
    page = Page(render_report(title="t", results=results))
    assert page.count("img") == 9
    assert "left out" not in page.text


def test_settings_of_several_runs_stand_side_by_side():
    runs = [RunView("one", {"seed": "0", "lr": "1e-5"}), RunView("two", {"seed": "1"})]
    page = Page(render_report(title="t", settings=runs, results=[make_row()]))
    assert "Settings that differ" in page.words
    assert {"one", "two", "lr", "1e-5", "0", "1"} <= set(page.words)


def test_writing_replaces_the_file(tmp_path):
    target = tmp_path / "deep" / "report.html"
    assert write_report(target, title="one", results=[make_row()]) == target
    write_report(target, title="two", results=[make_row()])
    assert "<h1>two</h1>" in target.read_text()
    assert [path.name for path in target.parent.iterdir()] == ["report.html"]


def test_nothing_to_report_is_refused(tmp_path):
    with pytest.raises(ValueError, match="results or certificates"):
        write_report(tmp_path / "report.html", title="t")
    assert not list(tmp_path.iterdir())
