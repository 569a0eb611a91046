"""Summaries that are JSON, but not as they were written."""

from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from jinja2 import TemplateError

from crossguard.checks import some

Given = ParamSpec("Given")
Made = TypeVar("Made")
Paths = Sequence[Path | str]


def told_of_damage(
    show: Callable[Concatenate[Paths, Given], Made],
) -> Callable[Concatenate[Paths, Given], Made]:
    """Let a function of run folders say in a sentence that what it found there is not what a run writes."""

    @wraps(show)
    def shown(paths: Paths, /, *args: Given.args, **kwargs: Given.kwargs) -> Made:
        try:
            return show(paths, *args, **kwargs)
        except (LookupError, TypeError, AttributeError, ArithmeticError, ValueError, TemplateError) as error:
            if isinstance(error, ValueError) and str(error).startswith(("Expected", "Unknown")):
                raise
            raise ValueError(
                f"Expected the files that crossguard writes in {some([str(path) for path in paths])}, but one of them "
                f"is damaged: {type(error).__name__} {error}."
            ) from error

    return shown
