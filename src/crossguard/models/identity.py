"""Which model this is: a digest that counts and evaluations keep, so that they never go on with another model.

Strict: all state that can be reached counts, private attributes and hooks included. Weights and arrays count by their
values, functions and lambdas by their code, defaults, closures and the globals they use, classes by their names and,
where they are no part of an installed package, by their code. Objects count by their attributes where their class is
the user's own, others by the state that pickle would write. What cannot be read, such as an open session, is refused:
then the caller says which model it is (`identity=`). The answers to a few probes count in every case.

What answering changes, such as a count of calls, is use and not identity: the model is asked, told, asked and told
again, and what differs is left out. A model's name is no part of it either, nor is `torch.compile`.
"""

import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Set
from functools import cached_property, lru_cache, partial
from hashlib import sha256
from pathlib import PurePath
from types import (
    BuiltinFunctionType,
    CellType,
    CodeType,
    FunctionType,
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodType,
    ModuleType,
)
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_PLAIN = (bool, int, float, complex, str, bytes, type(None), type(Ellipsis), PurePath, torch.dtype, torch.device)
_OF_EVERY_MODULE = {*vars(nn.Module()), "name_or_path", "_name_or_path", "warnings_issued", "_compiled_call_impl"}
"""Attributes of a module that are told apart from its settings (weights, parts, hooks), or that change no answer."""
_HOOKS = ("_forward_pre_hooks", "_forward_hooks")
_BUILT_IN: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (dict, dict.copy),
    (list, list.copy),
    (tuple, lambda value: tuple.__getitem__(value, slice(None))),
    (set, frozenset),
    (frozenset, frozenset),
    (str, str.__str__),
    (bytes, lambda value: bytes.__getitem__(value, slice(None))),
    (int, int.__int__),
    (float, float.__float__),
    (complex, complex.__pos__),
)
"""Types that one's own classes may be made of, and how to get at what such an object holds as one of them."""

_WHERE = {"name_or_path", "_name_or_path", "_commit_hash", "vocab_file", "merges_file", "tokenizer_file"}
"""Keys under which Transformers' configurations and tokenizers note where they were read from."""
_OF_EVERY_CLASS = {"__module__", "__qualname__", "__doc__", "__dict__", "__weakref__", "__firstlineno__", "_abc_impl"}

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
        self.met: dict[int, tuple[int, Any]] = {}  # code that was told before: its number, and itself to keep its id

    def _before(self, value: Any) -> bytes:
        """Return what stands for code that was told before; nothing for what is told for the first time."""
        if id(value) in self.met:
            return _digest("met", str(self.met[id(value)][0]))
        self.met[id(value)] = (len(self.met), value)
        return b""

    def note(self, at: str, digest: bytes) -> bytes:
        self.seen[at] = _digest("seen", self.seen.get(at, b""), digest)
        return _digest("used") if at in self.used else digest

    def parts(self, model: Any, *, weights: bool = True) -> dict[str, bytes]:
        """Return a digest per part of the model: of a module its weights and settings, of another object its state."""
        if isinstance(model, nn.Module):
            return self._module(_uncompiled(model), (id(model),), weights=weights, top=True)
        held = getattr(model, "__dict__", None)
        if not held or isinstance(model, type | FunctionType):
            return {"": self.tell(model, "")}
        around = (id(model),)
        return {"": self._type(type(model), "", around, top=True)} | {
            name: self.tell(value, name, around) for name, value in sorted(held.items()) if name != "name"
        }

    def tell(self, value: Any, at: str, around: tuple[int, ...] = ()) -> bytes:
        """Return 32 bytes that change with what a value holds.

        Args:
            value: anything.
            at: where it was found, for the message.
            around: identities of the objects that it was found in, so that a cycle ends.
        """
        inside = partial(self._inside, at, (*around, id(value)))
        if _own(type(value)) and not isinstance(value, type | nn.Module):
            return (
                _digest("around", str(around[::-1].index(id(value))))
                if id(value) in around
                else self._of_own(value, at, (*around, id(value)))
            )
        if isinstance(value, _PLAIN):
            return self.note(at, _digest(type(value).__qualname__, repr(value)))
        if isinstance(value, re.Pattern):  # pickled through a table, not by itself
            return self.note(at, _digest("pattern", repr(value.pattern), str(value.flags)))
        if isinstance(value, Tensor):
            return self.note(at, _tensor(value))
        if at in self.used:  # a plain value at one time
            return _digest("used")
        if isinstance(value, np.generic) or type(value) in (np.ndarray, np.memmap):
            array = np.asarray(value)
            if array.dtype.names:  # not the bytes between the fields
                return _digest("record", *(self.tell(array[name], at, around) for name in array.dtype.names))
            if not array.dtype.hasobject:
                held = np.ascontiguousarray(array).tobytes()
                return self.note(at, _digest("array", array.dtype.str, str(array.shape), held))
            value = array.tolist()
        if isinstance(value, type):
            return self._type(value, at, around)
        if isinstance(value, BuiltinFunctionType | ModuleType):
            module, owner = getattr(value, "__module__", ""), getattr(value, "__self__", None)
            bound = () if owner is None or isinstance(owner, ModuleType) else (inside(owner, "__self__"),)
            return _digest("name", f"{module}.{getattr(value, '__qualname__', value.__name__)}", *bound)
        if id(value) in around:
            return _digest("around", str(around[::-1].index(id(value))))
        if isinstance(value, nn.Module):
            told = self._module(_uncompiled(value), (*around, id(value)), at=at)
            return _digest("module", *(path.encode() + digest for path, digest in sorted(told.items())))
        if isinstance(value, CodeType):
            consts = (inside(const) for const in value.co_consts)
            return _digest("code", value.co_code, str(value.co_names), str(value.co_varnames), *consts)
        if isinstance(value, FunctionType):
            return self._before(value) or self._function(value, inside)
        if isinstance(value, MethodType):
            return _digest("method", inside(value.__func__), inside(value.__self__, "__self__"))
        if isinstance(value, Mapping | list | tuple | Set):
            size = self.note(f"{at}#", _digest("size", str(len(value))))
            if f"{at}#" in self.used:
                return size
        if isinstance(value, Mapping):
            pairs = (inside(key, "key") + inside(item, key) for key, item in value.items() if key not in _WHERE)
            return _digest(type(value).__qualname__, *pairs)
        if isinstance(value, list | tuple):
            return _digest(type(value).__qualname__, *(inside(item, i) for i, item in enumerate(value)))
        if isinstance(value, Set):
            return _digest("set", *sorted(self._apart(item, inside) for item in value))
        return self._object(value, inside, at)

    def _apart(self, item: Any, inside: Callable[..., bytes]) -> bytes:
        """Return the digest of an item of a set, which has no order, as if no other one had been told before."""
        met = dict(self.met)
        digest = inside(item)
        self.met = met
        return digest

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
            wrapped = getattr(value, "__wrapped__", None)
            return _digest("global", f"{type(value).__module__}.{made}", inside(wrapped, "__wrapped__"))
        # Function, arguments, state, and iterators over items and pairs.
        function, arguments, state, items, pairs = (*made, None, None, None)[:5]
        if type(value).__module__.partition(".")[0] == "tokenizers" and isinstance(state, bytes):
            # How the last batch was padded and cut, which every call sets anew.
            state = json.dumps(json.loads(state) | {"padding": None, "truncation": None}, sort_keys=True)
        if isinstance(state, dict):  # in any order
            kept = {str(key): item for key, item in state.items() if key not in _WHERE}
            told = _digest("state", *(_digest("key", key) + inside(kept[key], key) for key in sorted(kept)))
        else:
            told = inside(state, "state")
        whole = (inside(type(value), "class"), inside(function, "call"), inside(arguments, "call with"))
        parts = (told, inside(list(items or ()), "items"), inside(list(pairs or ()), "pairs"))
        return _digest("object", *whole, *parts)

    def _of_own(self, value: Any, at: str, around: tuple[int, ...]) -> bytes:
        """Return a digest of an object of a user's own class: its attributes, whatever pickle would write."""
        inside, kind = partial(self._inside, at, around), type(value)
        held = dict(getattr(value, "__dict__", {}))
        for base in kind.__mro__:
            slots = {n: part for n, part in vars(base).items() if isinstance(part, MemberDescriptorType)}
            held |= {n: part.__get__(value, kind) for n, part in slots.items() if hasattr(value, n)}
        told = [inside(kind, "class")]
        told += [_digest("key", str(key)) + inside(held[key], key) for key in sorted(held, key=str)]
        content = next((read for base, read in _BUILT_IN if isinstance(value, base)), None)
        if content is not None:
            told.append(self._inside(at, around, content(value)))
        elif not all(base is object or _own(base) or base.__module__ in _PURE for base in kind.__mro__):
            told.append(self._object(value, inside, at))  # what it is made of may hold more
        return _digest("own", *told)

    def _type(self, value: type, at: str, around: tuple[int, ...], *, top: bool = False) -> bytes:
        """Return a digest of a class: its name, of one's own its code and settings too, and those of its bases.

        Args:
            value: the class.
            at: where it was found.
            around: what it was found in.
            top: it is the model's, whose attribute `name` is only what it is called.
        """
        if not _own(value):
            return _digest("name", f"{value.__module__}.{value.__qualname__}")
        before = self._before(value)
        if before:
            return before
        around = (*around, id(value))
        told = []
        for name, part in sorted(vars(value).items()):
            part = getattr(part, "__func__", part)
            if name in _OF_EVERY_CLASS or (top and name == "name"):
                continue
            if isinstance(part, property):
                part = [part.fget, part.fset]
            if isinstance(part, cached_property):
                part = part.func  # it holds a lock, too
            # What Python itself puts there is told where it is a setting.
            telling = (*_PLAIN, Tensor, np.ndarray, list, tuple, dict, FunctionType)
            made = isinstance(part, MemberDescriptorType | GetSetDescriptorType)
            if isinstance(part, telling) or not (made or name.startswith("__")):
                told.append(name.encode() + self.tell(part, f"{at}.{name}".strip("."), around))
        bases = (self._type(base, at, around, top=top) for base in value.__bases__)
        return _digest("class", f"{value.__module__}.{value.__qualname__}", *told, *bases)

    def _function(self, function: FunctionType, inside: Callable[..., bytes]) -> bytes:
        code, cells = function.__code__, function.__closure__ or ()
        names = _names(code)
        used: dict[str, Any] = {name: function.__globals__[name] for name in names if name in function.__globals__}
        used |= {n: sys.modules[n] for n in names if n not in used and n in sys.modules}  # imported where it is used
        held = zip(code.co_freevars, cells, strict=True)
        return _digest(
            "function",
            inside(code, "__code__"),
            inside(function.__defaults__, "__defaults__"),
            inside(function.__kwdefaults__, "__kwdefaults__"),
            inside(dict(sorted(vars(function).items())), "__dict__"),
            *(
                _digest("key", name) + inside(value, name)
                for name in sorted(used)
                for value in self._globals(used[name], names, all_of=_own(function))
            ),
            *(inside(_content(cell), f"closure {name}") for name, cell in held),
        )

    def _globals(self, value: Any, names: Set[str], *, all_of: bool) -> list[Any]:
        """Return what to tell of a global that a function uses: of a module of one's own, what the function may name.

        Args:
            value: the global.
            names: all names in the function's code.
            all_of: the function is one's own, so that any object counts; of others what is plain, or one's own.
        """
        if isinstance(value, ModuleType):
            inner = vars(value) if _own(value) else {}
            return [
                part for name in sorted(names & set(inner)) for part in self._globals(inner[name], set(), all_of=True)
            ]
        if isinstance(value, FunctionType | type):
            return [value] if _own(value) else []
        plain = isinstance(value, (*_PLAIN, Tensor, np.ndarray, list, tuple, dict))
        return [value] if plain or all_of else []

    def _module(
        self, module: nn.Module, around: tuple[int, ...], *, weights: bool = True, at: str = "", top: bool = False
    ) -> dict[str, bytes]:
        first: dict[int, str] = {}
        paths = [
            f"{name}={first.setdefault(id(part), name)}" for name, part in module.named_modules(remove_duplicate=False)
        ]
        told = {"structure": _digest("structure", *paths)}
        for kind in _HOOKS:
            everywhere = list(vars(nn.modules.module)[f"_global{kind}"].values())
            told[f"all {kind}"] = self.tell(everywhere, kind, around)
        for name, part in module.named_modules():
            whole, path = top and part is module, f"{at}.{name}".strip(".")
            told[f"{name} class"] = self._type(type(part), path, around, top=whole)
            if weights:
                held = dict(part.named_parameters(recurse=False)) | dict(part.named_buffers(recurse=False))
                told |= {f"{name} {key} weights": _tensor(value) for key, value in held.items()}
            inner = (*around, id(part))
            for key in _HOOKS:
                hooks = list(getattr(part, key).values())
                told[f"{name} {key}"] = self.tell(hooks, f"{path}.{key}".strip("."), inner)
            for key, value in vars(part).items():
                called = key == "name" and (whole or not _own(type(part)))
                if key not in _OF_EVERY_MODULE and not called and not _compiled(part):
                    told[f"{name} {key}"] = self.tell(value, f"{path}.{key}".strip("."), inner)
        return told


_PYTHON = 1 << 9
"""Flag of classes that are written in Python."""
_PURE = {"abc", "collections.abc", "enum", "typing", "types"}
"""Modules whose classes hold nothing in their objects."""


def _compiled(module: nn.Module) -> bool:
    return type(module).__name__ == "OptimizedModule" and hasattr(module, "_orig_mod")


def _uncompiled(module: nn.Module) -> nn.Module:
    """Return a module as it was before `torch.compile`."""
    inner: Any = module._orig_mod if _compiled(module) else module
    return inner if isinstance(inner, nn.Module) else module


def _names(code: CodeType) -> set[str]:
    """Return the names of globals, attributes and imports in code, in the functions inside it too."""
    inner = (const for const in code.co_consts if isinstance(const, CodeType))
    return {*code.co_names, *(part for name in code.co_names for part in name.split("."))}.union(*map(_names, inner))


def _own(value: type | FunctionType | ModuleType) -> bool:
    """Return whether code is a user's own: no part of Python, an installed package, or crossguard."""
    if isinstance(value, ModuleType):
        return _own_code(value.__name__)
    if isinstance(value, type) and value.__module__ == "builtins":  # written where no module has a name
        return bool(value.__flags__ & _PYTHON)
    # Where a function was written, whatever a decorator says.
    return _own_code(
        str(value.__globals__.get("__name__", "") if isinstance(value, FunctionType) else value.__module__)
    )


@lru_cache(maxsize=4096)
def _own_code(module: str) -> bool:
    path = getattr(sys.modules.get(module), "__file__", None) or ""
    shipped = module.split(".")[0] in {"crossguard", "builtins", *sys.stdlib_module_names} - {"__main__"}
    return not shipped and "site-packages" not in path


def _content(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # an empty cell, of a function that is not defined yet
        return None


def _tensor(value: Tensor) -> bytes:
    value = value.detach()
    if value.is_quantized:
        return _digest("quantized", _tensor(value.int_repr()), _tensor(value.dequantize()))
    if value.layout != torch.strided:
        return _digest(str(value.layout), _tensor(value.to_dense()))
    flat = value.resolve_conj().resolve_neg().cpu().contiguous().reshape(-1)
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
