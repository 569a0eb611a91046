"""Find, read, override and check recipes; all mistakes of a recipe are told at once."""

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from importlib.resources import files
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, TypeAdapter, ValidationError

from crossguard.checks import expanded, lookup, nearest, shown
from crossguard.recipes.schema import (
    AnyRecipe,
    AugmentRecipe,
    CertifyRecipe,
    EvaluateRecipe,
    Recipe,
    StudyRecipe,
    TableRecipe,
    TrainRecipe,
)
from crossguard.recipes.values import LARGEST, read_yaml

VERBS: dict[str, type[BaseModel]] = {
    "evaluate": EvaluateRecipe,
    "table": TableRecipe,
    "train": TrainRecipe,
    "certify": CertifyRecipe,
    "augment": AugmentRecipe,
    "study": StudyRecipe,
}


class RecipeError(ValueError):
    """A recipe with one or more mistakes.

    Args:
        source: the recipe's file or name.
        problems: one line per mistake.
    """

    def __init__(self, source: str, problems: Sequence[str]) -> None:
        self.source = source
        self.problems = tuple(problems)
        count = f"{len(problems)} mistake" + ("" if len(problems) == 1 else "s")
        super().__init__("\n".join([f"{source}: {count}", *(f"  {problem}" for problem in problems)]))


def shipped_recipes() -> dict[str, Path]:
    """Return the recipes that the package ships, by name."""
    folder = Path(str(files("crossguard.recipes")))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find_recipe(source: str) -> Path:
    """Return the file of a recipe given as a path or as the name of a shipped one, which a folder may share.

    Raises:
        ValueError: neither a file nor a shipped name.
    """
    path, shipped = expanded(source), shipped_recipes()
    if path.is_file():
        return path
    if source not in shipped and (source.endswith((".yaml", ".yml")) or "/" in source or path.is_dir()):
        found = "a folder" if path.is_dir() else "nothing"
        raise ValueError(f"Expected a recipe file at {source!r}, but there is {found}.")
    return lookup(shipped, source, what="recipe")


def read_recipe(source: str, overrides: Iterable[str] = ()) -> AnyRecipe:
    """Read a recipe by path or shipped name, apply `key.sub=value` overrides, and check it.

    Raises:
        ValueError: no such recipe.
        RecipeError: not YAML, or mistakes; all of them are listed.
    """
    path = find_recipe(source)
    try:
        with path.open(encoding="utf-8-sig") as file:
            values = read_yaml(file.read(LARGEST + 1))
    except UnicodeDecodeError as error:
        raise RecipeError(str(source), [f"expected YAML in UTF-8, but got: {error}"]) from error
    except OSError as error:
        raise RecipeError(str(source), [f"expected a file that can be read, but got: {error}"]) from error
    except ValueError as error:
        raise RecipeError(str(source), [str(error)]) from error
    if not isinstance(values, dict):
        raise RecipeError(str(source), [f"expected a mapping of settings, but got {type(values).__name__}"])
    return parse_recipe(apply_overrides(values, overrides, source=str(source)), source=str(source))


Wanted = TypeVar("Wanted", bound=BaseModel)


def the_recipe(recipe: BaseModel, wanted: type[Wanted]) -> Wanted:
    """Return a recipe that is for the wanted verb.

    Raises:
        ValueError: it is for another verb.
    """
    if not isinstance(recipe, wanted):
        verbs = {schema: verb for verb, schema in VERBS.items()}
        raise ValueError(
            f"Expected a recipe for `crossguard {verbs[wanted]}`, but got one for `crossguard {verbs[type(recipe)]}`."
        )
    return recipe


def apply_overrides(values: Mapping[str, Any], overrides: Iterable[str], *, source: str) -> dict[str, Any]:
    """Return the settings with each `key.sub=value` put in; values are read as YAML.

    Raises:
        RecipeError: an override that is not `key=value`, or whose path goes through a plain value.

    Example:
        >>> apply_overrides({"data": {"name": "emoji"}}, ["data.split=val", "seed=3"], source="x")
        {'data': {'name': 'emoji', 'split': 'val'}, 'seed': 3}
    """
    result: dict[str, Any] = deepcopy(dict(values))
    problems = []
    for override in overrides:
        key, equals, text = override.partition("=")
        *parents, last = key.split(".")
        place: Any = result
        for parent in parents:
            if isinstance(place, list) and parent.isdigit() and int(parent) < len(place):  # sources.0.name=crops
                place = place[int(parent)]
                continue
            inner = place.setdefault(parent, {}) if isinstance(place, dict) else None
            if inner is None and isinstance(place, dict):
                inner = place[parent] = {}
            place = inner
        if not equals or not all([*parents, last]) or not isinstance(place, dict):
            problems.append(f"override {shown(override)}: expected key.sub=value")
            continue
        try:
            place[last] = read_yaml(text)
        except ValueError as error:
            said = str(error).replace("expected YAML", "expected YAML after '='", 1)
            problems.append(f"override {shown(override)}: {said}")
    if problems:
        raise RecipeError(source, problems)
    return result


def parse_recipe(values: Mapping[str, Any], *, source: str) -> AnyRecipe:
    """Check settings against the schema of their verb.

    Raises:
        RecipeError: with every mistake; an unknown key names the nearest known one.
    """
    verb = values.get("verb")
    if not isinstance(verb, str) or verb not in VERBS:
        raise RecipeError(source, [f"verb: {shown(verb)}: {nearest(str(verb)[:80], VERBS)}"])
    try:
        return TypeAdapter[Any](Recipe).validate_python(values)
    except ValidationError as error:
        schema = VERBS[values["verb"]]
        told = [_explain({**problem, "loc": _as_written(problem["loc"], values)}, schema) for problem in error.errors()]
        raise RecipeError(source, list(dict.fromkeys(told))) from None


def _as_written(loc: Sequence[Any], values: Any) -> list[Any]:
    """Return the path of a mistake as the recipe spells it: a place in a list only where the recipe has a list."""
    path = [loc[0]]  # the verb
    for part in loc[1:]:
        if isinstance(part, int) and not isinstance(values, list):
            continue
        path.append(part)
        if isinstance(values, list):
            values = values[part] if isinstance(part, int) and part < len(values) else None
        else:
            values = values.get(part) if isinstance(values, dict) else None
    return path


def _explain(problem: Any, schema: type[BaseModel]) -> str:
    path = [str(part) for part in problem["loc"][1:]]  # the first part is the verb
    key = ".".join(path)
    if problem["type"] == "extra_forbidden":
        section = _section(schema, path[:-1])
        known = section.model_fields if section is not None else {}
        return f"{key}: unknown key; {nearest(path[-1], known)}"
    if problem["type"] == "missing":
        return f"{key}: missing"
    if problem["type"] == "value_error":  # of a section as a whole
        return f"{key or 'recipe'}: {problem['ctx']['error']}"
    if problem["type"] in ("model_type", "model_attributes_type", "dict_type"):
        section = _section(schema, path)
        keys = f" with {', '.join(section.model_fields)}" if section is not None else ""
        return f"{key}: expected a mapping{keys}, but got {shown(problem['input'])}"
    hint = " (pixels are in [0, 1]: two grey levels are 2/255)" if path == ["threat", "image", "eps"] else ""
    return f"{key}: {problem['msg'][0].lower()}{problem['msg'][1:]}, but got {shown(problem['input'])}{hint}"


def _section(schema: type[BaseModel], path: Sequence[str]) -> type[BaseModel] | None:
    """Return the schema that a path of keys leads to."""
    current: type[BaseModel] | None = schema
    for key in path:
        if key.isdigit():  # a place in a list
            continue
        field = current.model_fields.get(key) if current is not None else None
        current = next(iter(_models(field.annotation)), None) if field is not None else None
    return current


def _models(annotation: Any) -> list[type[BaseModel]]:
    if get_origin(annotation) in (Union, UnionType, list):
        return [model for part in get_args(annotation) for model in _models(part)]
    return [annotation] if isinstance(annotation, type) and issubclass(annotation, BaseModel) else []
