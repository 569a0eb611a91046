"""The templates of reports."""

from collections.abc import Callable, Mapping, Sequence
from types import CodeType
from typing import Any

from jinja2 import BytecodeCache, Environment, PackageLoader, StrictUndefined, Template
from jinja2.bccache import Bucket

from crossguard.report.colours import DARK, LIGHT
from crossguard.report.views import RunView


class _Compiled(BytecodeCache):
    """The templates that this process has compiled, which takes longer than to fill them in."""

    def __init__(self) -> None:
        self._kept: dict[str, CodeType | None] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        bucket.code = self._kept.get(bucket.key)

    def dump_bytecode(self, bucket: Bucket) -> None:
        self._kept[bucket.key] = bucket.code


_COMPILED = _Compiled()


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
        bytecode_cache=_COMPILED,
    )
    environment.filters.update(filters)
    environment.tests["differs"] = _differs
    environment.globals["colours"] = {"light": LIGHT, "dark": DARK}
    return environment.get_template(name)


def _differs(name: str, runs: Sequence[RunView]) -> bool:
    """Whether a fact has several values among runs."""
    return len({run.facts.get(name, "") for run in runs}) > 1
