"""Which model this is: a digest that counts and evaluations keep, so that they never go on with another model.

Strict: all state that can be reached counts, private attributes included. Weights and arrays count by their values,
functions and lambdas by their code, defaults, closures and the globals they use, classes by their names and, where they
are no part of an installed package, by their code, other objects by the state that pickle would write. What cannot be
read, such as an open session, is refused: then the caller says which model it is (`identity=`). The answers to a few
probes count in every case.

What answering changes, such as a count of calls, is use and not identity: the model is asked, told, asked and told
again, and what differs is left out. A name is no part of it either.
"""

import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Set
from functools import lru_cache, partial
from hashlib import sha256
from pathlib import PurePath
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_PLAIN = (bool, int, float, complex, str, bytes, type(None), type(Ellipsis), PurePath, torch.dtype, torch.device)
_OF_EVERY_MODULE = {*vars(nn.Module()), "name", "name_or_path", "_name_or_path", "warnings_issued"}
"""Attributes of a module that are told apart from its settings (weights, parts), or that change no answer."""

_WHERE = {"name_or_path", "_name_or_path", "_commit_hash", "vocab_file", "merges_file", "tokenizer_file"}
"""Keys under which Transformers' configurations and tokenizers note where they were read from."""
_OF_EVERY_CLASS = {"__module__", "__qualname__", "__doc__", "__dict__", "__weakref__", "__firstlineno__", "name"}

Probe = Callable[[], Iterable[Tensor | np.ndarray]]


def model_identity(
    model: Any, *, strict: bool, probe: Probe | None = None, identity: str | None = None, what: str = "`folder`"
) -> str:
    """Return 64 hexadecimal digits that change with whatever a model's answers depend on.

    Args:
        model: a module, or any object.
        strict: something is kept under this identity, so what cannot be told is refused; otherwise its class stands for
            it.
        probe: gives the model's answers to fixed questions, of whole numbers (labels, ranks), which no other machine
            rounds otherwise. Called twice.
        identity: the caller's word for which model this is, in place of its state; the probes still count. None takes
            the model's own word, an attribute `identity` of it.
        what: the option that needs the identity, for the message.

    Raises:
        ValueError: `strict`, no `identity`, and the model holds what cannot be told.
    """
    answers = list(probe()) if probe is not None else []
    own = getattr(model, "identity", None)
    identity = own if identity is None and isinstance(own, str) else identity
    if identity is not None:
        return _digest("identity", identity, _Teller(False, what).tell(answers, "answers")).hex()
    used: set[str] = set()
    if probe is not None:
        before = _Teller(strict, what)
        before.parts(model, weights=False)
        list(probe())
        after = _Teller(strict, what)
        after.parts(model, weights=False)
        used = {at for at in before.seen | after.seen if before.seen.get(at) != after.seen.get(at)}
    told = _Teller(strict, what, used).parts(model)
    pieces = [path.encode() + digest for path, digest in sorted(told.items())]
    return _digest("model", *pieces, _Teller(strict, what).tell(answers, "answers")).hex()


class _Teller:
    """Tells what values hold, and notes what it saw where: plain values, arrays, and how many items lists have.

    Args:
        strict: what cannot be read is refused.
        what: the option that needs the identity, for the message.
        used: places that answering changes, which are left out.
    """

    def __init__(self, strict: bool, what: str, used: Set[str] = frozenset()) -> None:
        self.strict, self.what, self.used = strict, what, used
        self.seen: dict[str, bytes] = {}

    def note(self, at: str, digest: bytes) -> bytes:
        self.seen[at] = _digest("seen", self.seen.get(at, b""), digest)
        return _digest("used") if at in self.used else digest

    def parts(self, model: Any, *, weights: bool = True) -> dict[str, bytes]:
        """Return a digest per part of the model: of a module its weights and settings, of another object its state."""
        if isinstance(model, nn.Module):
            return self._module(model, (id(model),), weights=weights)
        held = getattr(model, "__dict__", None)
        if not held or isinstance(model, type | FunctionType):
            return {"": self.tell(model, "")}
        around = (id(model),)
        return {"": self.tell(type(model), "")} | {
            name: self.tell(value, name, around) for name, value in held.items() if name != "name"
        }

    def tell(self, value: Any, at: str, around: tuple[int, ...] = ()) -> bytes:
        """Return 32 bytes that change with what a value holds.

        Args:
            value: anything.
            at: where it was found, for the message.
            around: identities of the objects that it was found in, so that a cycle ends.
        """
        if isinstance(value, _PLAIN):
            return self.note(at, _digest(type(value).__qualname__, repr(value)))
        if isinstance(value, re.Pattern):  # pickled through a table, not by itself
            return self.note(at, _digest("pattern", repr(value.pattern), str(value.flags)))
        if isinstance(value, Tensor):
            return self.note(at, _tensor(value))
        if at in self.used:  # a plain value at one time
            return _digest("used")
        if isinstance(value, np.ndarray | np.generic):
            array = np.asarray(value)
            if array.dtype.names:  # not the bytes between the fields
                return _digest("record", *(self.tell(array[name], at, around) for name in array.dtype.names))
            if not array.dtype.hasobject:
                held = np.ascontiguousarray(array).tobytes()
                return self.note(at, _digest("array", array.dtype.str, str(array.shape), held))
            value = array.tolist()
        if isinstance(value, type) and _own(value) and id(value) not in around:
            return self._class(value, at, (*around, id(value)))
        if isinstance(value, type | BuiltinFunctionType | ModuleType):
            module = getattr(value, "__module__", "")
            return _digest("name", f"{module}.{getattr(value, '__qualname__', value.__name__)}")
        if id(value) in around:
            return _digest("around", str(around[::-1].index(id(value))))
        inside = partial(self._inside, at, (*around, id(value)))
        if isinstance(value, nn.Module):
            told = self._module(value, (*around, id(value)), at=at)
            return _digest("module", *(path.encode() + digest for path, digest in sorted(told.items())))
        if isinstance(value, CodeType):
            consts = (inside(const) for const in value.co_consts)
            return _digest("code", value.co_code, str(value.co_names), str(value.co_varnames), *consts)
        if isinstance(value, FunctionType):
            return self._function(value, inside)
        if isinstance(value, MethodType):
            return _digest("method", inside(value.__func__), inside(value.__self__, "__self__"))
        if isinstance(value, Mapping | list | tuple | Set):
            size = self.note(f"{at}#", _digest("size", str(len(value))))
            if f"{at}#" in self.used:
                return size
        if isinstance(value, Mapping):
            pairs = sorted(inside(key, "key") + inside(item, key) for key, item in value.items() if key not in _WHERE)
            return _digest(type(value).__qualname__, *pairs)
        if isinstance(value, list | tuple):
            return _digest(type(value).__qualname__, *(inside(item, i) for i, item in enumerate(value)))
        if isinstance(value, Set):
            return _digest("set", *sorted(inside(item) for item in value))
        return self._object(value, inside, at)

    def _inside(self, at: str, around: tuple[int, ...], part: Any, name: object = "") -> bytes:
        return self.tell(part, f"{at}.{name}".strip("."), around)

    def _object(self, value: Any, inside: Callable[..., bytes], at: str) -> bytes:
        try:
            made: Any = value.__reduce_ex__(4)
        except Exception as error:  # whatever an object's own code raises
            if self.strict:
                raise ValueError(
                    f"Expected a model that can be told from others, to keep something for it ({self.what}), but "
                    f"`{at or type(value).__qualname__}` is {_short(value)}, which cannot be read: say which model it "
                    f"is (identity='...', or an attribute `identity` of the model), or leave out {self.what}."
                ) from error
            return inside(type(value))
        if isinstance(made, str):
            return _digest("global", f"{type(value).__module__}.{made}")
        # Function, arguments, state, and iterators over items and pairs.
        function, arguments, state, items, pairs = (*made, None, None, None)[:5]
        if type(value).__module__.partition(".")[0] == "tokenizers" and isinstance(state, bytes):
            # How the last batch was padded and cut, which every call sets anew.
            state = json.dumps(json.loads(state) | {"padding": None, "truncation": None}, sort_keys=True)
        if isinstance(state, dict):  # in any order
            kept = {key: item for key, item in state.items() if key not in _WHERE}
            told = _digest("state", *sorted(_digest("key", str(key)) + inside(item, key) for key, item in kept.items()))
        else:
            told = inside(state, "state")
        whole = (inside(type(value), "class"), inside(function, "call"), inside(arguments, "call with"))
        parts = (told, inside(list(items or ()), "items"), inside(list(pairs or ()), "pairs"))
        return _digest("object", *whole, *parts)

    def _class(self, value: type, at: str, around: tuple[int, ...]) -> bytes:
        """Return a digest of a class's code and settings, and of those of its bases."""
        held = {
            name: getattr(part, "__func__", part) for name, part in vars(value).items() if name not in _OF_EVERY_CLASS
        }
        whole = (
            name.encode() + self.tell([part.fget, part.fset] if isinstance(part, property) else part, at, around)
            for name, part in sorted(held.items())
            if isinstance(part, (*_PLAIN, Tensor, np.ndarray, list, tuple, dict, property, FunctionType))
        )
        bases = (self.tell(base, at, around) for base in value.__bases__)
        return _digest("class", f"{value.__module__}.{value.__qualname__}", *whole, *bases)

    def _function(self, function: FunctionType, inside: Callable[..., bytes]) -> bytes:
        code, cells = function.__code__, function.__closure__ or ()
        used = {name: function.__globals__[name] for name in code.co_names if name in function.__globals__}
        plain = {
            name: value
            for name, value in used.items()
            if isinstance(value, (*_PLAIN, Tensor, np.ndarray, list, tuple, dict))
            or (isinstance(value, FunctionType | type) and _own(value))
        }
        held = zip(code.co_freevars, cells, strict=True)
        return _digest(
            "function",
            inside(code, "__code__"),
            inside(function.__defaults__, "__defaults__"),
            inside(function.__kwdefaults__, "__kwdefaults__"),
            inside(plain, "__globals__"),
            *(inside(_content(cell), f"closure {name}") for name, cell in held),
        )

    def _module(
        self, module: nn.Module, around: tuple[int, ...], *, weights: bool = True, at: str = ""
    ) -> dict[str, bytes]:
        told = {}
        for name, part in module.named_modules():
            told[f"{name} class"] = self.tell(type(part), at)
            if weights:
                held = dict(part.named_parameters(recurse=False)) | dict(part.named_buffers(recurse=False))
                told |= {f"{name} {key} weights": _tensor(value) for key, value in held.items()}
            for key, value in vars(part).items():
                if key not in _OF_EVERY_MODULE:
                    path = f"{at}.{name}.{key}".strip(".")
                    told[f"{name} {key}"] = self.tell(value, path, (*around, id(part)))
        return told


@lru_cache(maxsize=1024)
def _own(value: type | FunctionType) -> bool:
    """Return whether code is a user's own: no part of Python, an installed package, or crossguard."""
    name = value.__module__ or ""
    path = getattr(sys.modules.get(name), "__file__", None) or ""
    shipped = name.split(".")[0] in {"crossguard", "builtins", *sys.stdlib_module_names} - {"__main__"}
    return not shipped and "site-packages" not in path


def _content(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # an empty cell, of a function that is not defined yet
        return None


def _tensor(value: Tensor) -> bytes:
    flat = value.detach().cpu().contiguous().reshape(-1)
    return _digest("tensor", str(value.dtype), str(tuple(value.shape)), flat.view(torch.uint8).numpy().tobytes())


def _digest(kind: str, *parts: str | bytes) -> bytes:
    whole = sha256(kind.encode())
    for part in parts:
        piece = part.encode() if isinstance(part, str) else part
        whole.update(len(piece).to_bytes(8, "big"))
        whole.update(piece)
    return whole.digest()


def _short(value: object) -> str:
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))[:80]
