"""Fingerprints, by which saved counts are recognised as those of a model and its inputs."""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import nn

from crossguard.certify.content import content
from crossguard.certify.design import Design


def model_fingerprint(model: Any, *, kept: bool) -> str:
    """Return a hash of a model: its class, weights, buffers and settings, see `content`.

    Args:
        model: a module, or any object; of an object that is no module all attributes count.
        kept: what is found will be kept in a folder under this fingerprint.

    Raises:
        ValueError: `kept`, and a model that is no module has an attribute that cannot be told from another one.
    """
    return content(model, strict=kept and not isinstance(model, nn.Module)).hex()


def fingerprint(model: str, values: Mapping[str, np.ndarray], design: Design, *settings: object) -> str:
    """Return a hash of a model's fingerprint, the inputs, how they are ablated, and whatever else votes depend on."""
    digest = hashlib.sha256(" ".join(map(str, (model, design.ablation, *settings))).encode())
    for name, array in values.items():
        digest.update(f"{name} {array.shape} {array.dtype}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
