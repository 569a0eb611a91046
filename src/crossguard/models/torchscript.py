"""The weights of a TorchScript archive, as OpenAI released CLIP (`ViT-B-16.pt`), without running its code.

An archive is a zip of `data.pkl` (modules as plain objects, tensors by storage key), `data/KEY` (the storages) and
`code/` (never read here). The pickle is read by an unpickler that knows tensors and inert stand-ins alone.
"""

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from crossguard.checks import visible

_TYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


def is_torchscript(path: Path | str) -> bool:
    """Return whether a file is a TorchScript archive: a zip with `constants.pkl` and code."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return False
    return any(name.endswith("/constants.pkl") for name in names) and any("/code/" in name for name in names)


def read_torchscript(path: Path | str) -> dict[str, Tensor]:
    """Return the parameters and buffers of a TorchScript archive by their dotted names.

    Raises:
        ValueError: a broken archive, or one that holds something else than modules of tensors and plain values.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            root = next(name for name in archive.namelist() if name.endswith("/data.pkl")).removesuffix("data.pkl")
            top = _Reader(archive, root).load()
    except (pickle.UnpicklingError, zipfile.BadZipFile, StopIteration, EOFError, OSError) as error:
        raise _refusal(path, error) from error
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise _refusal(path, error) from error
    state = dict(_tensors(top, ""))
    if not state:
        raise _refusal(path, "it holds no tensors")
    return state


def _refusal(path: Path | str, reason: object) -> ValueError:
    return ValueError(f"Expected a whole TorchScript archive in {visible(path)}, but it could not be read: {reason}")


class _Module:
    """Stands for a module of the archive: what was set on it, and nothing that runs."""

    def __setstate__(self, state: object) -> None:
        self.held = state if isinstance(state, dict) else {}


class _StorageType(str):
    """The name of a storage's type."""


def _tensor(
    storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object
) -> Tensor:  # requires_grad and hooks follow
    return storage.as_strided(size, stride, offset).clone()


class _Reader(pickle.Unpickler):
    def __init__(self, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(io.BytesIO(archive.read(f"{root}data.pkl")))
        self.archive, self.root = archive, root

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("__torch__"):
            return _Module
        if module == "torch" and name in _TYPES:
            return _StorageType(name)
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if (module, name) == ("collections", "OrderedDict"):
            return dict
        if module == "torch.jit._pickle":  # lists of numbers, which say their type
            return lambda values, *_: values
        raise pickle.UnpicklingError(f"it names {module}.{name}")

    def persistent_load(self, pid: Any) -> Tensor:
        _, kind, key, _, count = pid
        content = bytearray(self.archive.read(f"{self.root}data/{key}"))
        stored = torch.frombuffer(content, dtype=_TYPES[kind]) if content else torch.zeros(0, dtype=_TYPES[kind])
        if len(stored) < count:
            raise pickle.UnpicklingError(f"storage {key} has {len(stored)} values, not {count}")
        return stored


def _tensors(part: object, name: str) -> "list[tuple[str, Tensor]]":
    if isinstance(part, Tensor):
        return [(name, part)]
    if isinstance(part, _Module):
        return [
            pair
            for key, value in getattr(part, "held", {}).items()
            for pair in _tensors(value, f"{name}.{key}".strip("."))
        ]
    return []
