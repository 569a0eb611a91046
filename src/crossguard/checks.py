"""Checks on arguments: every refusal says what was expected and what came."""

import re
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from inspect import formatannotation, signature
from typing import Any, TypeVar

T = TypeVar("T")


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
