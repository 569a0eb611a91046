"""A digest of what an object holds, the same in every process: weights, arrays, settings, objects within objects."""

import re
from collections.abc import Iterable, Mapping, Set
from hashlib import sha256
from pathlib import PurePath
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_PLAIN = (bool, int, float, complex, str, bytes, type(None), PurePath, torch.dtype, torch.device, np.generic)


def content(value: Any, *, strict: bool, at: str = "", within: tuple[int, ...] = ()) -> bytes:
    """Return 32 bytes that change with what a value holds.

    A module is its class, its weights and buffers (saved ones or not), its settings and those of its parts: attributes
    without a leading underscore, which marks state. Functions and classes are told by their names, arrays and tensors
    by their values, any other object by the state that Python would pickle.

    Args:
        value: what to tell.
        strict: refuse what cannot be told, rather than tell its class; and tell private attributes of objects too.
        at: where the value was found, for the message.
        within: identities of the objects around it, so that a cycle ends.

    Raises:
        ValueError: `strict`, and an object has neither a name nor a state, such as a lambda or an open session.
    """
    if isinstance(value, _PLAIN):
        return _digest(type(value).__qualname__, repr(value))
    if isinstance(value, Tensor):
        flat = value.detach().cpu().contiguous().reshape(-1)
        return _digest("tensor", str(value.dtype), str(tuple(value.shape)), flat.view(torch.uint8).numpy().tobytes())
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return _digest("array", value.dtype.str, str(value.shape), np.ascontiguousarray(value).tobytes())
    if isinstance(value, type):
        return _digest("class", f"{value.__module__}.{value.__qualname__}")
    if isinstance(value, FunctionType | BuiltinFunctionType) and "<" not in value.__qualname__:
        return _digest("function", f"{value.__module__}.{value.__qualname__}")
    if id(value) in within:
        return _digest("around", str(within[::-1].index(id(value))))

    def inside(part: Any, name: object = "") -> bytes:
        return content(part, strict=strict, at=f"{at}.{name}".strip("."), within=(*within, id(value)))

    if isinstance(value, nn.Module):
        return _module(value, within)
    if isinstance(value, Mapping):
        return _digest("mapping", *sorted(inside(key) + inside(item, key) for key, item in value.items()))
    if isinstance(value, list | tuple):
        return _digest(type(value).__qualname__, *(inside(item, i) for i, item in enumerate(value)))
    if isinstance(value, Set):
        return _digest("set", *sorted(inside(item) for item in value))
    if isinstance(value, MethodType):
        return _digest("method", value.__name__, inside(value.__self__, "__self__"))
    if not strict and getattr(value, "__dict__", None) and not isinstance(value, FunctionType):
        return _digest("object", inside(type(value)), inside(_public(vars(value))))
    try:
        made: Any = value.__reduce_ex__(4)
        if not isinstance(made, str):
            made = [list(part) if isinstance(part, Iterable) and i > 2 else part for i, part in enumerate(made)]
            return _digest("object", *(inside(part) for part in made))
        return _digest("object", made)
    except (TypeError, AttributeError, NotImplementedError) as error:
        if strict:
            raise ValueError(
                "Expected a model whose attributes can be told from those of others, to keep counts in a `folder`, but "
                f"`{at or type(value).__qualname__}` is {_short(value)}: make the model a torch.nn.Module, or leave "
                "out `folder`."
            ) from error
        return _digest("class", f"{type(value).__module__}.{type(value).__qualname__}")


def _module(module: nn.Module, within: tuple[int, ...]) -> bytes:
    """Tell a module by its weights, and by the classes and settings of its parts."""
    told = []
    for name, part in module.named_modules():
        held = dict(part.named_parameters(recurse=False)) | dict(part.named_buffers(recurse=False))
        settings = {key: item for key, item in _public(vars(part)).items() if key != "training"}
        told += [name.encode(), content(type(part), strict=False), content(held, strict=False)]
        told.append(content(settings, strict=False, within=(*within, *map(id, (module, part)))))
    return _digest("module", *told)


def _public(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: item for name, item in values.items() if not name.startswith("_")}


def _digest(kind: str, *parts: str | bytes) -> bytes:
    whole = sha256(kind.encode())
    for part in parts:
        piece = part.encode() if isinstance(part, str) else part
        whole.update(len(piece).to_bytes(8, "big"))
        whole.update(piece)
    return whole.digest()


def _short(value: object) -> str:
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))[:80]
