"""Check what a recipe names, and all else about it that can be known before its data are read."""

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import fields
from inspect import signature
from pathlib import Path
from typing import Any

import torch

from crossguard.attacks import ATTACKS, SOURCES, make_attack
from crossguard.augment import AUGMENTATIONS
from crossguard.checks import WrongKind, check_options, ill_typed, nearest, shown, visible
from crossguard.data import DATASETS
from crossguard.evaluate.task import Task, check_budgets, task_options
from crossguard.evaluate.tasks import TASKS
from crossguard.models import MODELS
from crossguard.models.table import row_of
from crossguard.recipes.schema import (
    SPELLED,
    AnyRecipe,
    Attack,
    AugmentationSource,
    AugmentRecipe,
    CertifyRecipe,
    Checkpoint,
    Data,
    EvaluateRecipe,
    StudyRecipe,
    TableRecipe,
    TrainRecipe,
)
from crossguard.table import OWN_PARTS
from crossguard.training import DEFENCES, TrainOptions
from crossguard.training.ablated_options import AblatedOptions, AblatedSegmenterOptions
from crossguard.training.lora import read_lora
from crossguard.training.plan import inner_budgets

SET_BY_RECIPE = frozenset({"keep", "steps", "seed", "device", "joint", "augment", "progress", "folder", "lengths"})
"""What a recipe gives to training on ablated inputs, beside its options."""

ABLATED = {"classifier": AblatedOptions, "segmenter": AblatedSegmenterOptions}
"""Options of training on ablated inputs, by what a model is."""


def check_names(recipe: AnyRecipe) -> list[str]:
    """Return one line per mistake: names that no table holds, options that nothing takes or that are out of range.

    Everything is looked at that can be known before data are read or weights loaded.
    """
    problems = [*_device(recipe.device), *_run(recipe.run)]
    if isinstance(recipe, EvaluateRecipe):
        problems += _evaluate(recipe)
    elif isinstance(recipe, TrainRecipe):
        problems += _train(recipe)
    elif isinstance(recipe, AugmentRecipe):
        problems += _augment(recipe)
    elif isinstance(recipe, TableRecipe):
        problems += _table(recipe)
    elif isinstance(recipe, StudyRecipe):
        problems += [*_model(recipe.model, "vision-language"), *_data(recipe.data, "data", "pairs")]
        problems += [*([] if recipe.test is None else _data(recipe.test, "test", "pairs")), *_study(recipe)]
    else:
        problems += _certify(recipe)
    return problems


def _device(wanted: str | None) -> Iterator[str]:
    try:
        torch.device(wanted or "cpu")
    except RuntimeError:
        yield f"device: expected a device of PyTorch, such as cpu or cuda:0, but got {wanted!r}"


def _run(folder: str) -> Iterator[str]:
    """A file where the run folder, or a folder around it, is to be."""
    for place in (folder, *map(str, Path(folder).parents)):
        if os.path.exists(place) and not os.path.isdir(place):
            yield f"run: expected a folder, but {visible(place)} is a file"
            return


def _evaluate(recipe: EvaluateRecipe) -> Iterator[str]:
    yield from _row(TASKS, recipe.task, "task")
    asked = [(f"attacks.{place}", attack) for place, attack in enumerate(recipe.attacks)]
    if recipe.attack is not None:
        asked.append(("attack", recipe.attack))
        if recipe.attacks:
            yield "attack, attacks: expected one of them, but got both"
    if recipe.save_to is not None and not asked:
        yield "save_to: expected an attack, whose pictures and texts it keeps, but the recipe has none"
    if recipe.task not in TASKS:
        return
    task = TASKS[recipe.task]
    yield from _data(recipe.data, "data", task.reads)
    yield from _task_options(recipe, task)
    yield from _model(recipe.model, *task.models)
    yield from _checkpoints(recipe.models, *task.models)
    for key, attack in asked:
        yield from _attack(ATTACKS, attack, key)
        if task.of_samples and attack.name in ATTACKS and not ATTACKS[attack.name].samples:
            yield f"{key}.name: expected an attack on samples, such as adaptive, but {attack.name!r} needs texts"
    if task.reads == "samples":
        yield from _sample_threat(recipe, task)
        if bool(asked) != bool(recipe.threat.modalities):
            yield "threat.modalities: expected budgets together with an attack, and none without"
    elif recipe.threat.modalities:
        yield f"threat.modalities: expected it only with samples, but the task is {task.name}: name image and text"
    if not task.of_samples and all(attack.name in ATTACKS for _, attack in asked):
        yield from _threat(recipe, [attack for _, attack in asked])


def _table(recipe: TableRecipe) -> Iterator[str]:
    yield from _row(TASKS, recipe.task, "task")
    for name, data in recipe.sets.items():
        yield from _data(data, f"sets.{name}", "images")
    yield from _checkpoints(recipe.models, "vision-language")
    yield from _attack(ATTACKS, recipe.attack, "attack")
    if recipe.attack.name in ATTACKS and not ATTACKS[recipe.attack.name].samples:
        yield f"attack.name: expected one on labelled pictures, such as auto-attack, but got {recipe.attack.name!r}"
    if recipe.task in TASKS:
        if TASKS[recipe.task].reads != "images":
            yield f"task: expected one of labelled images, but {recipe.task!r} reads {TASKS[recipe.task].reads}"
        yield from _task_options(recipe, TASKS[recipe.task])


def _checkpoints(models: Mapping[str, Checkpoint], *kinds: str) -> Iterator[str]:
    for name, model in models.items():
        if not Path(model.source).is_file():
            yield from (f"models.{name}: {told}" for told in _model(model.source, *kinds, adapters=True))
        if model.base is not None:
            yield from (f"models.{name}.base: {told}" for told in _model(model.base, *kinds))


def _task_options(recipe: EvaluateRecipe | TableRecipe, task: type[Task]) -> Iterator[str]:
    """Options that the task does not have, and values of other types."""
    known = task_options(task)
    for name in recipe.options:
        if name not in known:
            yield f"options.{name}: unknown option of the task {task.name}; {nearest(name, known)}"
    for wrong in ill_typed(task, {name: value for name, value in recipe.options.items() if name in known}):
        yield f"options: expected {wrong}"


def _threat(recipe: EvaluateRecipe, asked: Collection[Attack]) -> Iterator[str]:
    threats = recipe.threat.build()
    if not asked:
        if threats:
            yield f"threat: expected an attack that uses it ({threats[0]}), but the recipe has none"
        return
    threat = threats[-1] if threats else None
    for attack in asked:
        if attack.name == "saved" and threat is None:
            continue  # its set was made within one
        built = _cheaply_built(attack)
        if built is None:
            continue
        if threat is None:
            yield f"threat: expected a threat model that says what attack {attack.name!r} may do, but got none"
            continue
        used = [modality for modality in threat if modality in built.uses]
        told: set[str] = set()
        for each in threats:
            given = each.only(*used) if used and recipe.attacks else each
            try:
                check_budgets(built, given)
                built.budgets(given)
            except ValueError as error:
                told.add(f"threat: {_said(error)}")
        yield from sorted(told)


def _cheaply_built(attack: Attack) -> Any:
    """Return an attack with its own source of words, which may need weights; None where it cannot be built."""
    try:
        return make_attack(attack.name, **{name: v for name, v in attack.options.items() if name != "source"})
    except (ValueError, WrongKind, ImportError, OSError):
        return None


def _train(recipe: TrainRecipe) -> Iterator[str]:
    for key in ("data", "new_originals", "validation"):
        if getattr(recipe, key) is not None:
            yield from _data(getattr(recipe, key), key, "pairs", also="expressions")
    yield from _model(recipe.model, "vision-language", "captioner")
    yield from _row(DEFENCES, recipe.defence, "defence")
    yield from _training_options(recipe)
    if recipe.options.get("keep") == "best" and recipe.validation is None:
        yield "options.keep: expected `validation` data to find the best by, but the recipe has none"
    if (recipe.options.get("links") == "new-originals") != (recipe.new_originals is not None):
        yield "new_originals: expected it together with options.links: new-originals, and not without"
    captions = _kind(recipe.model) == "captioner"
    if recipe.defence in DEFENCES:
        row = DEFENCES[recipe.defence]
        try:
            inner_budgets(row.name, row.attacks - ({"text"} if captions else set()), recipe.threat.build())
        except ValueError as error:
            yield f"threat: {_said(error)}"
        if recipe.options.get("positives") == "drawn" and not row.one_to_many and "links" not in recipe.options:
            yield f"options.positives: expected 'summed' for {row.name!r}, which has one target per image"


def _augment(recipe: AugmentRecipe) -> Iterator[str]:
    yield from _data(recipe.data, "data", "pairs", also="expressions")
    yield from _sources(recipe.sources, "sources")
    if recipe.model is not None:
        yield from _model(recipe.model, "vision-language")
    elif recipe.min_alignment is not None:
        yield "min_alignment: expected a `model` to measure alignment with, but the recipe has none"


def _sources(sources: Sequence[AugmentationSource], key: str) -> Iterator[str]:
    """Augmentation sources that no table holds, options that they do not take, and names that come again."""
    for place, source in enumerate(sources):
        at = f"{key}.{place}"
        yield from _row(AUGMENTATIONS, source.name, f"{at}.name")
        if source.name in AUGMENTATIONS:
            what = f"augmentation source {source.name!r}"
            yield from _options(AUGMENTATIONS[source.name].build, source.options, at, what=what, build=True)
    names = [source.name for source in sources]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"{key}: expected every source once, but got {name!r} {names.count(name)} times"


def _certify(recipe: CertifyRecipe) -> Iterator[str]:
    reads = "samples" if recipe.gallery is None else "images" if recipe.gallery.of == "classes" else "pairs"
    yield from _data(recipe.data, "data", reads)
    own = {**recipe.keep, **recipe.noise}
    named: dict[str, Sequence[Mapping[str, Any]]] = {
        "early": [recipe.early or {}],
        "radii": [recipe.radii or {}],
        "curve": [] if recipe.curve is None else recipe.curve.build(),
        "maps.radii": [] if recipe.maps is None else [recipe.maps.radii],
        "attack.vectors": [] if recipe.attack is None else recipe.attack.vectors,
        "lengths": [recipe.lengths],
        "units": [recipe.units],
        "train.keep": [] if recipe.train is None else [recipe.train.keep or {}],
    }
    for key, vectors in named.items():
        for name in sorted({name for vector in vectors for name in vector} - own.keys()):
            yield f"{key}: unknown modality {name!r}; {nearest(name, own)} (`keep`{', `noise`' * bool(recipe.noise)})"
    if recipe.train is None:
        kinds = ("vision-language",) if recipe.gallery is not None else ("classifier", "segmenter")
        yield from _model(recipe.model, *kinds)
        return
    yield from _data(recipe.train.data.completed(recipe.data), "train.data", "samples")
    yield from _row(MODELS, recipe.model, "model")
    row = MODELS.get(recipe.model)
    if row is None:
        return
    if row.fresh is None or row.kind not in ("classifier", "segmenter"):
        known = ", ".join(name for name, other in MODELS.items() if other.fresh is not None)
        yield f"model: expected one that can be trained from nothing ({known}), but got {recipe.model!r}"
        return
    masks = row.kind == "segmenter"
    given = {"samples", "seed"}
    yield from _options(row.fresh, recipe.train.model, "train", what="`train.model`", own=given, name="model")
    yield from _options(ABLATED[row.kind], recipe.train.options, "train", what="`train.options`", own=SET_BY_RECIPE)
    fits = "flip-and-tint" if masks else "turn-sensors"
    if recipe.train.augment not in (None, fits):
        yield f"train.augment: expected {fits!r} or none for a {row.kind}, but got {recipe.train.augment!r}"
    if masks and recipe.bound != "majority":
        yield f"bound: expected 'majority' for masks, but got {recipe.bound!r}"
    for key in ("maps", "positive", "collective"):
        if not masks and getattr(recipe, key):
            yield f"{key}: expected it for masks alone, but {recipe.model!r} labels whole samples"


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
    taken = {name: value for name, value in options.items() if name in known}
    wrong = ill_typed(TrainOptions, taken)
    yield from (f"{key}: expected {each}" for each in wrong)
    if not wrong:
        yield from _told(key, lambda: TrainOptions.read(taken))
        yield from _told(f"{key}.lora", lambda: read_lora(taken.get("lora")))
        if "validation_attack" in taken:
            yield from _row(ATTACKS, taken["validation_attack"], f"{key}.validation_attack")
        yield from _source(taken.get("source"), key)


# What a study gives all arms alike, has under another name, or does not do.
_GIVEN_BY_STUDY = frozenset(
    {
        *("defence", "threat", "links", "new_originals", "steps", "seed", "batch_size"),
        *("validation", "validation_attack", "validate_every", "keep", "tracker", "log_every"),
    }
)


def _sample_threat(recipe: EvaluateRecipe, task: type[Task]) -> Iterator[str]:
    """Budgets of samples are those of `threat.modalities`, and of the attack's own type."""
    for name in ("image", "text"):
        if getattr(recipe.threat, name) is not None:
            yield f"threat.{name}: expected it under threat.modalities, by the modality's name, with task: {task.name}"
    row = None if recipe.attack is None else ATTACKS.get(recipe.attack.name)
    if row is not None and row.samples:
        wanted = " or ".join(f"`{SPELLED[kind]}`" for kind in row.takes if kind in SPELLED)
        for name, budgets in recipe.threat.modalities.items():
            if not all(isinstance(budget.build(), row.takes) for budget in budgets):
                yield f"threat.modalities.{name}: expected {wanted}, which attack {row.name!r} takes"


def _study(recipe: StudyRecipe) -> Iterator[str]:
    for name, table in recipe.tables.items():
        for own, judging in table.attacks.items():
            key, attack = f"tables.{name}.attacks.{own}", judging.named(own)
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
    yield from _unknown_options(recipe.options, "options", given=_GIVEN_BY_STUDY | {"learning_rate"})
    for name, arm in recipe.arms.items():
        if arm.defence is not None:
            yield from _row(DEFENCES, arm.defence, f"arms.{name}.defence")
        yield from _unknown_options(arm.options, f"arms.{name}.options", given=_GIVEN_BY_STUDY)
        yield from _sources(arm.sources, f"arms.{name}.sources")


def _row(table: Mapping[str, Any], name: str, key: str) -> Iterator[str]:
    if name not in table:
        yield f"{key}: unknown name {name!r}; {nearest(name, table)}. {OWN_PARTS}"


def _attack(table: Mapping[str, Any], attack: Attack, key: str) -> Iterator[str]:
    yield from _row(table, attack.name, f"{key}.name")
    if attack.name in table:
        what = f"attack {attack.name!r}"
        yield from _options(table[attack.name].build, attack.options, key, what=what, build=True)


def _options(
    make: Callable[..., Any],
    options: Mapping[str, Any],
    key: str,
    *,
    what: str,
    own: Collection[str] = (),
    name: str = "options",
    build: bool = False,
) -> Iterator[str]:
    """Options that `make` does not take; with `build` also those out of range, where that needs no weights."""
    found = [*_told(f"{key}.{name}", lambda: check_options(make, options, what=what, own=own))]
    if build and not found and "model" not in signature(make).parameters:
        found = [*_source(options.get("source"), f"{key}.{name}")]
        light = {option: value for option, value in options.items() if option != "source" or isinstance(value, str)}
        found = found or [*_told(f"{key}.{name}", lambda: make(**light))]
    yield from found


def _source(source: Any, key: str) -> Iterator[str]:
    """A source of words by name with options; its weights, if it has any, are left alone."""
    if source is None:
        return
    given = source if isinstance(source, Mapping) else {"name": source}
    name = given.get("name")
    if not isinstance(name, str) or name not in SOURCES:
        yield f"{key}.source: unknown name {shown(name)}; {nearest(str(name), SOURCES)}. {OWN_PARTS}"
        return
    own = {option: value for option, value in given.items() if option != "name"}
    what = f"candidate source {name!r}"
    yield from _told(f"{key}.source", lambda: check_options(SOURCES[name].build, own, what=what))


def _told(key: str, work: Callable[[], object]) -> Iterator[str]:
    """What is wrong, if anything is, as a line of its own."""
    try:
        work()
    except (ValueError, WrongKind, ImportError, OSError) as error:
        yield f"{key}: {_said(error)}"


def _said(error: Exception) -> str:
    said = str(error).removesuffix(".")
    return f"{said[:1].lower()}{said[1:]}"


def _data(data: Data, key: str, gives: str, *, also: str = "") -> Iterator[str]:
    if data.name in DATASETS and DATASETS[data.name].gives not in (gives, also):
        yield f"{key}.name: {data.name!r} holds {DATASETS[data.name].gives}, but this verb takes {gives}"
    yield from _row(DATASETS, data.name, f"{key}.name")
    if data.name in DATASETS:
        own = ("split", "progress")  # what the recipe has elsewhere, and the verb sets
        yield from _options(DATASETS[data.name].load, data.options, key, what=f"data set {data.name!r}", own=own)


def _model(source: str, *kinds: str, adapters: bool = False) -> Iterator[str]:
    """A model that is not there, or of another kind than those that a verb takes; or, with a base, parts of one."""
    shipped = [row.name for row in MODELS.values() if row.ships]
    if source not in shipped and not Path(source).is_dir() and not _is_hub_id(source):
        known = nearest(source, shipped)
        yield f"model: {shown(source)} is no folder, hub id or shipped model; {known}. {OWN_PARTS}"
        return
    if adapters and Path(source).is_dir():
        return
    if source not in shipped and Path(source).is_dir():
        yield from _told("model", lambda: row_of(source))
    kind = _kind(source)
    if kind is not None and kind not in kinds:
        yield f"model: expected a {' or '.join(kinds)} model, but {shown(source)} is a {kind} model"


def _kind(source: str) -> str | None:
    """Return which protocol a model meets; None where only loading it tells."""
    if source in MODELS and MODELS[source].ships:
        return MODELS[source].kind
    try:
        return row_of(source).kind if Path(source).is_dir() else None
    except ValueError:
        return None


def _is_hub_id(source: str) -> bool:
    return source.count("/") == 1 and not source.startswith((".", "/", "~"))
