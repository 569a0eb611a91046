"""Checks on arguments: every refusal says what was expected and what came."""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from difflib import get_close_matches
from inspect import Parameter, formatannotation, signature
from typing import Any, TypeVar

T = TypeVar("T")

_OPEN = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)


class WrongKind(TypeError):
    """An object of another kind than was asked for, such as a model without the members that a task needs."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Say which known name is nearest to a mistyped one.

    Example:
        >>> nearest("emojy", ["emoji", "watch"])
        "did you mean 'emoji'? (known: emoji, watch)"
    """
    names = sorted(known)
    hits = get_close_matches(name, names, n=1, cutoff=0.5)
    listing = f"known: {', '.join(names)}"
    return f"did you mean {hits[0]!r}? ({listing})" if hits else listing


def lookup(table: Mapping[str, T], name: str, *, what: str) -> T:
    """Return the row of a table, or raise an error that names the nearest known one.

    Raises:
        ValueError: no row has this name.
    """
    if name not in table:
        raise ValueError(f"Unknown {what} {name!r}: {nearest(name, table)}.")
    return table[name]


def check_choice(given: str, choices: Collection[str], what: str) -> Any:
    """Return a value that is one of the choices.

    Raises:
        ValueError: naming the nearest choice.
    """
    if given not in choices:
        raise ValueError(f"Unknown `{what}` {given!r}: {nearest(str(given), choices)}.")
    return given


def check_options(
    build: Callable[..., Any], options: Mapping[str, Any], *, what: str, own: Collection[str] = ()
) -> None:
    """Refuse options that `build` does not take, naming the nearest one, missing ones, and values of other types.

    Args:
        build: a function or class with annotations.
        options: keyword arguments for it.
        what: what the options are of, in words.
        own: parameters that the caller sets itself, which are no options.

    Raises:
        ValueError: an unknown option, one without a default that is missing, or a value of another type.
    """
    parameters = signature(build).parameters
    known = {name: p for name, p in parameters.items() if name not in own and p.kind not in _OPEN}
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        for option in options:
            if option not in known:
                hint = nearest(option, known) if known else "it takes none"
                raise ValueError(f"Unknown option {option!r} of {what}: {hint}.")
    missing = [name for name, p in known.items() if p.default is p.empty and name not in options]
    if missing:
        raise ValueError(f"Expected the option{'s' * (len(missing) > 1)} {', '.join(map(repr, missing))} of {what}.")
    wrong = ill_typed(build, options)
    if wrong:
        raise ValueError(f"Expected option {wrong[0]} ({what}).")


def ill_typed(build: Callable[..., Any], options: Mapping[str, Any]) -> list[str]:
    """Say which options have values of other types than `build` declares.

    A whole number passes for a fraction and a list for a tuple; types that are no plain values are passed over.

    Args:
        build: a function or class with annotations.
        options: keyword arguments for it; names that it does not take are passed over.

    Returns:
        One phrase per option, for example "`steps` to be int, but got 'ten'".
    """
    from pydantic import TypeAdapter, ValidationError
    from pydantic.errors import PydanticSchemaGenerationError, PydanticUndefinedAnnotation

    found = []
    for name, parameter in signature(build).parameters.items():
        if name not in options or parameter.annotation is parameter.empty:
            continue
        given = options[name]
        if getattr(given, "ndim", 0):  # an array: whoever takes it checks it
            continue
        plain = given.item() if hasattr(given, "item") else given  # NumPy's numbers
        try:
            wanted = TypeAdapter[Any](parameter.annotation)
        except (PydanticSchemaGenerationError, PydanticUndefinedAnnotation, NameError):
            continue
        for form in (plain, tuple(plain)) if isinstance(plain, list) else (plain,):
            try:
                wanted.validate_python(form, strict=True)
            except ValidationError:
                continue
            break
        else:
            declared = re.sub(r"(\w+\.)+", "", formatannotation(parameter.annotation)).strip("'")
            found.append(f"`{name}` to be {declared.replace('Literal[', 'one of [')}, but got {given!r}")
    return found
