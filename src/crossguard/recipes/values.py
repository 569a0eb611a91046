"""Recipes as plain values: YAML by the core schema of YAML 1.2, of limited size, depth and repetition."""

import math
import re
from collections.abc import Hashable, Iterator
from typing import Any

import yaml

LARGEST = 2**20
"""Characters of the longest recipe (one million)."""
DEEPEST = 50
"""Mappings and lists within each other."""
MOST = 100_000
"""Values of a recipe, those that an alias repeats counted again."""


class _Loader(yaml.SafeLoader):
    """YAML 1.2's core schema, and no key twice: `yes`, `on`, `010` and `1:30` are texts or numbers as they look."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str | int | float | bool | None):
                raise _refused("a key that is no plain value", key_node)
            if key in seen:
                raise _refused(f"the key {key!r} twice", key_node)
            seen.add(key)
        return super().construct_mapping(node, deep)


def _whole(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    text = node.value
    base = {"0o": 8, "0x": 16}.get(text[:2], 10)
    return int(text[2:] if base != 10 else text, base)


def _fraction(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> float:
    value = float(node.value.replace(".inf", "inf").replace(".nan", "nan").lower())
    if not math.isfinite(value):
        raise _refused(f"{node.value}, which is no finite number", node)
    return value


_TAG = "tag:yaml.org,2002:"
_Loader.yaml_implicit_resolvers = {}
for _name, _pattern, _starts in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
):
    _Loader.add_implicit_resolver(f"{_TAG}{_name}", re.compile(rf"(?:{_pattern})\Z"), _starts)
_Loader.add_constructor(f"{_TAG}int", _whole)
_Loader.add_constructor(f"{_TAG}float", _fraction)
for _name in ("binary", "timestamp", "omap", "pairs", "set"):  # of YAML 1.1
    _Loader.yaml_constructors.pop(f"{_TAG}{_name}", None)


def read_yaml(text: str) -> Any:
    """Return what a YAML text says, by the core schema of YAML 1.2; only plain values are built.

    Raises:
        ValueError: not YAML, several documents, a key that comes twice, infinity or NaN, or more than `LARGEST`
            characters, `DEEPEST` levels or `MOST` values.

    Example:
        >>> read_yaml("{a: yes, b: 010, c: 1e-4, d: true, e: 1:30}")
        {'a': 'yes', 'b': 10, 'c': 0.0001, 'd': True, 'e': '1:30'}
    """
    if len(text) > LARGEST:
        raise ValueError(f"expected at most {LARGEST:,} characters of YAML, but got {len(text):,}")
    try:
        _check_depth(text)
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _check_count(node)
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except (yaml.YAMLError, ValueError, ArithmeticError, LookupError, TypeError, RecursionError) as error:
        if type(error) is ValueError and str(error).startswith("expected"):
            raise
        raise ValueError(f"expected YAML, but got: {' '.join(str(error).split())}") from error


def _check_depth(text: str) -> None:
    """Walk through the events, which needs no recursion, before anything that does."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > DEEPEST:
                raise ValueError(f"expected at most {DEEPEST} mappings and lists within each other")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _check_count(root: yaml.Node) -> None:
    """Count all values as if aliases were written out."""
    counted: dict[int, int] = {}
    open_: set[int] = set()

    def count(node: yaml.Node) -> int:
        if id(node) in open_:
            raise ValueError("expected aliases to other values, but one stands within its own")
        if id(node) not in counted:
            open_.add(id(node))
            counted[id(node)] = 1 + sum(map(count, _children(node)))
            open_.remove(id(node))
        return counted[id(node)]

    if count(root) > MOST:
        raise ValueError(f"expected at most {MOST:,} values, aliases written out, but got more")


def _children(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield key
            yield value
    elif isinstance(node, yaml.SequenceNode):
        yield from node.value


def _refused(what: str, node: yaml.Node) -> ValueError:
    mark = node.start_mark
    place = f" in line {mark.line + 1}" if mark is not None else ""
    return ValueError(f"expected YAML, but got {what}{place}")
