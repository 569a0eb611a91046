"""Several attacks side by side, in Python and as a recipe."""

import json

import pytest
import torch

import crossguard as cg
from crossguard.attacks import Attack, load_adversarial, make_attack
from crossguard.evaluate import TASKS, Result, evaluate
from crossguard.evaluate.measure import distinct_names
from crossguard.progress import Silent
from crossguard.recipes import open_run, perform_evaluate, read_recipe
from crossguard.report import result_table
from crossguard.runs import RunFolder
from shared import make_clip

THREAT = cg.ThreatModel(image=cg.LInf(8 / 255), text=cg.WordEdits(1))


class Idle(Attack):
    """Does nothing, so that any model looks robust."""

    name = "idle"
    uses = frozenset({"image", "text"})

    def run(self, model, batch, *, budget, seed):
        return batch.pixels, batch.texts


def test_each_attack_is_a_row_with_what_it_can_attack(tmp_path, toy_pairs):
    attacks = {"word-swap": make_attack("word-swap")} | {n: make_attack(n, steps=2) for n in ("pgd", "sep")}
    with RunFolder.open(tmp_path / "run", settings={}) as run:
        result = evaluate(
            make_clip(1), toy_pairs, attack=attacks, threat=THREAT, modalities=True, run=run, batch_size=8
        )
    assert {name: result.of(attack=name).parts for name in attacks} == {
        "word-swap": ("text",),
        "pgd": ("image",),
        "sep": ("image", "text", "joint"),
    }
    alone = evaluate(make_clip(1), toy_pairs, attack=attacks["sep"], threat=THREAT, batch_size=8)
    assert result.of("joint").robust == alone.robust
    assert result.of("text", attack="sep").robust == result.of(attack="word-swap").robust
    table = result_table([tmp_path / "run"])
    assert [row["model"] for row in table] == ["tiny, word-swap", "tiny, pgd", "tiny, sep"]
    assert [set(row["figures"]) for row in table] == [
        {"clean", "text"},
        {"clean", "image"},
        {"clean", "image", "text", "joint"},
    ]
    assert set(table[2]["success"]["joint"]) == {"conditional", "drop"}


def test_an_attack_that_is_too_weak_is_told(tmp_path):
    model, pairs = cg.load_model("emoji-clip"), cg.load_pairs("emoji", split="test").head(32)
    threat = cg.ThreatModel(image=cg.LInf(16 / 255))
    attacks = {"idle": Idle(), "pgd": make_attack("pgd", steps=3)}
    with RunFolder.open(tmp_path / "run", settings={}) as run:
        result = evaluate(model, pairs, attack=attacks, threat=threat, run=run)
    assert result.of(attack="pgd").warnings == ()
    (first, *_) = result.of(attack="idle").warnings
    assert first.startswith("image: TR@1 looks robust under idle")
    assert "breaks under pgd" in first
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())["results"]
    assert first in summary["retrieval/emoji-clip, idle/image"]["warnings"]


def test_a_probe_tries_adaptive_beside(monkeypatch):
    model, pairs = cg.load_model("emoji-clip"), cg.load_pairs("emoji", split="test").head(16)
    quick = make_attack("adaptive", steps=5, rounds=1)
    monkeypatch.setattr(TASKS["retrieval"], "make_attack", classmethod(lambda cls, name, options: quick))
    threat = cg.ThreatModel(image=cg.LInf(16 / 255))
    result = evaluate(model, pairs, attack=Idle(), threat=threat, probe=16)
    assert any("breaks under adaptive" in w and "(first 16 images)" in w for w in result.warnings)


def test_names_are_told_apart():
    assert distinct_names(["pgd", "pgd", "sga", "pgd"]) == ["pgd", "pgd 2", "sga", "pgd 3"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attack": {}}, "Expected at least one attack"),
        ({"attack": Idle(), "probe": -1}, "`probe` to be a whole number >= 0"),
        ({"attack": ["word-swap", "sep"], "threat": THREAT.only("image")}, "Expected a budget for"),
        ({"attack": [Idle(), "pgd"], "threat": None}, "Expected a threat model"),
        ({"attack": ["pgd", "pgdd"]}, "Unknown attack 'pgdd'"),
    ],
)
def test_what_cannot_work_is_refused(toy_pairs, options, message):
    with pytest.raises(ValueError, match=message):
        evaluate(make_clip(), toy_pairs, **{"threat": THREAT, **options})


def test_the_recipe_runs_every_attack_and_transfers_a_set(tmp_path):
    common = [f"run={tmp_path}/all", "max_samples=6", "batch_size=6", "modalities=false", f"save_to={tmp_path}/sets"]
    quick = "attacks=[{name: pgd, options: {steps: 1}}, {name: pgd, options: {steps: 2}}, {name: word-swap}]"
    recipe = read_recipe("emoji-attacks", [*common, quick])
    with open_run(recipe) as run:
        result = perform_evaluate(recipe, run, progress=Silent())
    assert [outcome.settings["label"] for outcome in result] == [
        "emoji-clip, pgd",
        "emoji-clip, pgd 2",
        "emoji-clip, word-swap",
    ]
    assert sorted(path.name for path in (tmp_path / "sets").iterdir()) == ["pgd", "pgd 2", "word-swap"]
    made = load_adversarial(tmp_path / "sets" / "pgd")
    assert torch.tensor(made.pictures([0])[1]).shape == (1, 3, *made.made["image_size"])
    saved = [
        f"run={tmp_path}/saved",
        "max_samples=6",
        "batch_size=6",
        "attack.name=saved",
        f"attack.options.folder={tmp_path}/sets/pgd",
        "threat.text=null",
    ]
    recipe = read_recipe("emoji-sga", saved)
    with open_run(recipe) as run:
        again = perform_evaluate(recipe, run, progress=Silent())
    assert again.robust == Result((result.outcomes[0],)).robust
