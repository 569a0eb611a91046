"""Fingerprints, by which saved counts are recognised as those of a model and its inputs."""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from crossguard.certify.design import Design


def model_fingerprint(model: Any) -> str:
    """Return a hash of a model's class and weights."""
    digest = hashlib.sha256(type(model).__qualname__.encode())
    if isinstance(model, nn.Module):
        for name, tensor in model.state_dict().items():
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def fingerprint(model: str, values: Mapping[str, np.ndarray], design: Design, *settings: object) -> str:
    """Return a hash of a model's fingerprint, the inputs, how they are ablated, and whatever else votes depend on."""
    digest = hashlib.sha256(" ".join(map(str, (model, design.ablation, *settings))).encode())
    for name, array in values.items():
        digest.update(f"{name} {array.shape} {array.dtype}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
