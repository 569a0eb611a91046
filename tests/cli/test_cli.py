"""The command line: help that teaches, listings, validation, errors with exit codes, and real short runs."""

import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from command_line import invoke, said, unstyled
from crossguard.cli.options import as_overrides
from crossguard.recipes import read_recipe
from shared import write_annotations

VERBS = [
    "demo",
    "evaluate",
    "table",
    "train",
    "certify",
    "predict",
    "augment",
    "study",
    "report",
    "list",
    "models",
    "validate",
]


def plain(result):
    return unstyled(result.stdout + result.stderr)


def test_help_names_every_verb():
    text = plain(invoke("--help"))
    assert all(re.search(rf"\b{verb}\b", text) for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(verb):
    assert len(plain(invoke(verb, "--help"))) > 200


@pytest.mark.parametrize(
    ("table", "names"),
    [
        ("attacks", {"pgd", "word-swap", "sga"}),
        ("defences", {"clean", "tecoa", "mat", "mat+"}),
        ("models", {"clip", "emoji-clip", "watch-net"}),
        ("datasets", {"emoji", "json", "watch"}),
        ("sources", {"thesaurus", "masked-lm"}),
        ("augmentations", {"eda", "crops"}),
        ("recipes", {"emoji-sga", "emoji-mat", "watch-certify"}),
    ],
)
def test_listings_as_table_and_as_json(table, names):
    rows = json.loads(invoke("list", table, "--json").stdout)
    assert names <= {row["name"] for row in rows}
    assert all(row["summary"].strip() for row in rows)
    assert all(name in plain(invoke("list", table)) for name in names)


def test_validate_tells_all_mistakes_and_exits_with_2(tmp_path):
    recipe = tmp_path / "r.yaml"
    recipe.write_text("verb: evaluate\nrun: x\nmodel: emoji-clib\ndata: {name: emojy}\nattack: {name: sgaa}\n")
    text = plain(invoke("validate", recipe, code=2))
    assert all(hint in text for hint in ("did you mean 'emoji-clip'", "did you mean 'emoji'", "did you mean 'sga'"))
    found = json.loads(invoke("validate", recipe, "--json", code=2).stdout)
    assert (found["valid"], len(found["problems"])) == (False, 3)
    assert json.loads(invoke("validate", "emoji-sga", "--json").stdout)["settings"]["attack"]["name"] == "sga"


def test_a_recipe_of_another_verb_is_refused():
    assert "crossguard evaluate" in plain(invoke("train", "emoji-sga", code=2))


def test_an_unknown_recipe_and_key_are_named():
    assert "did you mean 'emoji-sga'" in plain(invoke("evaluate", "emoji-sgaa", code=2))
    assert "did you mean 'seed'" in plain(invoke("evaluate", "emoji-sga", "sed=1", code=2))


def test_names_are_checked_under_the_recipes_own_name_before_a_run_begins(tmp_path):
    text = said("evaluate", "emoji-sga", "attack.name=pdg", f"run={tmp_path / 'run'}", code=2)
    assert "emoji-sga: 1 mistake" in text
    assert "did you mean 'pgd'" in text
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            ("evaluate", "emoji-sga", "attack.options.steps=abc"),
            "options: expected option `steps` to be int, but got 'abc'",
        ),
        (
            ("evaluate", "emoji-sga", "attack.options.steps=2.5"),
            "options: expected option `steps` to be int, but got 2.5",
        ),
        (("evaluate", "emoji-sga", "attack.options.stepz=3"), "attack.options: unknown option 'stepz' of attack 'sga'"),
        (("evaluate", "emoji-attacks", "attacks.0.options={stepz: 3}"), "attacks.0.options: unknown option 'stepz'"),
        (("evaluate", "emoji-sga", "data.options.foo=1"), "data.options: unknown option 'foo' of data set 'emoji'"),
        (("train", "emoji-mat", "options.pgd_steps=two"), "options: expected `pgd_steps` to be int, but got 'two'"),
        (("certify", "watch-certify", "data.options.stride=far"), "`stride` to be int | None, but got 'far'"),
    ],
)
def test_unknown_options_and_those_of_another_type_are_refused_before_a_run_begins(tmp_path, arguments, told):
    assert told in said(*arguments, f"run={tmp_path / 'run'}", code=2)
    assert told in said("validate", *arguments[1:], code=2)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "name", ["2026-07-30", "2024", "1e3", "on", "null", "runs/a: b", "runs/a #2", "[a]", 'a"b', "runs/é 😀"]
)
def test_names_given_as_options_stay_as_they_are(name):
    changes = as_overrides(["seed=3"], run=Path(name), seed=None, device=name, max_samples=5)
    recipe = read_recipe("emoji-sga", changes)
    assert (recipe.run, recipe.device, recipe.seed, recipe.max_samples) == (name, name, 3, 5)


def test_a_run_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    text = said("evaluate", "emoji-sga", f"run={tmp_path / 'file' / 'run'}", code=2)
    assert "run: expected a folder, but" in text


def test_a_device_that_is_not_there_is_refused(tmp_path):
    text = plain(invoke("evaluate", "emoji-sga", "--device", "cuda:77", "--run", tmp_path / "r", code=2))
    assert "torch device" in text


@pytest.fixture
def small_data(tiny_clip, toy_pairs, tmp_path):
    """A model folder and an annotation file, as a user would bring them."""
    tiny_clip.save_pretrained(tmp_path / "model")
    data = write_annotations(toy_pairs, tmp_path / "toy.json")
    return [f"model={tmp_path / 'model'}", "data.name=json", f"data.options={json.dumps(data['options'])}"]


def test_evaluate_train_and_report_on_ones_own_model_and_data(small_data, tmp_path):
    run = tmp_path / "before"
    arguments = ("evaluate", "emoji-sga", *small_data, "--run", run, "--max-samples", 8, "-q", "--json")
    first = json.loads(invoke(*arguments).stdout)
    rows = (run / "rows.jsonl").read_bytes()
    assert first
    assert json.loads(invoke(*arguments).stdout) == first
    assert (run / "rows.jsonl").read_bytes() == rows, "a finished run must not be repeated"
    assert "<html" in (run / "report.html").read_text()[:400].lower()
    assert "differ" in plain(invoke(*arguments, "--seed", 5, code=2))

    invoke(
        "train", "emoji-mat", *small_data, "--run", tmp_path / "mat", "-q", "steps=2", "batch_size=4", "validation=null"
    )
    assert (tmp_path / "mat" / "model" / "model.safetensors").is_file()
    after = tmp_path / "after"
    invoke(
        *arguments[:2], f"model={tmp_path / 'mat' / 'model'}", *small_data[1:], "--run", after, "--max-samples", 8, "-q"
    )
    page = tmp_path / "both.html"
    invoke("report", run, after, "--out", page)
    assert page.stat().st_size > 10_000


def test_certify_trains_resumes_and_reports(tmp_path):
    run = tmp_path / "watch"
    arguments = ("certify", "watch-certify", "--run", run, "--max-samples", 6, "-q", "train.steps=20", "draws=200")
    text = plain(invoke(*arguments))
    assert "certified in percent" in text
    rows = (run / "rows.jsonl").read_text().splitlines()
    sections = Counter(json.loads(row)["section"] for row in rows)
    assert sections == {"certificate/watch-net": 6, "certificate/watch-net/joint sub-sampling": 6}
    table = json.loads(invoke(*arguments, "--json").stdout)
    assert table
    assert (run / "rows.jsonl").read_text().splitlines() == rows
    # What was certified answers from the run's model folder, which holds the settings of the draws.
    asked = ("predict", run / "model", "watch", "--max-samples", 6, "-q", "--queries", 10)
    found = json.loads(invoke(*asked, "--json", "--out", tmp_path / "labels.npz").stdout)
    assert found["total_error"] == pytest.approx(0.001 + 10 * 0.001)
    assert sum(found["answers"].values()) + found["abstained"] == found["samples"] == 6
    assert np.load(tmp_path / "labels.npz")["labels"].tolist() == found["labels"]
    text = plain(invoke(*asked, "--alpha", 0.01))
    assert "at most 0.101" in text
    assert "over 10 queries" in text
    assert "Expected the folder" in plain(invoke("predict", tmp_path / "none", "watch", code=2))


def test_predictions_of_a_published_design_have_no_error(tmp_path):
    run = tmp_path / "watch"
    few = ("--max-samples", 4, "-q", "train.steps=5", "design=fixed", "draws=60", "baseline=false")
    invoke("certify", "watch-certify", "--run", run, *few)
    found = json.loads(invoke("predict", run / "model", "watch", "--max-samples", 4, "-q", "--json").stdout)
    assert found["total_error"] == 0
    assert found["abstained"] == 0
    assert found["design"] == "fixed"
    assert "needs none" in plain(invoke("predict", run / "model", "watch", "--alpha", 0.1, "-q", code=2))


def test_draws_that_can_only_abstain_are_refused_with_the_number_needed(tmp_path):
    text = plain(invoke("certify", "watch-certify", "--run", tmp_path / "w", "draws=5", "train.steps=1", "-q", code=2))
    assert re.search(r"\b\d+ draws\b|N >= \d+|at least \d+", text), text


@pytest.mark.slow
def test_a_shortened_demo_tells_the_whole_story(tmp_path):
    run = tmp_path / "demo"
    arguments = (
        "demo",
        "--run",
        run,
        "--steps",
        1,
        "--pictures",
        4,
        "--draws",
        120,
        "--sensor-steps",
        20,
        "-q",
        "--json",
    )
    tables = json.loads(invoke(*arguments).stdout)
    assert {row["model"] for row in tables["results"]} == {"emoji-clip", "tecoa", "mat", "mat+"}
    (certificate,) = tables["certificates"]
    assert list(certificate["curve"]["designs"]) == ["published, balanced"]
    assert certificate["curve"]["attacked"]["accuracy"][0] is not None
    curve = [row for row in tables["results"] if row["attack"] == "apgd"]
    assert [(row["model"], round(255 * row["budgets"]["image"]["eps"])) for row in curve] == [
        (model, eps) for model in ("emoji-clip", "mat+") for eps in (1, 2, 4)
    ]
    assert (run / "report.html").stat().st_size > 50_000
    assert json.loads(invoke(*arguments).stdout) == tables
