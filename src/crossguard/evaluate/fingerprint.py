"""Fingerprints of models, data and options, so that a resumed evaluation never mixes two of them."""

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from math import isfinite
from types import FunctionType
from typing import Any

import numpy as np
from torch import nn

from crossguard.data import MultiModalSamples, OneToManyPairs, Picture
from crossguard.data.decode import decode_error
from crossguard.models.identity import model_identity
from crossguard.progress import Reporter, Silent

_CHUNK = 256


def weights_fingerprint(module: nn.Module, *, kept: bool = False) -> str:
    """Return hexadecimal digits that change with all that a model's answers depend on, see `model_identity`.

    Args:
        module: the model.
        kept: figures are kept under it, so what cannot be told from others is refused.

    Raises:
        ValueError: `kept`, and the model holds what cannot be told.
    """
    return model_identity(module, strict=kept, what="`run`")


def pairs_fingerprint(pairs: OneToManyPairs, *, progress: Reporter | None = None) -> str:
    """Return 32 hexadecimal digits that change with any image file, text or link.

    Every image is decoded once on the way, since its bytes are read anyway: a broken one is found before long work.

    Args:
        pairs: the data.
        progress: where reading is shown.

    Raises:
        ValueError: image files are missing, or do not decode (counted and named).
    """
    missing = [str(picture.path) for picture in pairs.images if not picture.path.is_file()]
    if missing:
        raise ValueError(f"Expected {len(pairs.images)} image files, but {len(missing)} are missing: {_some(missing)}")
    digest = blake2b(digest_size=16)
    broken: list[str] = []
    with (
        (progress or Silent()).task("Check images", total=len(pairs.images)) as task,
        ThreadPoolExecutor(os.cpu_count()) as pool,
    ):
        for start in range(0, len(pairs.images), _CHUNK):
            chunk = pairs.images[start : start + _CHUNK]
            for picture, (content, reason) in zip(chunk, pool.map(_read, chunk), strict=True):
                _add_picture(digest, picture, content)
                if reason:
                    broken.append(f"{picture.key} ({reason})")
            task.advance(len(chunk))
    if broken:
        raise ValueError(
            f"Expected {len(pairs.images)} images that decode, but {len(broken)} do not: {_some(broken)}. Load the "
            "data with skip_bad=True (--skip-bad) to leave them out."
        )
    for text in pairs.texts:
        digest.update(f"{text!r};".encode())
    digest.update(pairs.links.tobytes())
    return digest.hexdigest()


def samples_fingerprint(samples: MultiModalSamples) -> str:
    """Return 32 hexadecimal digits that change with any value, label, class or modality."""
    digest = blake2b(f"{tuple(samples.classes)!r};".encode(), digest_size=16)
    for name, values in [*samples.modalities.items(), ("", samples.labels)]:
        digest.update(f"{name!r} {values.shape} {values.dtype};".encode())
        digest.update(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def add_pictures(digest: blake2b, pictures: Iterable[Picture]) -> None:
    """Let a digest change with any of some pictures."""
    for picture in pictures:
        _add_picture(digest, picture, picture.read())


def _add_picture(digest: blake2b, picture: Picture, content: bytes) -> None:
    digest.update(f"{picture.key!r} {len(content)};".encode())
    digest.update(content)


def _read(picture: Picture) -> tuple[bytes, str]:
    content = picture.read()
    return content, decode_error(content)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def digest(settings: Mapping[str, Any]) -> str:
    """Return 32 hexadecimal digits that change with any of some JSON values."""
    return blake2b(json.dumps(dict(settings), sort_keys=True).encode(), digest_size=16).hexdigest()


def describe(value: Any, *, depth: int = 4) -> Any:
    """Describe an option as JSON values that are the same in every process.

    Objects become their class and their public attributes (what starts with an underscore is state, not an option),
    networks their class and the fingerprint of their weights; long descriptions become a digest.

    Example:
        >>> describe({"steps": 10, "sizes": (1, 0.5)})
        {'steps': 10, 'sizes': [1, 0.5]}
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value if not isinstance(value, float) or isfinite(value) else str(value)
    if isinstance(value, nn.Module):
        return {"class": type(value).__qualname__, "weights": weights_fingerprint(value)}
    if isinstance(value, Mapping):
        told: Any = _public(value, depth=depth)
    elif isinstance(value, list | tuple):
        told = [describe(item, depth=depth) for item in value]
    elif isinstance(value, set | frozenset):
        told = sorted(json.dumps(describe(item, depth=depth)) for item in value)
    elif depth and hasattr(value, "__dict__") and not isinstance(value, type | FunctionType):
        told = {"class": type(value).__qualname__, **_public(vars(value), depth=depth - 1)}
    else:
        told = re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))
    text = json.dumps(told, sort_keys=True)
    return told if len(text) <= 2000 else blake2b(text.encode(), digest_size=16).hexdigest()


def _public(values: Mapping[Any, Any], *, depth: int) -> dict[str, Any]:
    return {str(k): describe(v, depth=depth) for k, v in values.items() if not str(k).startswith("_")}
