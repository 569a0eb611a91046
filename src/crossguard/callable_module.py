"""Packages that can be called: `import crossguard.certify as c` is the module, and `crossguard.certify(...)` works."""

import sys
from inspect import Signature, signature
from types import ModuleType
from typing import Any


def make_callable(name: str) -> None:
    """Let a package be called as its function of the same name, which is loaded when that happens.

    Args:
        name: of the package, "crossguard.certify".
    """
    own = name.rpartition(".")[2]

    class CallablePackage(ModuleType):
        def __call__(self, *given: Any, **named: Any) -> Any:
            return getattr(self, own)(*given, **named)

        @property
        def __signature__(self) -> Signature:
            return signature(getattr(self, own))

    sys.modules[name].__class__ = CallablePackage
