"""The templates of reports."""

from collections.abc import Callable, Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template


def get_template(name: str, *, filters: Mapping[str, Callable[..., Any]]) -> Template:
    """Return a template of this package: values are escaped, and an unknown name is an error.

    Args:
        name: of the file.
        filters: what the template calls, by name.
    """
    environment = Environment(
        loader=PackageLoader("crossguard.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(filters)
    return environment.get_template(name)
