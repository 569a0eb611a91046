"""Several attacks side by side, in Python and as a recipe."""

import json

import pytest
import torch

import crossguard as cg
from crossguard.attacks import Attack, load_adversarial, make_attack
from crossguard.evaluate import evaluate, evaluate_attacks
from crossguard.evaluate.several import distinct_names
from crossguard.progress import Silent
from crossguard.recipes import open_run, perform_evaluate, read_recipe
from crossguard.report import retrieval_table
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
    attacks = {name: make_attack(name) for name in ("word-swap", "pgd")} | {"sep": make_attack("sep", steps=2)}
    with RunFolder.open(tmp_path / "run", settings={}) as run:
        results = evaluate_attacks(make_clip(1), toy_pairs, attacks=attacks, threat=THREAT, run=run, batch_size=8)
    assert {name: list(parts) for name, parts in results.items()} == {
        "word-swap": ["text"],
        "pgd": ["image"],
        "sep": ["image", "text", "joint"],
    }
    alone = evaluate(make_clip(1), toy_pairs, attack=attacks["sep"], threat=THREAT, batch_size=8)
    assert results["sep"]["joint"].robust == alone.robust
    assert results["sep"]["text"].robust == results["word-swap"]["text"].robust
    table = retrieval_table([tmp_path / "run"])
    assert [row["model"] for row in table] == ["tiny, word-swap", "tiny, pgd", "tiny, sep"]
    assert [set(row["recall"]) for row in table] == [
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
        results = evaluate_attacks(model, pairs, attacks=attacks, threat=threat, run=run)
    assert results["pgd"]["image"].warnings == ()
    (first, *_) = results["idle"]["image"].warnings
    assert first.startswith("image: TR@1 looks robust under idle")
    assert "breaks under pgd" in first
    assert (
        first
        in json.loads((tmp_path / "run" / "summary.json").read_text())["retrieval"]["emoji-clip, idle/image"][
            "warnings"
        ]
    )


def test_a_probe_tries_adaptive_beside(monkeypatch):
    model, pairs = cg.load_model("emoji-clip"), cg.load_pairs("emoji", split="test").head(32)
    monkeypatch.setattr("crossguard.attacks.adaptive.Adaptive", lambda: make_attack("adaptive", steps=5, rounds=1))
    threat = cg.ThreatModel(image=cg.LInf(16 / 255))
    results = evaluate_attacks(model, pairs, attacks={"idle": Idle()}, threat=threat, probe=32)
    assert any("breaks under adaptive" in w and "(first 32 images)" in w for w in results["idle"]["image"].warnings)


def test_names_are_told_apart():
    assert distinct_names(["pgd", "pgd", "sga", "pgd"]) == ["pgd", "pgd 2", "sga", "pgd 3"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attacks": {}}, "Expected at least one attack"),
        ({"attacks": {"idle": Idle()}, "probe": -1}, "`probe` >= 0"),
        ({"attacks": {"word-swap": make_attack("word-swap")}, "threat": THREAT.only("image")}, "Expected a budget for"),
        ({"attacks": {"idle": Idle()}, "threat": None}, "Expected a budget for"),
    ],
)
def test_what_cannot_work_is_refused(toy_pairs, options, message):
    with pytest.raises(ValueError, match=message):
        evaluate_attacks(make_clip(), toy_pairs, **{"threat": THREAT, **options})


def test_the_recipe_runs_every_attack_and_transfers_a_set(tmp_path):
    common = [f"run={tmp_path}/all", "max_samples=6", "batch_size=6", "modalities=false", f"save_to={tmp_path}/sets"]
    quick = "attacks=[{name: pgd, options: {steps: 1}}, {name: pgd, options: {steps: 2}}, {name: word-swap}]"
    recipe = read_recipe("emoji-attacks", [*common, quick])
    with open_run(recipe) as run:
        results = perform_evaluate(recipe, run, progress=Silent())
    assert sorted(results) == ["pgd 2 image", "pgd image", "word-swap text"]
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
    assert again["image"].robust == results["pgd image"].robust
