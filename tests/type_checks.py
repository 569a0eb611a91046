"""Types and shapes are checked at the first calls of every function of the library in every test.

Later calls of a test repeat the first ones, in loops mostly; checking them all would take most of the time.

jaxtyping has a hook for imports too. It makes the checks of all functions at once, and has Python compile anew whatever
the library's modules import: half of the time before the first test.
"""

import ast
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import is_dataclass
from functools import wraps
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import CodeType, ModuleType
from typing import Any

from beartype import beartype
from jaxtyping import config, jaxtyped

CALLS = 3
_PACKAGE, _NAME = "crossguard", "__checked__"


class _Kept:
    """What this module keeps beside functions; it is no part of what they are, wherever that is told."""

    def __reduce__(self) -> str:
        return "kept"


class _Count(_Kept):
    test = calls = 0


class _Check(_Kept):
    made: Callable[..., Any] | None = None


# By code: what is defined within a function is another function each time.
_counts: dict[CodeType, _Count] = {}
_run = _Count()


def begin_test() -> None:
    """Check the first calls again."""
    _run.test += 1


def checked(thing: Any) -> Any:
    """Check the arguments and the result of a function, or what a dataclass is made of."""
    if isinstance(thing, type):
        if is_dataclass(thing) and not hasattr(thing.__init__, "__wrapped__"):
            thing.__init__ = _checked(thing.__init__)  # type: ignore[method-assign]
        return thing
    return _checked(thing)


def _checked(function: Callable[..., Any]) -> Callable[..., Any]:
    count, check = _counts.setdefault(function.__code__, _Count()), _Check()

    @wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        __tracebackhide__ = True
        if count.test != _run.test:
            count.test, count.calls = _run.test, 0
        count.calls += 1
        if count.calls > CALLS or config.jaxtyping_disable:
            return function(*args, **options)
        if check.made is None:  # now, since no test calls many of the functions
            check.made = jaxtyped(function, typechecker=beartype)
        return check.made(*args, **options)

    return call


def _definitions(statements: Sequence[ast.AST]) -> Iterator[ast.FunctionDef | ast.ClassDef]:
    for statement in statements:
        if isinstance(statement, ast.FunctionDef | ast.ClassDef):
            yield statement
        for inner in ("body", "orelse", "finalbody", "handlers", "cases"):
            found = getattr(statement, inner, ())
            yield from _definitions(found if isinstance(found, list) else ())


class _Loader(SourceFileLoader):
    """Decorates every function before its own decorators, and every class after them."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        tree = ast.parse(self.get_data(path), path)
        for definition in _definitions(tree.body):
            decorator = ast.copy_location(ast.Name(_NAME, ast.Load()), definition)
            place = 0 if isinstance(definition, ast.ClassDef) else len(definition.decorator_list)
            definition.decorator_list.insert(place, decorator)
        return compile(tree, path, "exec", dont_inherit=True)

    def exec_module(self, module: ModuleType) -> None:
        setattr(module, _NAME, checked)
        super().exec_module(module)


class _Finder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.partition(".")[0] != _PACKAGE:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


assert _PACKAGE not in sys.modules
sys.meta_path.insert(0, _Finder())
