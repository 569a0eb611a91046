"""Several attacks side by side, in Python and as a recipe."""

import json
import re

import pytest
import torch

import crossguard as cg
from crossguard.attacks import Attack, load_adversarial, make_attack
from crossguard.evaluate import TASKS, Result, evaluate, threats_over
from crossguard.evaluate.measure import distinct_names
from crossguard.progress import Silent
from crossguard.recipes import RecipeError, check_names, open_run, perform_evaluate, read_recipe
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
    assert [(row["model"], row["label"]) for row in table] == [
        ("tiny", "tiny, word-swap"),
        ("tiny", "tiny, pgd"),
        ("tiny", "tiny, sep"),
    ]
    assert [set(row["figures"]) for row in table] == [
        {"clean", "text"},
        {"clean", "image"},
        {"clean", "image", "text", "joint"},
    ]
    assert set(table[2]["success"]["joint"]) == {"conditional", "drop"}


EPS = (0.0, 2 / 255, 8 / 255)


def test_lists_of_budgets_are_combined_and_each_is_measured_once(tmp_path, toy_pairs):
    over = threats_over(THREAT, {"image": [cg.LInf(eps) for eps in EPS], "text": [cg.WordEdits(w) for w in (0, 1)]})
    assert len(over) == 6
    attack = make_attack("sep", steps=2)
    result = evaluate(make_clip(1), toy_pairs, attack=attack, threat=over, modalities=True, run=tmp_path / "run")
    found = [(outcome.part, str(outcome.budgets)) for outcome in result]
    assert found == [
        ("text", "text: 1 word (both sides)"),
        ("image", "image: L-inf 2/255 (both sides)"),
        ("joint", "image: L-inf 2/255, text: 1 word (both sides)"),
        ("image", "image: L-inf 8/255 (both sides)"),
        ("joint", "image: L-inf 8/255, text: 1 word (both sides)"),
    ]
    alone = evaluate(make_clip(1), toy_pairs, attack=attack, threat=THREAT)
    assert result.of("joint", threat=THREAT).robust == alone.robust
    least = [
        result.of("joint", threat=threat).robust["ir@1"]
        for threat in over
        if len(threat) == 2 and all((threat["image"].eps, threat["text"].words))
    ]
    assert result.robust["ir@1"] == min(least)
    again = evaluate(make_clip(1), toy_pairs, attack=attack, threat=over, modalities=True, run=tmp_path / "run")
    assert again.summary() == result.summary()
    with pytest.raises(ValueError, match=r"within image: L-inf 1/255 "):
        result.of(threat=cg.ThreatModel(image=cg.LInf(1 / 255)))


class Weaker(Attack):
    """Moves every pixel by a grey level where it may move by little, and not at all where it may move by more."""

    name = "weaker"
    uses = frozenset({"image"})

    def run(self, model, batch, *, budget, seed):
        return (batch.pixels if budget.eps > 0.5 else torch.zeros_like(batch.pixels)), batch.texts


def test_more_left_within_a_larger_budget_is_told():
    model, pairs = cg.load_model("emoji-clip"), cg.load_pairs("emoji", split="test").head(32)
    over = [cg.ThreatModel(image=cg.LInf(eps)) for eps in (0.5, 0.75)]
    small, large = evaluate(model, pairs, attack=Weaker(), threat=over)
    assert small.warnings == ()
    assert any(
        "within less (image: L-inf 127.5/255 (both sides)): the attack has not converged" in w for w in large.warnings
    )


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
        (result,) = perform_evaluate(recipe, run, progress=Silent()).values()
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
        (again,) = perform_evaluate(recipe, run, progress=Silent()).values()
    assert again.robust == Result((result.outcomes[0],)).robust


def test_a_recipe_takes_lists_of_budgets_and_several_models(tmp_path):
    quick = [f"run={tmp_path}/run", "max_samples=4", "modalities=false", "attack={name: sep, options: {steps: 1}}"]
    lists = ["threat.image.eps=[0, 1/255, 4/255]", "threat.text.words=[0, 1]", "models={again: emoji-clip}"]
    recipe = read_recipe("emoji-sga", [*quick, *lists])
    assert check_names(recipe) == []
    assert [str(threat) for threat in recipe.threat.build()][-1] == "image: L-inf 4/255, text: 1 word (both sides)"
    with open_run(recipe) as run:
        found = perform_evaluate(recipe, run, progress=Silent())
    assert list(found) == ["emoji-clip", "again"]
    assert [len(result) for result in found.values()] == [5, 5]
    assert found["again"].robust == found["emoji-clip"].robust


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("threat.image.eps=7", "threat.image.eps: input should be less than or equal to 1, but got 7"),
        ("threat.image.eps=[0.1, 7]", "threat.image.eps: input should be less than or equal to 1, but got 7"),
        ("threat.text.words=[]", "threat.text: list should have at least 1 item"),
        ("threat.text.word=[1]", "threat.text.word: unknown key; did you mean 'words'?"),
        ("threat.image=3", "threat.image: expected a mapping"),
    ],
)
def test_mistakes_in_lists_are_told_where_the_recipe_has_them(override, message):
    with pytest.raises(RecipeError, match=re.escape(message)):
        read_recipe("emoji-sga", [override])
