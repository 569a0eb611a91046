"""Checks on arguments: every refusal says what was expected and what came."""

import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from difflib import get_close_matches
from inspect import Parameter, formatannotation, signature
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

_OPEN = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)


class WrongKind(TypeError):
    """An object of another kind than was asked for, such as a model without the members that a task needs."""


def visible(text: object) -> str:
    """Return a text with control characters and the like written out, so that a terminal does not obey them.

    Example:
        >>> visible("a\x1b[2J.jpg")
        'a\\x1b[2J.jpg'
    """
    said = str(text)
    if said.isprintable():
        return said
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in said)


def shown(value: object, *, most: int = 200) -> str:
    """Return a value as Python writes it, cut where it is long.

    Example:
        >>> shown("a" * 300, most=5)
        "'aaaa..."
    """
    said = repr(value)
    return said if len(said) <= most else f"{said[:most]}..."


def expanded(path: str | os.PathLike[str]) -> Path:
    """Return a path with `~` as the home folder; that of a user whom the machine does not know stays as it is.

    Example:
        >>> expanded("~nobody-at-all/x").as_posix()
        '~nobody-at-all/x'
    """
    return Path(os.path.expanduser(path))


def some(names: Sequence[object], *, shown: int = 5, most: int = 200) -> str:
    """Name the first few of many, each made harmless for a terminal and cut where it is long.

    Example:
        >>> some(range(9)), some(["a" * 300], most=5)
        ('0, 1, 2, 3, 4, ...', 'aaaaa...')
    """
    told = [said if len(said) <= most else f"{said[:most]}..." for said in map(visible, names[:shown])]
    return ", ".join(told) + (", ..." if len(names) > shown else "")


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


def plain(value: Any) -> Any:
    """Return a NumPy number (or tensor of one) as Python's own; anything else as it is.

    Example:
        >>> import numpy as np
        >>> plain(np.int64(3)), plain("3")
        (3, '3')
    """
    return value.item() if hasattr(value, "item") and not getattr(value, "ndim", 0) else value


def check_whole(value: Any, name: str, *, least: int) -> int:
    """Return a whole number of any integral type, NumPy's among them, as Python's own.

    Raises:
        ValueError: it is no whole number, or below `least`.

    Example:
        >>> check_whole(True, "steps", least=1)
        Traceback (most recent call last):
        ValueError: Expected `steps` to be a whole number >= 1, but got True.
    """
    given = plain(value)
    if isinstance(given, bool) or not isinstance(given, int) or given < least:
        raise ValueError(f"Expected `{name}` to be a whole number >= {least}, but got {value!r}.")
    return given


def check_range(value: Any, name: str, *, below: float, zero: bool = True) -> None:
    """Refuse a number outside [0, below), or outside (0, below) with `zero` off.

    Raises:
        ValueError: saying what came.
    """
    if not (0 <= value < below) or (value == 0 and not zero):
        raise ValueError(f"Expected `{name}` in {'[0' if zero else '(0'}, {below:g}), but got {value!r}.")


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
    check_option_names(build, options, what=what, own=own)
    wrong = ill_typed(build, options)
    if wrong:
        raise ValueError(f"Expected option {wrong[0]} ({what}).")


def check_option_names(
    build: Callable[..., Any], options: Mapping[str, Any], *, what: str, own: Collection[str] = ()
) -> None:
    """Refuse options that `build` does not take, naming the nearest one, and missing ones; see `check_options`."""
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
        number = plain(given)
        try:
            wanted = TypeAdapter[Any](parameter.annotation)
        except (PydanticSchemaGenerationError, PydanticUndefinedAnnotation, NameError):
            continue
        for form in (number, tuple(number)) if isinstance(number, list) else (number,):
            try:
                wanted.validate_python(form, strict=True)
            except ValidationError:
                continue
            break
        else:
            declared = re.sub(r"(\w+\.)+", "", formatannotation(parameter.annotation)).strip("'")
            found.append(f"`{name}` to be {declared.replace('Literal[', 'one of [')}, but got {given!r}")
    return found
