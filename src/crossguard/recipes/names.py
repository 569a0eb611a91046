"""Check a recipe's names, and the options of attacks and data sets, against the tables."""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from crossguard.attacks import ATTACKS
from crossguard.attacks.sample_attacks import SAMPLE_ATTACKS
from crossguard.augment import AUGMENTATIONS
from crossguard.checks import check_options, ill_typed, nearest
from crossguard.data import DATASETS
from crossguard.models import MODELS
from crossguard.recipes.schema import (
    AnyRecipe,
    Attack,
    AugmentRecipe,
    CertifyRecipe,
    Data,
    EvaluateRecipe,
    StudyRecipe,
    TrainRecipe,
)
from crossguard.table import OWN_PARTS
from crossguard.threat import Elements
from crossguard.training import DEFENCES, TrainOptions


def check_names(recipe: AnyRecipe) -> list[str]:
    """Return one line per name or option of a recipe that no table holds, each with the nearest known one."""
    gives = "samples" if isinstance(recipe, CertifyRecipe) else "pairs"
    if isinstance(recipe, EvaluateRecipe):
        gives = {"grounding": "expressions", "samples": "samples"}.get(recipe.task, gives)
    problems = [*_data(recipe.data, "data", gives)]
    if isinstance(recipe, EvaluateRecipe):
        problems += [*_task(recipe)]
        problems += [*_model(recipe.model)]
        for place, attack in enumerate(recipe.attacks):
            problems += [*_attack(ATTACKS, attack, f"attacks.{place}")]
        if recipe.attack is not None and recipe.attacks:
            problems.append("attack, attacks: expected one of them, but got both")
        if recipe.attack is not None:
            problems += [*_attack(SAMPLE_ATTACKS if recipe.task == "samples" else ATTACKS, recipe.attack, "attack")]
    elif isinstance(recipe, TrainRecipe):
        problems += [*_model(recipe.model), *_row(DEFENCES, recipe.defence, "defence")]
        problems += [*_training_options(recipe)]
        if recipe.new_originals is not None:
            problems += [*_data(recipe.new_originals, "new_originals", "pairs")]
        if recipe.validation is not None:
            problems += [*_data(recipe.validation, "validation", "pairs")]
    elif isinstance(recipe, AugmentRecipe):
        for place, source in enumerate(recipe.sources):
            problems += [*_row(AUGMENTATIONS, source.name, f"sources.{place}.name")]
        if recipe.model is not None:
            problems += [*_model(recipe.model)]
    elif isinstance(recipe, StudyRecipe):
        problems += [*_model(recipe.model), *_data(recipe.test, "test", "pairs"), *_study(recipe)]
    elif recipe.train is not None:
        problems += [
            *_row(MODELS, recipe.model, "model"),
            *_data(recipe.train.data.completed(recipe.data), "train.data", "samples"),
        ]
    else:
        problems += [*_model(recipe.model)]
    return problems


def _training_options(recipe: TrainRecipe) -> Iterator[str]:
    """Options that the trainer does not have, or that the recipe has at its top."""
    at_top = TrainRecipe.model_fields.keys()
    for name in recipe.options.keys() & at_top:
        yield f"options.{name}: belongs at the top of the recipe, as {name}"
    yield from _unknown_options(
        {name: value for name, value in recipe.options.items() if name not in at_top}, "options", given=at_top
    )


def _unknown_options(options: Mapping[str, Any], key: str, *, given: Collection[str]) -> Iterator[str]:
    """Options that the trainer does not have, or that are given by other means, and values of other types."""
    known = {field.name for field in fields(TrainOptions)} - set(given)
    for name in options:
        if name not in known:
            yield f"{key}.{name}: unknown option; {nearest(name, known)}"
    for wrong in ill_typed(TrainOptions, {name: value for name, value in options.items() if name in known}):
        yield f"{key}: expected {wrong}"


# What a study gives all arms alike, has under another name, or does not do.
_GIVEN_BY_STUDY = frozenset(
    {
        *("defence", "threat", "links", "new_originals", "steps", "seed", "batch_size"),
        *("validation", "validation_attack", "validate_every", "keep", "tracker", "log_every"),
    }
)


def _task(recipe: EvaluateRecipe) -> Iterator[str]:
    """Settings that another task has are mistakes: they would be passed over in silence."""
    for task in ("grounding", "captioning", "samples"):
        if getattr(recipe, task) is not None and recipe.task != task:
            yield f"{task}: expected these settings only with task: {task}, but the task is {recipe.task}"
    if recipe.task == "samples":
        yield from _sample_threat(recipe)
    elif recipe.threat.modalities:
        yield f"threat.modalities: expected it only with task: samples, but the task is {recipe.task}"
    if recipe.task == "retrieval":
        return
    for name, given in (
        ("attacks", recipe.attacks),
        ("probe", recipe.probe),
        ("save_to", recipe.save_to),
        ("rerank", recipe.rerank),
    ):
        if given:
            yield f"{name}: expected it only with task: retrieval, but the task is {recipe.task}"


def _sample_threat(recipe: EvaluateRecipe) -> Iterator[str]:
    """Budgets of samples are those of `threat.modalities`, and of the attack's own type."""
    for name in ("image", "text"):
        if getattr(recipe.threat, name) is not None:
            yield f"threat.{name}: expected it under threat.modalities, by the modality's name, with task: samples"
    row = None if recipe.attack is None else SAMPLE_ATTACKS.get(recipe.attack.name)
    for name, budget in recipe.threat.modalities.items():
        if row is not None and not isinstance(budget.build(), row.takes):
            wanted = "elements" if row.takes is Elements else "eps"
            yield f"threat.modalities.{name}: expected `{wanted}`, which attack {row.name!r} takes"


def _study(recipe: StudyRecipe) -> Iterator[str]:
    for name, table in recipe.tables.items():
        for shown, judging in table.attacks.items():
            key, attack = f"tables.{name}.attacks.{shown}", judging.named(shown)
            if judging.attack is None:
                yield from _row(ATTACKS, attack.name, f"tables.{name}.attacks")
            else:
                yield from _row(ATTACKS, attack.name, f"{key}.attack")
            if attack.name not in ATTACKS:
                continue
            yield from _options(ATTACKS[attack.name].build, attack.options, key, what=f"attack {attack.name!r}")
            uses = ATTACKS[attack.name].uses
            for part in judging.parts:
                if not {"image", "text"} & uses >= ({"image", "text"} if part == "joint" else {part}):
                    yield f"{key}: {part!r} is more than it attacks ({', '.join(sorted(uses))})"
    for name, arm in recipe.arms.items():
        if arm.defence is not None:
            yield from _row(DEFENCES, arm.defence, f"arms.{name}.defence")
        yield from _unknown_options(arm.options, f"arms.{name}.options", given=_GIVEN_BY_STUDY)
        for place, source in enumerate(arm.sources):
            yield from _row(AUGMENTATIONS, source, f"arms.{name}.sources.{place}")


def _row(table: Mapping[str, Any], name: str, key: str) -> Iterator[str]:
    if name not in table:
        yield f"{key}: unknown name {name!r}; {nearest(name, table)}. {OWN_PARTS}"


def _attack(table: Mapping[str, Any], attack: Attack, key: str) -> Iterator[str]:
    yield from _row(table, attack.name, f"{key}.name")
    if attack.name in table:
        yield from _options(table[attack.name].build, attack.options, key, what=f"attack {attack.name!r}")


def _options(
    build: Callable[..., Any], options: Mapping[str, Any], key: str, *, what: str, own: Collection[str] = ()
) -> Iterator[str]:
    try:
        check_options(build, options, what=what, own=own)
    except ValueError as error:
        said = str(error).removesuffix(".")
        yield f"{key}.options: {said[0].lower()}{said[1:]}"


def _data(data: Data, key: str, gives: str) -> Iterator[str]:
    if data.name in DATASETS and DATASETS[data.name].gives != gives:
        yield f"{key}.name: {data.name!r} holds {DATASETS[data.name].gives}, but this verb takes {gives}"
    yield from _row(DATASETS, data.name, f"{key}.name")
    if data.name in DATASETS:
        own = ("split", "progress")  # what the recipe has elsewhere, and the verb sets
        yield from _options(DATASETS[data.name].load, data.options, key, what=f"data set {data.name!r}", own=own)


def _model(source: str) -> Iterator[str]:
    shipped = [row.name for row in MODELS.values() if row.ships]
    hub_id = source.count("/") == 1 and not source.startswith((".", "/", "~"))
    if source not in shipped and not Path(source).is_dir() and not hub_id:
        known = nearest(source, shipped)
        yield f"model: {source!r} is no folder, hub id or shipped model; {known}. {OWN_PARTS}"
