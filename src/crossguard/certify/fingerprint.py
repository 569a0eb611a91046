"""Fingerprints, by which saved counts are recognised as those of a model and its inputs."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from crossguard.certify.design import Design
from crossguard.certify.options import CertifyOptions
from crossguard.certify.sampling import (
    Asked,
    class_logits,
    evaluation_mode,
    in_precision,
    most_likely,
    pixel_logits,
    sub_samples,
)
from crossguard.certify.thresholds import Scheme
from crossguard.models.identity import model_identity

PROBES = 16
"""Sub-samples that a model is asked about to tell it from others."""


def model_fingerprint(asked: Asked, options: CertifyOptions) -> str:
    """Return the identity of a model, see `model_identity`; where counts are kept, with its answers to probes.

    Raises:
        ValueError: counts are kept, and the model holds what cannot be told from others.
    """
    kept = options.folder is not None
    probe = partial(_answers, asked) if kept else None
    return model_identity(asked.model, strict=kept, probe=probe, identity=options.identity)


def _answers(asked: Asked) -> Iterator[torch.Tensor]:
    """Give the labels of a few sub-samples of the first inputs, of segmentations those of the middle pixel."""
    design, segments = asked.design, asked.design.mask_size is not None
    scheme: Scheme = "rate" if design.scheme == "rate" else "independent"
    probing = replace(design, seed=0, scheme=scheme)
    inputs = min(2 if segments else 4, len(asked))
    names, draw = np.arange(inputs), torch.arange(PROBES // 4, device=design.device)
    with evaluation_mode(asked.model, design.device), torch.no_grad():
        for i in range(inputs):
            shown, kept = sub_samples(asked.values, names, names[i : i + 1], torch.zeros_like(draw), draw, probing)
            if segments:
                with in_precision(design.precision, design.device):
                    pixels = pixel_logits(asked.model, shown, kept, size=design.mask_size)
                labels = most_likely(pixels.float())
                yield labels[:, labels.shape[1] // 2, labels.shape[2] // 2].cpu()
            else:
                with in_precision(design.precision, design.device):
                    logits = class_logits(asked.model, shown, kept)
                yield logits.float().argmax(dim=1).cpu()


def fingerprint(model: str, values: Mapping[str, np.ndarray], design: Design, *settings: object) -> str:
    """Return a hash of a model's fingerprint, the inputs, how they are ablated, and whatever else votes depend on."""
    digest = hashlib.sha256(" ".join(map(str, (model, design.ablation, *settings))).encode())
    for name, array in values.items():
        digest.update(f"{name} {array.shape} {array.dtype}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
