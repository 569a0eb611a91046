"""Modules by any names: those of modalities, which users choose."""

from collections.abc import Mapping
from urllib.parse import quote

from torch import nn

_ESCAPED = "as:"


class NamedModules(nn.ModuleDict):
    """A `ModuleDict` that also takes names with dots, empty ones, and those of its own methods, such as "keys"."""

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        super().__init__({_safe(name): module for name, module in modules.items()})

    def __getitem__(self, key: str) -> nn.Module:
        return super().__getitem__(_safe(key))


def _safe(name: str) -> str:
    plain = name and "." not in name and not name.startswith(_ESCAPED) and not hasattr(_EMPTY, name)
    return name if plain else _ESCAPED + quote(name, safe="").replace(".", "%2E")


_EMPTY = nn.ModuleDict()
