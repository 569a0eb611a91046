"""From a folder of photos in Flickr30k's layout to a table of robust recalls, with commands alone."""

import json
import re

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from crossguard.cli import app
from shared import make_clip


def invoke(*arguments, code=0):
    result = CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "200", "NO_COLOR": "1"})
    assert result.exit_code == code, (result.exit_code, result.output, result.exception)
    return result


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    images = folder / "flickr30k" / "flickr30k-images"
    images.mkdir(parents=True)
    rows, generator = [], np.random.default_rng(0)
    for number, (colour, shape) in enumerate([("red", "disc"), ("blue", "square"), ("green", "cross")]):
        noise = generator.integers(0, 256, (20 + 9 * number, 30, 3), dtype=np.uint8)
        Image.fromarray(noise).save(images / f"{number}.jpg")
        texts = [f"a {colour} {shape}", f"a small picture of the {colour} {shape} on the left"]
        rows.append({"image": f"flickr30k-images/{number}.jpg", "caption": texts})
    (images / "broken.jpg").write_bytes((images / "0.jpg").read_bytes()[:300])
    rows.append({"image": "flickr30k-images/broken.jpg", "caption": ["plain drawing"]})
    (folder / "flickr30k" / "flickr30k_test.json").write_text(json.dumps(rows))
    make_clip().save_pretrained(folder / "model")
    return folder


def given(home, run):
    options = [f"model={home / 'model'}", f"data.options.root={home / 'flickr30k'}", f"run={home / run}"]
    return [*options, "attack.options.steps=1", "attack.options.scales=[0.5]", "batch_size=2"]


def test_a_broken_image_stops_before_any_work(home):
    told = invoke("evaluate", "flickr30k-sga", *given(home, "stopped"), "-q", code=2)
    assert re.search(r"4 images that decode, but 1 do not: \S*broken\.jpg .*--skip-bad", told.output, re.S)


def test_a_dry_run_prints_the_cost_and_leaves_no_run(home):
    told = invoke("evaluate", "flickr30k-sga", *given(home, "dry"), "--skip-bad", "--dry-run", "--json", "-q")
    cost = json.loads(told.stdout)
    assert {part["what"] for part in cost["parts"]} >= {"embed images", "embed texts", "attack with sga (joint)"}
    assert cost["seconds"] > 0
    assert not (home / "dry").exists()


def test_a_table_of_robust_recalls(home):
    told = invoke("evaluate", "flickr30k-sga", *given(home, "whole"), "--skip-bad", "-q")
    assert "IR@1" in told.stdout
    assert "3 of 4 rows" in told.stderr
    assert "1 whose image does not decode" in told.stderr
    assert (home / "whole" / "report.html").is_file()
    summary = json.loads((home / "whole" / "summary.json").read_text())["results"]
    assert {entry["about"]["samples"] for entry in summary.values()} == {"3 images and 6 texts"}
    assert all("left out" in entry["data_notes"][0] for entry in summary.values())


def test_only_verbs_with_images_have_the_options():
    assert "--dry-run" not in invoke("train", "--help").output
    assert "--skip-bad" in invoke("train", "--help").output
    assert "--skip-bad" not in invoke("certify", "--help").output
