"""Every verb that several processes may share, started in two: they make what one makes, and only the first one tells."""

import json
import os

import pytest
from typer.testing import CliRunner

from crossguard.cli import app
from crossguard.runs import read_rows
from files import write_features
from processes import in_processes
from shared import make_clip, write_annotations


def run(*arguments):
    """What a command prints, its exit code, and what it says of errors."""
    result = CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "200", "NO_COLOR": "1"})
    return result.exit_code, result.stdout, result.stderr


def both(*arguments):
    """The same of two processes."""
    return in_processes(lambda rank: run(*arguments))


def content(folder, *names):
    return {name: (folder / name).read_bytes() for name in names}


@pytest.fixture
def toy(toy_pairs, tmp_path):
    """A tiny model and annotations, as settings of recipes."""
    make_clip().save_pretrained(tmp_path / "model")
    data = write_annotations(toy_pairs.head(12), tmp_path / "toy.json")
    return [f"model={tmp_path / 'model'}", f"data={json.dumps(data)}", "device=cpu"]


@pytest.fixture
def evaluation(toy):
    return [
        "evaluate",
        "emoji-sga",
        *toy,
        "batch_size=4",
        "attack.options={steps: 1}",
        "modalities=false",
        "--quiet",
        "--json",
    ]


def test_evaluate(evaluation, tmp_path):
    code, one, _ = run(*evaluation, f"run={tmp_path / 'one'}")
    (first, told, _), (second, silent, _) = both(*evaluation, f"run={tmp_path / 'two'}")
    assert (code, first, second) == (0, 0, 0)
    assert silent == ""
    assert json.loads(told) == json.loads(one)
    names = ("rows.jsonl", "summary.json")
    assert content(tmp_path / "one", *names) == content(tmp_path / "two", *names)
    assert (tmp_path / "two" / "report.html").is_file()
    assert json.loads((tmp_path / "two" / "run.json").read_text())["finished"]
    # A finished run is shown again by any number of processes.
    (first, again, _), _ = both(*evaluation, f"run={tmp_path / 'one'}")
    assert (first, json.loads(again)) == (0, json.loads(one))


def test_settings_that_differ_end_both_with_a_sentence(evaluation, tmp_path):
    found = in_processes(lambda rank: run(*evaluation, f"run={tmp_path / 'run'}", f"seed={rank}"))
    for code, out, said in found:
        assert (code, out) == (2, "")
        assert "Expected the same recipe in all processes, but in process 1 `seed` is 0 in process 0 and 1." in said
    assert not (tmp_path / "run").exists()


def test_a_run_of_another_setting_is_refused_in_both(evaluation, tmp_path):
    assert run(*evaluation, f"run={tmp_path / 'run'}")[0] == 0
    (first, _, said), (second, _, heard) = both(*evaluation, f"run={tmp_path / 'run'}", "seed=5")
    assert (first, second) == (2, 1)
    assert "`seed` is 0 there and 5 now" in said
    assert "Expected all 2 processes to go on, but" in heard


@pytest.mark.slow
def test_table(toy, tmp_path):
    rows = json.dumps({"a": str(tmp_path / "model")})
    given = [
        "table",
        "emoji-table",
        f"models={rows}",
        "max_samples=6",
        "eps=[1/255]",
        "device=cpu",
        "--quiet",
        "--json",
    ]
    given += ["attack={name: pgd, options: {steps: 1}}"]
    code, one, _ = run(*given, f"run={tmp_path / 'one'}")
    (first, told, _), (second, silent, _) = both(*given, f"run={tmp_path / 'two'}")
    assert (code, first, second, silent) == (0, 0, 0, "")
    assert json.loads(told) == json.loads(one)


def test_certify_trains_once_and_shares_draws(tmp_path):
    file = write_features(tmp_path / "features.npz")
    given = [
        *("certify", "ravdess-features-certify", f"data.options={{file: {file}}}", "keep={video_au: 2, audio_mfcc: 2}"),
        *("curve.steps=1", "train.steps=2", "draws=70", "alpha=0.1", "draw_seed=3", "device=cpu", "baseline=true"),
        *("max_samples=5", "--quiet", "--json"),
    ]
    code, one, said = run(*given, f"run={tmp_path / 'one'}")
    assert code == 0, said
    (first, told, _), (second, silent, _) = both(*given, f"run={tmp_path / 'two'}")
    assert (first, second, silent) == (0, 0, "")
    assert json.loads(told) == json.loads(one)
    assert content(tmp_path / "one", "rows.jsonl") == content(tmp_path / "two", "rows.jsonl")


def test_augment_shares_the_blocks(toy, tmp_path):
    given = ["augment", "emoji-augment", *toy, "per_sample=2", "sources=[{name: eda}, {name: randaugment}]", "--quiet"]
    code, one, said = run(*given, "--json", f"run={tmp_path / 'one'}")
    assert code == 0, said
    (first, told, _), (second, silent, _) = both(*given, "--json", f"run={tmp_path / 'two'}")
    assert (first, second, silent) == (0, 0, "")
    assert json.loads(told) == json.loads(one) | {"run": str(tmp_path / "two")}
    assert content(tmp_path / "one", "manifest.jsonl") == content(tmp_path / "two", "manifest.jsonl")


@pytest.mark.slow
def test_study_deals_its_arms(toy_pairs, tmp_path):
    make_clip().save_pretrained(tmp_path / "model")
    data = write_annotations(toy_pairs, tmp_path / "toy.json")
    settings = {
        "verb": "study",
        **{"device": "cpu", "max_samples": 6, "model": str(tmp_path / "model"), "data": data, "test": data},
        **{"originals": 8, "new_originals": 16, "threat": {"image": {"eps": "2/255"}, "text": {"words": 1}}},
        **{"seeds": [0], "reference": "mat", "steps": 1, "batch_size": 4, "learning_rate": 1e-3},
        "tables": {"main": {"title": "Main", "attacks": {"pgd": ["image"]}}},
        "arms": {
            "tecoa": {"tables": ["main"], "defence": "tecoa"},
            "mat": {"tables": ["main"], "defence": "mat", "links": "originals"},
        },
    }
    recipe = tmp_path / "study.yaml"
    recipe.write_text(json.dumps(settings))
    code, one, said = run("study", recipe, f"run={tmp_path / 'one'}", "--quiet", "--json")
    assert code == 0, said
    (first, told, said), (second, silent, _) = both("study", recipe, f"run={tmp_path / 'two'}", "--quiet", "--json")
    assert (first, second, silent) == (0, 0, ""), said
    assert json.loads(told) == json.loads(one)
    for arm in ("mat", "tecoa"):
        rows = [
            {k: v for k, v in row.items() if k != "seconds"}
            for row in read_rows(tmp_path / "two" / "arms" / arm / "seed-0" / "rows.jsonl")
        ]
        assert rows == read_rows(tmp_path / "one" / "arms" / arm / "seed-0" / "rows.jsonl")


def test_a_dry_run_is_the_first_process_alone(evaluation, tmp_path):
    asked = [argument for argument in evaluation if argument != "--json"]
    (first, told, _), (second, silent, _) = both(*asked, "--dry-run", f"run={tmp_path / 'run'}")
    assert (first, second, silent) == (0, 0, "")
    assert "as measured on" in told


def test_a_process_that_is_killed_ends_the_other_with_a_sentence(evaluation, tmp_path, monkeypatch):
    from crossguard.evaluate.stored_batch import StoredBatch

    def work(rank):
        if rank == 1:
            monkeypatch.setattr(StoredBatch, "from_attack", lambda *_: os._exit(9))
        return run(*evaluation, f"run={tmp_path / 'run'}")

    (code, _, said), _ = in_processes(work)
    assert code == 1
    assert "Expected all 2 processes to go on, but another one has ended or cannot be reached" in " ".join(said.split())
    assert run(*evaluation, f"run={tmp_path / 'run'}")[0] == 0


def test_what_is_for_one_process_is_done_by_the_first(evaluation, tmp_path):
    assert run(*evaluation, f"run={tmp_path / 'run'}")[0] == 0
    (first, told, _), (second, silent, _) = both("report", tmp_path / "run", "--out", tmp_path / "page.html")
    assert (first, second, silent) == (0, 0, "")
    assert "page.html" in told
