"""Sections and tables of any task, made by hand; a task that the package does not know."""

import io
from dataclasses import replace

import pytest
from report_helpers import Page, estimate, keep_entries, make_entry, make_row
from rich.console import Console

from crossguard.evaluate import Estimate
from crossguard.report import print_results, render_report, report_runs, result_table
from crossguard.report.sections import sections
from crossguard.report.tables import figure_rich, result_records


def make_view(task="grounding", heading="Visual grounding", **changes):
    values = {
        "task": task,
        "heading": heading,
        "label": "<i>albef</i>",
        "data": "refcoco+",
        "split": "val",
        "samples": "40 expressions about 9 images",
        "threat": "image: L-inf 2/255",
        "headline": ("accuracy",),
        "columns": {
            "clean": {"accuracy": Estimate(75.0, 60.0, 86.0), "recall": Estimate(31.0, 30.0, 32.0)},
            "joint": {"accuracy": Estimate(20.0, 10.0, 35.0), "recall": Estimate(11.0, 10.0, 12.0)},
        },
        "success": {
            "joint": {
                "conditional": {"accuracy": None},
                "drop": {"accuracy": Estimate(55.0, 40.0, 70.0), "recall": Estimate(20.0, 18.0, 22.0)},
                "changed": {"boxes": Estimate(44.0, 40.0, 48.0)},
                "ceiling": {"accuracy": Estimate(99.0, 98.0, 100.0)},
            }
        },
        "explained": "Accuracy is told.",
        "notes": ["Proposals are not attacked."],
    }
    return make_row(**{**values, **changes})


def names(table):
    return [line.name for line in table.lines]


def test_a_page_of_several_tasks_is_whole_and_escapes():
    views = [make_view(), make_view("captioning", "Captioning", label="other", notes=()), make_row("clip")]
    page = Page(render_report(title="x", results=views))
    assert all(link.startswith(("data:", "#")) for link in page.loads)
    headings = [words for words in page.words if words.endswith(", clean and under attack")]
    assert headings == [
        "Retrieval, clean and under attack",
        "Visual grounding, clean and under attack",
        "Captioning, clean and under attack",
    ]
    assert "<i>albef</i> on 40 expressions about 9 images of refcoco+ (val), clean and under sga" in page.text
    assert "75.0 60.0–86.0" in page.text
    assert "Proposals are not attacked." in page.text
    assert page.text.count("Accuracy is told.") == 2
    assert "an upper bound" in page.text
    assert sum(tag == "rect" for tag, _ in page.tags) == 2 * 2 + 2 * 4


def test_the_headline_comes_first_and_nothing_is_left_out():
    (section,) = sections([make_view(), make_view(label="other")])
    assert names(section.figures()) == ["accuracy", ""]
    assert [line.label for line in section.figures().lines] == ["<i>albef</i>", "other"]
    assert names(section.success())[::2] == ["accuracy, of those right before", "accuracy, drop", "boxes changed"]
    assert section.success().columns == ("joint",)
    assert names(section.figures(more=True)) == ["recall", ""]
    assert names(section.success(more=True))[::2] == ["recall, drop", "accuracy ceiling"]


def test_a_metric_that_one_model_lacks_has_no_line_of_it():
    less = make_view(label="other", headline=("accuracy", "IoU"))
    more = make_view(headline=("accuracy", "IoU"))
    more = replace(more, columns={**more.columns, "clean": {**more.columns["clean"], "IoU": Estimate(5.0, 1.0, 9.0)}})
    (section,) = sections([less, more])
    assert section.headline == ("accuracy", "IoU")
    assert [(line.name, line.label) for line in section.figures().lines][2:] == [("IoU", "<i>albef</i>")]
    assert Page(render_report(title="t", results=[less, more])).text


def test_notes_of_all_are_said_once():
    (section,) = sections([make_view(notes=("a", "b")), make_view(label="other", notes=("a", "c"))])
    assert section.notes == [("", "a"), ("<i>albef</i>", "b"), ("other", "c")]


def test_figures_that_are_not_defined_are_dashes_and_blanks():
    page = Page(render_report(title="x", results=[make_view()]))
    assert "accuracy, of those right before <i>albef</i> –" in page.text
    console = Console(width=120, no_color=True)
    (section,) = sections([make_view()])
    with console.capture() as printed:
        console.print(figure_rich(section.figures()))
        console.print(figure_rich(section.success()))
    assert "accuracy, drop" in printed.get()
    assert "75.0 60–86" in printed.get()
    (record,) = result_records([make_view()])
    assert record["success"]["joint"]["conditional"] == {"accuracy": None}
    assert record["success"]["joint"]["drop"] == {"accuracy": 55.0, "recall": 20.0}
    assert record["interval"]["clean"]["accuracy"] == [60.0, 86.0]
    assert record["detail"]["clean"] == {"figures": {m: vars(f) for m, f in make_view().columns["clean"].items()}}


def test_names_are_neither_markup_nor_commands_of_a_terminal():
    view = make_view(label="mat [red]\x1b[2J\\", heading="[b]x\x1b", notes=("[b]\x1b",), warnings=("[i]\x1b",))
    (section,) = sections([replace(view, columns={**view.columns, "[blink]": view.columns["joint"]})])
    console = Console(file=io.StringIO(), width=200)
    console.print(figure_rich(section.figures()))
    said = console.file.getvalue()
    assert "mat [red]\\x1b[2J\\" in said
    assert "[blink] only" in said
    assert "\x1b" not in said


@pytest.fixture
def own_run(tmp_path):
    return lambda *entries: [keep_entries(tmp_path / "own", entries)]


def test_a_task_that_is_not_known_is_reported_all_the_same(own_run, tmp_path):
    paths = own_run(make_entry(), make_entry(part="clean"), make_entry("other", "clean"))
    first, second = result_table(paths)
    assert (first["task"], first["model"], first["samples"]) == ("answering", "net", "9 questions")
    assert first["threat"] == "image: L-inf 8/255"
    assert first["figures"] == {"clean": {"points": 80.0}, "joint": {"points": 30.0}}
    assert first["success"] == {"joint": {"drop": {"points": 50.0}}}
    assert (list(second["figures"]), second["difference"]) == (["clean"], None)
    page = Page(report_runs(paths, tmp_path / "report.html").read_text())
    assert "Answering, clean and under attack" in page.words
    assert "Points. Shares are in percent" in page.text
    console = Console(file=io.StringIO(), width=140)
    print_results(paths, console=console)
    said = console.file.getvalue()
    assert "Answering, with 95 % intervals" in said
    assert "30.0 29–31" in said
    assert "Own\\x1b note." in said


@pytest.mark.parametrize("fact", [{"hints": 3}, {"content": "c1"}, {"weights": "w"}, {"hints": None, "more": 1}])
def test_other_facts_of_a_task_are_rows_of_their_own(own_run, fact):
    paths = own_run(make_entry(), make_entry(part="image", **fact), make_entry(part="clean", label="net"))
    joint, image = result_table(paths)
    assert list(joint["figures"]) == ["clean", "joint"]
    assert list(image["figures"]) == ["clean", "image"]


def test_one_set_for_both_directions_is_shown_where_it_differs(own_run):
    entry = make_entry()
    same = {**entry["estimates"], "shared": entry["estimates"]["robust"]}
    other = {**entry["estimates"], "shared": {"points": estimate(40.0)}}
    paths = own_run(make_entry("a", estimates=same), make_entry("b", estimates=other))
    first, second = result_table(paths)
    assert list(first["figures"]) == ["clean", "joint"]
    assert second["figures"]["joint, one set"] == {"points": 40.0}
    assert list(second["success"]) == ["joint"]
    (section,) = sections([make_view(columns={"clean": {}, "joint, one set": {}, "joint": {}})])
    assert section.columns == ("clean", "joint", "joint, one set")
