"""Fingerprints, by which saved counts are recognised as those of a model and its inputs."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from crossguard.certify.design import Design
from crossguard.certify.sampling import class_logits, evaluation_mode, most_likely, pixel_logits, sub_samples
from crossguard.certify.thresholds import Scheme
from crossguard.models.identity import model_identity

PROBES = 16
"""Sub-samples that a model is asked about to tell it from others."""


def model_fingerprint(
    model: Any,
    values: Mapping[str, np.ndarray],
    design: Design,
    *,
    kept: bool,
    identity: str | None = None,
    segments: bool = False,
) -> str:
    """Return the identity of a model, see `model_identity`; where counts are kept, with its answers to probes.

    Args:
        model: the base model.
        values: its modalities; the first samples are the probes.
        design: how sub-samples are drawn.
        kept: counts will be kept under this fingerprint.
        identity: the caller's word for which model this is.
        segments: the model labels pixels.

    Raises:
        ValueError: `kept`, and the model holds what cannot be told from others.
    """
    probe = partial(_answers, model, values, design, segments) if kept else None
    return model_identity(model, strict=kept, probe=probe, identity=identity)


def _answers(model: Any, values: Mapping[str, np.ndarray], design: Design, segments: bool) -> Iterator[torch.Tensor]:
    """Give the labels of a few sub-samples of the first inputs, of segmentations those of the middle pixel."""
    scheme: Scheme = "rate" if design.scheme == "rate" else "independent"
    probing = replace(design, seed=0, scheme=scheme, published=0)
    inputs = min(2 if segments else 4, len(next(iter(values.values()))))
    names, draw = np.arange(inputs), torch.arange(PROBES // 4, device=design.device)
    with evaluation_mode(model, design.device), torch.no_grad():
        for i in range(inputs):
            shown, kept = sub_samples(values, names, names[i : i + 1], torch.zeros_like(draw), draw, probing)
            if segments:
                labels = most_likely(pixel_logits(model, shown, kept, size=design.mask_size))
                yield labels[:, labels.shape[1] // 2, labels.shape[2] // 2].cpu()
            else:
                yield class_logits(model, shown, kept).argmax(dim=1).cpu()


def fingerprint(model: str, values: Mapping[str, np.ndarray], design: Design, *settings: object) -> str:
    """Return a hash of a model's fingerprint, the inputs, how they are ablated, and whatever else votes depend on."""
    digest = hashlib.sha256(" ".join(map(str, (model, design.ablation, *settings))).encode())
    for name, array in values.items():
        digest.update(f"{name} {array.shape} {array.dtype}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
