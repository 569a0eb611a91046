"""A study on drawn pictures: trains and judges every arm once, goes on where it stopped, and counts cost alike."""

import json
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner

from crossguard.attacks import make_attack
from crossguard.cli import app
from crossguard.evaluate import evaluate
from crossguard.models import CLIP, load_model
from crossguard.progress import Silent
from crossguard.recipes import RecipeError, parse_recipe
from crossguard.recipes.study import arms, perform, perform_study, plan, plan_study, work
from crossguard.recipes.study.cost import TrainingCost
from crossguard.recipes.study.judge import judged_by, trials
from crossguard.recipes.study.pairs import load_judging, load_training
from crossguard.recipes.study.passes import count_passes
from crossguard.recipes.study.perform import read_study
from crossguard.recipes.study.plan import StudyPlan
from crossguard.report.study import Study, study_markdown, write_study
from crossguard.runs import RunBusy, read_rows
from shared import make_clip, write_annotations

# Of few steps: what is tested here is what a study does with attacks, and not how strong they are.
PGD = {"parts": ["image"], "options": {"steps": 2}}
CO_ATTACK = {"parts": ["joint"], "options": {"steps": 2}}


@pytest.fixture(scope="module")
def files(toy_pairs, tmp_path_factory):
    """(folder of a model, settings of data)"""
    folder = tmp_path_factory.mktemp("files")
    make_clip().save_pretrained(folder / "model")
    return str(folder / "model"), write_annotations(toy_pairs, folder / "toy.json")


def settings_in(folder, files):
    model, data = files
    return {
        "verb": "study",
        "run": str(folder / "study"),
        "device": "cpu",
        "max_samples": 6,
        "model": model,
        "data": dict(data),
        "test": dict(data),
        "originals": 8,
        "new_originals": 16,
        "threat": {"image": {"eps": "2/255"}, "text": {"words": 1}},
        "seeds": [0, 1],
        "reference": "mat",
        "steps": 2,
        "batch_size": 4,
        "learning_rate": 1e-3,
        "tables": {
            "main": {"title": "Main", "attacks": {"pgd": dict(PGD), "co-attack": dict(CO_ATTACK)}},
            "more": {"title": "More", "attacks": {"pgd": dict(PGD)}, "figure": "samples"},
            "sources": {"title": "Sources", "attacks": {"pgd": dict(PGD)}, "figure": "measures"},
        },
        "arms": {
            "undefended": {"tables": ["main"]},
            "tecoa": {"tables": ["main"], "defence": "tecoa"},
            "mat": {"tables": ["main", "more"], "defence": "mat", "links": "originals"},
            "mat+": {
                "tables": ["main", "more", "sources"],
                "defence": "mat+",
                "sources": ["own-texts"],
                "per_sample": 2,
            },
            "new": {"tables": ["more"], "defence": "mat", "links": "new-originals"},
        },
    }


@pytest.fixture
def settings(files, tmp_path):
    return settings_in(tmp_path, files)


def recipe_of(settings):
    return parse_recipe(settings, source="test")


def study_of(settings):
    return perform_study(recipe_of(settings), progress=Silent(), command=["test"])


@dataclass
class Finished:
    """A study of every kind of arm, carried out once for this file; nothing may change its folder."""

    settings: dict
    study: Study
    plan: StudyPlan
    counted: list


@pytest.fixture(scope="module")
def finished(files, tmp_path_factory):
    settings = settings_in(tmp_path_factory.mktemp("finished"), files)
    counted, told, training_cost = [], [], work.training_cost

    def counting(recipe, arm, material, pairs, **others):
        counted.append(arm)
        return training_cost(recipe, arm, material, pairs, **others)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(work, "training_cost", counting)
        patch.setattr(plan, "_seconds_per_flop", lambda work: 1e-9)  # a dry run measures it
        study = perform_study(recipe_of(settings), progress=Silent(), command=["test"], announce=told.append)
    return Finished(settings, study, *told, counted)


def content(folder):
    return {path: path.stat().st_mtime_ns for path in Path(folder).rglob("*")}


def test_a_study_trains_and_judges_every_arm_and_is_not_repeated(finished, tmp_path, monkeypatch):
    settings, found = finished.settings, finished.study
    assert found.missing == 0
    trained = [arm for arm in recipe_of(settings).arms.values() if arm.defence is not None]
    assert all(finished.counted.count(arm) == len(settings["seeds"]) for arm in trained)
    main, more, _ = found.tables
    assert [row.name for row in main.rows] == ["undefended", "tecoa", "mat", "mat+"]
    assert [row.name for row in more.rows] == ["mat", "mat+", "new"]
    assert main.columns == ("clean", "pgd, image", "co-attack, joint")
    by_name = {row.name: row for row in main.rows}
    assert by_name["undefended"].cells["clean"]["tr@1"].seeds == 1
    assert by_name["tecoa"].cells["co-attack, joint"]["ir@10"].seeds == 2
    assert by_name["mat"].gains["co-attack, joint"].mean == 0
    assert set(by_name["mat+"].measures) == {"alignment", "diversity", "gap"}
    assert by_name["mat"].images.mean == 8
    assert by_name["mat+"].texts.mean > by_name["mat"].texts.mean
    assert by_name["mat+"].false_negatives.mean == 0
    assert more.rows[-1].images.mean == 16  # new originals
    assert set(main.passes) == {"pgd, image", "co-attack, joint"}
    assert main.passes["co-attack, joint"].per_text > main.passes["pgd, image"].per_text
    # Equal cost: steps of an arm times its cost are the reference's, up to half a step.
    cost = {name: row.gflop_per_step.mean * row.steps.mean for name, row in by_name.items() if row.steps}
    for name in ("tecoa", "mat+"):
        assert abs(cost[name] - cost["mat"]) <= 0.5 * by_name[name].gflop_per_step.mean + 1e-9
    assert by_name["tecoa"].steps.mean > by_name["mat"].steps.mean == 2

    monkeypatch.setattr(perform, "train_arm", None)
    monkeypatch.setattr(perform, "judge", None)
    assert study_of(settings) == found
    page = write_study(tmp_path / "report.html", found, title="study").read_text()
    assert "mat+" in page
    assert "polyline" in page
    assert "<svg" in page
    assert "TR@10 / IR@10" in study_markdown(found)


def test_an_interrupted_study_goes_on_and_gets_the_same_result(settings, finished, monkeypatch):
    """In the middle of judging an arm; the seeds of a study share nothing, so that the finished one has its result."""
    settings["arms"], settings["seeds"] = {name: settings["arms"][name] for name in ("undefended", "mat")}, [0]
    judged = perform.judge

    def stopped(recipe, model, test, missing, **others):
        judged(recipe, model, test, missing[:1], **others)
        raise KeyboardInterrupt

    monkeypatch.setattr(perform, "plan_work", lambda recipe, work: None)
    monkeypatch.setattr(perform, "judge", stopped)
    with pytest.raises(KeyboardInterrupt):
        study_of(settings)
    monkeypatch.setattr(perform, "judge", judged)
    resumed = study_of(settings)
    whole = read_study(recipe_of({**settings, "run": finished.settings["run"]}))
    assert resumed.missing == whole.missing == 0
    assert resumed.tables == whole.tables


@pytest.fixture
def unplanned(monkeypatch):
    """Neither plan nor train nor count: studies whose arms come out as the model that they start from."""
    monkeypatch.setattr(perform, "plan_work", lambda recipe, work: None)
    monkeypatch.setattr(perform, "train_arm", lambda recipe, *args, **options: load_model(recipe.model))
    monkeypatch.setattr(work, "training_cost", lambda *args, **options: TrainingCost(1.0, 0.0, 8, 0.0))


@pytest.mark.usefixtures("unplanned")
def test_arms_and_tables_may_be_added_later_but_nothing_else_may_change(settings):
    first = {**settings, "arms": {"mat": settings["arms"]["mat"]}, "seeds": [0]}
    study_of(first)
    rows = settings["run"] + "/arms/mat/seed-0/rows.jsonl"
    before = read_rows(rows)
    more = {**first, "arms": {name: settings["arms"][name] for name in ("mat", "tecoa", "undefended")}}
    some = study_of({**more, "only": ["tecoa"]})
    assert [row.name for row in some.tables[0].rows] == ["mat", "tecoa"]
    assert some.missing == 2
    assert read_rows(rows) == before
    with pytest.raises(ValueError, match="`batch_size` is 4 there and 6 now"):
        study_of({**more, "batch_size": 6})


@pytest.mark.usefixtures("unplanned")
def test_an_arm_that_another_process_has_open_is_left_to_it(settings, monkeypatch):
    settings["arms"] = {name: settings["arms"][name] for name in ("undefended", "mat")}

    def taken(folder, **others):
        if "undefended" in str(folder):
            raise RunBusy("another process has it open")
        return opened(folder, **others)

    opened = perform.RunFolder.open
    monkeypatch.setattr(perform.RunFolder, "open", staticmethod(taken))
    found = study_of(settings)
    assert [row.name for row in found.tables[0].rows] == ["mat"]
    assert found.missing == 2


def test_an_augmentation_that_another_process_makes_is_waited_for(settings, monkeypatch):
    recipe, tries = recipe_of(settings), []

    def busy_at_first(*args, **options):
        tries.append(options["folder"])
        if len(tries) < 3:
            raise RunBusy("another process has it open")
        return made(*args, **options)

    made = arms.augment
    monkeypatch.setattr(arms, "augment", busy_at_first)
    monkeypatch.setattr(arms, "_PATIENCE", 0.0)
    material = arms.draw_material(recipe, 0)
    pairs = arms.arm_pairs(recipe, recipe.arms["mat+"], material, seed=0, device="cpu", progress=Silent())
    assert len(tries) == 3
    assert len(pairs.texts) > len(material.originals.texts)


def test_a_stop_after_training_loses_neither_cost_nor_steps(settings, monkeypatch):
    settings["arms"] = {"mat": settings["arms"]["mat"]}
    settings["seeds"] = [0]
    monkeypatch.setattr(perform, "plan_work", lambda recipe, work: None)

    def stopped(*args, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(CLIP, "save_pretrained", stopped)
        with pytest.raises(KeyboardInterrupt):
            study_of(settings)
    found = study_of(settings)
    (row,) = found.tables[0].rows
    assert row.steps.mean == 2
    rows = read_rows(settings["run"] + "/arms/mat/seed-0/rows.jsonl")
    assert sum(row["section"] == "training" for row in rows) == 1
    assert not list(Path(settings["run"]).rglob("checkpoint-*"))


def test_a_step_costs_what_training_does_and_not_what_is_logged(settings):
    recipe = recipe_of(settings)
    material = arms.draw_material(recipe, 0)
    arm, model = recipe.arms["mat"], load_model(recipe.model)
    cost, logged = (
        arms.training_cost(
            recipe, arm.model_copy(update={"options": {"log_every": n}}), material, material.originals, device="cpu"
        ).per_step
        for n in (0, 1)
    )
    assert logged == cost

    # Two gradient steps on the images and the loss: three forward and, of the images, three backward passes.
    pixels = torch.rand(recipe.batch_size, 3, *model.image_size, requires_grad=True)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model.encode_image(pixels).sum().backward()
    assert cost > 3 * counter.get_total_flops()


def test_attention_counts_whatever_kernel_would_do_it(settings):
    """The counter knows no fused attention of a CPU: a model without it must cost the same."""
    recipe = recipe_of(settings)
    material = arms.draw_material(recipe, 0)
    costs = []
    for way in ("sdpa", "eager"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(arms, "load_model", lambda source, way=way: set_attention(load_model(source), way))
            cost = arms.training_cost(recipe, recipe.arms["mat"], material, material.originals, device="cpu")
            costs.append(cost.per_step)
    assert costs[0] == pytest.approx(costs[1], rel=1e-3)


def set_attention(model, way):
    model.network.set_attn_implementation(way)
    return model


def test_originals_of_a_seed_are_nested_and_seeds_differ(settings):
    recipe = recipe_of(settings)
    material, again, other = (arms.draw_material(recipe, seed) for seed in (0, 0, 1))
    keys = {picture.key for picture in material.originals.images}
    assert len(keys) == 8
    assert keys < {picture.key for picture in material.new_originals.images}
    assert set(material.originals.texts) <= set(material.new_originals.texts)
    assert material.originals.texts == again.originals.texts
    assert keys != {picture.key for picture in other.originals.images}


def test_mistakes_of_a_study_are_told_before_any_work(settings):
    settings["tables"]["main"]["attacks"]["pgd"]["parts"] = ["joint"]
    settings["arms"]["tecoa"]["defence"] = "tekoa"
    settings["arms"]["mat"]["options"] = {"learing_rate": 1e-3, "seed": 3, "pgd_steps": "two"}
    settings["arms"]["mat+"]["sources"] = ["own-text"]
    with pytest.raises(RecipeError) as told:
        study_of(settings)
    assert [problem.split(":")[0] for problem in told.value.problems] == [
        "tables.main.attacks.pgd",
        "arms.tecoa.defence",
        "arms.mat.options.learing_rate",
        "arms.mat.options.seed",
        "arms.mat.options",
        "arms.mat+.sources.0.name",
    ]
    with pytest.raises(RecipeError, match="reference: expected a trained arm, but got 'undefended'"):
        recipe_of({**settings, "reference": "undefended"})
    settings["arms"]["new"]["tables"] = ["least"]
    with pytest.raises(RecipeError, match=r"arms.new.tables: expected names among .* but got \['least'\]"):
        recipe_of(settings)


def test_too_few_images_are_told_before_any_work(settings):
    with pytest.raises(ValueError, match="Expected at least 100 images"):
        study_of({**settings, "new_originals": 100})
    assert not Path(settings["run"]).exists()


def test_an_attack_may_judge_on_fewer_images_and_by_one_set_for_both_directions(settings, tmp_path):
    settings |= {"arms": {"mat": settings["arms"]["mat"]}, "seeds": [0]}
    settings["primary"] = {"attack": "adaptive", "part": "joint", "rank": 5}
    adaptive = {"options": {"steps": 5, "rounds": 1}, "parts": ["joint"], "max_samples": 4}
    settings["tables"] = {
        "main": {"title": "Main", "attacks": {"pgd": PGD, "adaptive": adaptive}},
        "more": settings["tables"]["more"],
    }
    found = study_of(settings)
    table = found.tables[0]
    of_four = "adaptive, joint (4 images)"
    assert table.columns == ("clean", "clean (4 images)", "pgd, image", of_four, f"{of_four}, shared")
    assert (found.images, found.rank, found.primary) == (6, 5, of_four)
    recipe = recipe_of(settings)
    test = load_judging(recipe)
    few = judged_by(recipe, "adaptive", test)
    assert [image.key for image in few.images] == [test.images[i].key for i in (0, 2, 3, 5)]
    (row,) = table.rows
    rows = read_rows(settings["run"] + "/arms/mat/seed-0/rows.jsonl")
    by_attack = {one["attack"]: one for one in rows if one["section"] == "study"}
    assert set(by_attack["pgd"]["ranks"]) == {"clean", "robust"}
    assert set(by_attack["adaptive"]["ranks"]) == {"clean", "robust", "shared"}
    for column, one in {"clean": by_attack["pgd"], "clean (4 images)": by_attack["adaptive"]}.items():
        model = load_model(settings["run"] + "/arms/mat/seed-0/model")
        clean = evaluate(model, test if one is by_attack["pgd"] else few, device="cpu", examples=0).clean
        assert one["clean"] == clean
        assert column in row.cells
    # Each direction by its own set is attacked at least as well as both by one.
    for metric, value in by_attack["adaptive"]["robust"].items():
        if metric.endswith("@1"):
            assert value <= by_attack["adaptive"]["shared"][metric]
    left = by_attack["adaptive"]["robust"]
    assert row.recall[of_four].mean == pytest.approx((left["tr@5"] + left["ir@5"]) / 2)
    mean = row.over_samples[of_four]["mean@5"]
    assert mean.value == pytest.approx(row.recall[of_four].mean)
    text = study_markdown(found)
    assert f"fixed beforehand: mean of TR@5 and IR@5 under {of_four}" in text
    assert "fixed beforehand" in write_study(tmp_path / "report.html", found, title="study").read_text()
    settings["tables"]["main"]["attacks"]["adaptive"]["max_samples"] = 5
    with pytest.raises(ValueError, match="`attack adaptive"):
        study_of(settings)


def test_images_that_are_held_out_judge_and_nothing_that_belongs_to_them_is_trained_on(settings):
    whole = load_training(recipe_of(settings))
    recipe = recipe_of({**settings, "test": None, "held_out": 5, "max_samples": None})
    judging, training = load_judging(recipe), load_training(recipe)
    assert len(judging.images) == 5
    assert not {image.key for image in judging.images} & {image.key for image in training.images}
    assert not set(judging.texts) & set(training.texts)
    few = load_judging(recipe.model_copy(update={"judged_texts": 1}))
    assert [image.key for image in few.images] == [image.key for image in judging.images]
    assert len(few.texts) <= 5 < len(judging.texts)
    kept = len(whole.images) - len(training.images)
    groups, _ = whole.groups
    apart = {image.key for image in judging.images}
    held = {group for image, group in zip(whole.images, groups.tolist(), strict=True) if image.key in apart}
    assert kept == sum(group in held for group in groups.tolist())
    many = recipe_of({**settings, "test": None, "held_out": 999})
    with pytest.raises(ValueError, match="more than 999 images"):
        load_judging(many)


def test_all_images_are_originals_where_no_number_is_given(settings):
    del settings["originals"], settings["new_originals"], settings["arms"]["new"]
    recipe = recipe_of(settings)
    material = arms.draw_material(recipe, 0)
    assert len(material.originals.images) == len(material.whole.images)
    assert material.new_originals is None
    assert study_markdown(perform.read_study(recipe)).startswith(f"Model {recipe.model}; all originals of json (test)")


def test_options_of_the_study_are_those_of_every_arm_that_has_no_other(settings):
    settings["options"] = {"clean_weight": 0.5, "pgd_steps": 1}
    settings["arms"]["tecoa"]["options"] = {"clean_weight": 0.25}
    recipe = recipe_of(settings)
    found = {name: arms.trainer_options(recipe, arm) for name, arm in recipe.arms.items()}
    assert found["mat"] == {"clean_weight": 0.5, "pgd_steps": 1}
    assert found["tecoa"] == {"clean_weight": 0.25, "pgd_steps": 1}
    material = arms.draw_material(recipe, 0)
    costs = [
        arms.training_cost(
            recipe_of({**settings, "options": {"pgd_steps": steps}}),
            recipe.arms["mat"],
            material,
            material.originals,
            device="cpu",
        )
        for steps in (1, 2)
    ]
    assert costs[0].per_step < costs[1].per_step
    settings["options"] = {"learning_rate": 1.0}
    with pytest.raises(RecipeError, match="options.learning_rate: unknown option"):
        study_of(settings)


def test_false_negatives_are_those_of_the_steps_that_are_trained(settings):
    """Where every pair is a sample, two of an image may meet; where links are known, none is a negative."""
    sources = {"sources": ["own-texts"], "per_sample": 4, "tables": ["more"]}
    settings["arms"] = {
        "mat": {**settings["arms"]["mat"], "tables": ["more"]},
        "pairs": {**sources, "defence": "mat", "links": "every-pair"},
        "mat+": {**sources, "defence": "mat+"},
    }
    settings |= {"seeds": [0], "batch_size": 8, "steps": 3}
    told = []
    study = perform_study(recipe_of(settings), progress=Silent(), command=["test"], announce=told.append)
    plan, found = {arm.name: arm for arm in told[0].arms}, {row.name: row for row in study.tables[1].rows}
    assert {name: row.false_negatives.mean for name, row in found.items()} == {
        name: arm.false_negatives for name, arm in plan.items()
    }
    assert found["mat+"].false_negatives.mean == 0
    assert found["pairs"].false_negatives.mean > found["mat"].false_negatives.mean


def test_sources_may_have_options(settings):
    def folder(source):
        arm = {**settings["arms"]["mat+"], "sources": [source]}
        recipe = recipe_of({**settings, "arms": {**settings["arms"], "mat+": arm}})
        return recipe, arms.augmentation_folder(recipe, recipe.arms["mat+"], 0).name

    (_, plain), (_, same) = folder("eda"), folder({"name": "eda"})
    recipe, other = folder({"name": "eda", "options": {"alpha": 0.3}})
    assert plain == same == "eda-2-seed-0" != other
    material = arms.draw_material(recipe, 0)
    made = arms.arm_pairs(recipe, recipe.arms["mat+"], material, seed=0, device="cpu", progress=Silent())
    assert len(made.texts) > len(material.originals.texts)
    settings["arms"]["mat+"]["sources"] = [{"name": "eda", "options": {"alfa": 0.3}}, "eda"]
    with pytest.raises(RecipeError, match=r"sources.0.options: .*'alpha'(.|\n)*sources: expected every source once"):
        study_of(settings)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"held_out": 4}, "one of `test` and `held_out`, but got both"),
        ({"test": None}, "one of `test` and `held_out`, but got none"),
        ({"originals": None}, "new_originals: expected `originals` beside them"),
        ({"new_originals": None}, "arms.new.links: expected `new_originals`"),
        ({"only": ["mat", "mad"]}, r"only: expected names among .* but got \['mad'\]"),
        ({"primary": {"attack": "pgd"}}, "primary: expected an attack and a part of it"),
        ({"primary": {"attack": "sga"}}, "primary: expected an attack and a part of it"),
        ({"primary": {"attack": "co-attack", "rank": 3}}, "primary.rank"),
    ],
)
def test_a_study_that_makes_no_sense_is_refused(settings, change, message):
    with pytest.raises(RecipeError, match=message):
        recipe_of({**settings, **change})


def test_trials_of_an_arm_in_several_tables_are_run_once(settings):
    recipe = recipe_of(settings)
    assert trials(recipe, recipe.arms["mat"]) == [("pgd", "image"), ("co-attack", "joint")]


class Thoughtful:
    """A source that computes: a square product for every text it was not asked about before."""

    name, side = "thoughtful", 128

    def candidates(self, texts, *, model):
        for _ in texts:
            torch.eye(self.side) @ torch.eye(self.side)
        return [tuple(("fox",) for _ in text.split()) for text in texts]


def flop_of(recipe, arm, material, steps):
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        arms.train_arm(
            recipe,
            arm,
            material,
            material.originals,
            steps=steps,
            seed=0,
            run=None,
            device="cpu",
            progress=Silent(),
        )
    return counter.get_total_flops()


def test_what_is_found_once_is_counted_once(settings):
    """Images in steps of half of them: candidates of all texts are found in the first two steps, and known later."""
    recipe = recipe_of(settings)
    material = arms.draw_material(recipe, 0)
    arm = recipe.arms["mat"].model_copy(update={"options": {"source": Thoughtful(), "log_every": 0}})
    cost = arms.training_cost(recipe, arm, material, material.originals, device="cpu")
    assert cost.per_text == 2 * Thoughtful.side**3
    assert cost.texts == len(material.originals.texts)
    assert 2 * cost.new_texts == cost.texts
    for steps in (2, 4):  # whole rounds of the images
        assert cost.of(steps) == pytest.approx(flop_of(recipe, arm, material, steps), rel=0.05)
    plain = arms.training_cost(
        recipe,
        arm.model_copy(update={"options": {"log_every": 0}}),
        material,
        material.originals,
        device="cpu",
    )
    assert plain.per_text == 0


@given(
    per_step=st.floats(1, 100),
    per_text=st.floats(0, 100),
    texts=st.integers(1, 50),
    new_texts=st.floats(0, 20),
    steps=st.integers(1, 60),
)
def test_steps_within_turn_the_cost_around(per_step, per_text, texts, new_texts, steps):
    cost = TrainingCost(per_step, per_text, texts, new_texts)
    assert cost.steps_within(cost.of(steps)) == steps
    assert replace(cost, per_text=0.0).steps_within(per_step / 10) == 1


def test_passes_are_what_the_attack_says(settings, toy_pairs):
    """One step of PGD: embedded clean and adversarial, there and back for the step, and again for its result."""
    recipe = recipe_of(settings)
    model, test = load_model(recipe.model), load_judging(recipe)
    threat = recipe.threat.build().only("image")
    counted = []
    for steps in (1, 4):
        with count_passes(model) as passes:
            evaluate(model, test, attack=make_attack("pgd", steps=steps), threat=threat, device="cpu", examples=0)
        counted.append(passes.images / len(test.images))
    assert counted[1] - counted[0] == 3 * 2
    assert "encode_image" not in vars(model)


def test_the_plan_tells_what_is_left_and_leaves_the_folder_alone(finished):
    plan, settings = finished.plan, finished.settings
    by_name = {arm.name: arm for arm in plan.arms}
    assert list(by_name) == list(settings["arms"])
    assert (by_name["undefended"].trainings, by_name["undefended"].trials) == (0, 2)
    assert (by_name["mat"].trainings, by_name["mat"].trials, by_name["mat"].steps) == (2, 4, 2)
    assert by_name["new"].images == 16
    assert plan.seconds > 0
    assert "8 trainings and 16 trials" in str(plan)
    found = {row.name: row for table in finished.study.tables for row in table.rows}
    for name in ("mat", "new"):  # as many steps for every seed
        assert by_name[name].steps == found[name].steps.mean

    before = content(settings["run"])
    assert plan_study(recipe_of(settings), progress=Silent()).arms == ()
    arms = {name: settings["arms"][name] for name in ("mat", "new")}
    more = recipe_of({**settings, "arms": arms, "seeds": [0, 1, 2]})
    assert [(arm.name, arm.trainings, arm.trials) for arm in plan_study(more, progress=Silent()).arms] == [
        ("mat", 1, 2),
        ("new", 1, 1),
    ]
    assert content(settings["run"]) == before


def test_a_dry_run_prints_the_plan(settings, tmp_path):
    settings["arms"] = {"mat": settings["arms"]["mat"]}
    file = tmp_path / "recipe.yaml"
    file.write_text(json.dumps(settings))
    done = CliRunner().invoke(app, ["study", str(file), "--dry-run", "--quiet"])
    assert done.exit_code == 0
    assert "2 trainings and 4 trials: about" in done.stdout
    assert not Path(settings["run"]).exists()


def test_a_study_computes_with_its_own_threads(settings, monkeypatch):
    """Planning, training and judging; each is only asked how many, for threads get in each other's way on few cores."""
    settings["arms"], settings["seeds"] = {"mat": settings["arms"]["mat"]}, [0]
    used = []

    def noting(result):
        def noted(*args, **options):
            used.append(torch.get_num_threads())
            return result

        return noted

    monkeypatch.setattr(plan, "_seconds_of_trials", noting(defaultdict(float)))
    monkeypatch.setattr(plan, "_seconds_per_flop", noting(1.0))
    monkeypatch.setattr(work, "training_cost", noting(TrainingCost(1.0, 0.0, 8, 0.0)))
    monkeypatch.setattr(perform, "train_arm", noting(load_model(settings["model"])))
    monkeypatch.setattr(perform, "judge", noting(None))
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        study_of({**settings, "threads": 2})
        assert used == [2] * 5
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    with pytest.raises(ValueError, match="`threads` is 2 there and 1 now"):
        study_of(settings)


@pytest.mark.usefixtures("unplanned")
def test_an_attack_has_options_and_a_name_of_its_own(settings):
    table = settings["tables"]["more"]
    table["attacks"] = {
        "pgd": PGD,
        "letters": {"attack": "word-swap", "options": {"source": "characters"}, "parts": ["text"]},
    }
    settings["arms"], settings["seeds"] = {"mat": settings["arms"]["mat"]}, [0]
    found = study_of(settings)
    assert found.tables[1].columns == ("clean", "pgd, image", "letters, text")
    assert found.missing == 0
    table["attacks"]["letters"]["options"] = {"source": "thesaurus"}
    with pytest.raises(ValueError, match="`attack letters"):
        study_of(settings)
    table["attacks"]["letters"]["options"] = {"sauce": "characters"}
    with pytest.raises(RecipeError, match="tables.more.attacks.letters.options: .*did you mean 'source'"):
        study_of(settings)
    settings["tables"]["main"]["attacks"]["letters"] = {"attack": "sep", "parts": ["text"]}
    with pytest.raises(RecipeError, match="attacks.letters: expected the same attack in all tables"):
        recipe_of(settings)
