"""Overlays pixel by pixel, and pages of grounding and captioning made by hand."""

import numpy as np
import pytest
from report_helpers import Page
from rich.console import Console

from crossguard.report import Figure, TaskExampleView, TaskView, Word, render_report
from crossguard.report.overlay import HEAT, RIGHT, TRUTH, WRONG, overlay
from crossguard.report.tasks import task_records, task_rich

GREY = np.full((24, 24, 3), 100, np.uint8)


def drawn(**changes):
    values = {"size": (60, 120), "truth": (10.0, 10.0, 40.0, 30.0), "chosen": (60.0, 20.0, 30.0, 30.0), "right": False}
    heat = np.zeros((3, 3), np.float32)
    heat[2, 2] = 0.5
    return overlay(GREY, changes.pop("heat", heat), **{**values, **changes})


def test_the_picture_takes_the_photos_shape_and_is_warm_where_the_map_is():
    found = drawn()
    assert found.shape == (60, 120, 3)
    assert np.allclose(found[52, 105], 0.35 * 100 + 0.65 * np.array(HEAT), atol=8)  # the middle of the hot cell
    assert found[30, 2].tolist() == [100, 100, 100]


def test_boxes_lie_where_they_should_in_their_colours():
    found = drawn()
    assert tuple(found[10, 10]) == tuple(found[39, 49]) == TRUTH
    assert tuple(found[20, 60]) == tuple(found[49, 89]) == WRONG
    assert tuple(drawn(right=True)[20, 60]) == RIGHT
    assert tuple(drawn(chosen=None)[20, 60]) not in (RIGHT, WRONG)


def test_a_map_of_zeros_leaves_the_picture():
    found = drawn(heat=np.zeros((3, 3), np.float32), chosen=None, truth=(0.0, 0.0, 5.0, 5.0))
    assert (found[10:, 10:] == 100).all()


def test_large_photos_are_drawn_smaller():
    assert drawn(size=(800, 1600), truth=(0.0, 0.0, 100.0, 100.0), chosen=None).shape == (224, 448, 3)


def make_view(kind="grounding", **changes):
    figure = Figure(75.0, 60.0, 86.0)
    values = {
        "kind": kind,
        "label": "<i>albef</i>",
        "data": "refcoco+ (val)",
        "samples": "40 expressions about 9 images",
        "attack": "sga",
        "threat": "image: L-inf 2/255",
        "columns": {"clean": {"accuracy": figure}, "joint": {"accuracy": Figure(20.0, 10.0, 35.0)}},
        "success": {"joint": {"success, of those right before": None, "drop of accuracy": Figure(55.0, 40.0, 70.0)}},
        "notes": ["Proposals are not attacked."],
        "examples": [
            TaskExampleView(
                [("The expression", (Word("left", False), Word("man", True))), ("Under attack", (Word("dog", True),))],
                [(GREY, "without attack: right"), (GREY, "under attack: wrong")],
                ["People wrote: <b>"],
            )
        ],
    }
    return TaskView(**{**values, **changes})


def test_a_page_of_tasks_alone_is_whole_and_escapes():
    text = render_report(title="x", tasks=[make_view(), make_view("captioning", label="other", examples=())])
    page = Page(text)
    assert all(link.startswith(("data:", "#")) for link in page.loads)
    assert page.count("section", id="grounding") == page.count("section", id="captioning") == 1
    assert "<i>albef</i> on 40 expressions about 9 images of refcoco+ (val), clean and attacked: sga" in page.text
    assert "75.0 60.0–86.0" in page.text
    assert page.count("mark") == page.count("s") == 1
    assert page.count("img") == 2
    assert "Proposals are not attacked." in page.text
    assert "an upper bound" in page.text


def test_figures_that_are_not_defined_are_dashes_and_blanks():
    assert "success, of those right before –" in Page(render_report(title="x", tasks=[make_view()])).text.replace(
        "  ", " "
    )
    console = Console(width=120, no_color=True)
    with console.capture() as printed:
        console.print(task_rich([make_view()]))
    assert "drop of accuracy" in printed.get()
    assert "75.0 60–86" in printed.get()
    (record,) = task_records([make_view()])
    assert record["success"]["joint"] == {"success, of those right before": None, "drop of accuracy": 55.0}
    assert record["interval"]["clean"]["accuracy"] == [60.0, 86.0]


def test_nothing_to_report_is_refused():
    with pytest.raises(ValueError, match="but got none"):
        render_report(title="x")
