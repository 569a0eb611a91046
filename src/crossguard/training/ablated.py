"""Training a classifier on ablated inputs, so that it labels sub-samples as well as it can.

A certificate by sub-sampling is only as good as the base model on k of n elements; trained on whole inputs it is
poor there.
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from crossguard.checks import check_whole, lookup
from crossguard.data.samples import MultiModalSamples, element_count
from crossguard.models.base import MultiModalClassifier
from crossguard.models.inputs import input_tensor
from crossguard.models.plain_torch import plain_torch
from crossguard.progress import Reporter
from crossguard.training.ablated_loop import (
    Kept,
    Model,
    counted_and_noisy,
    outcome_settings,
    random_kept,
    run_steps,
    with_noise,
)

Inputs = dict[str, Float[Tensor, "samples elements ..."]]
Augment = Callable[[Inputs, torch.Generator], Inputs]


@plain_torch()
def train_ablated(
    model: Model,
    samples: MultiModalSamples,
    *,
    keep: Mapping[str, int],
    noise: Mapping[str, float | int] | None = None,
    steps: int = 1500,
    batch_size: int = 256,
    lr: float = 3e-3,
    weight_decay: float = 1e-2,
    joint: bool = False,
    augment: Augment | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
    folder: Path | str | None = None,
    checkpoint_every: int = 500,
    progress: Reporter | None = None,
) -> Model:
    """Train on sub-samples, drawn anew for every sample and step, as the certificate will draw them.

    Args:
        model: a module that meets `MultiModalClassifier`; trained in place, returned in evaluation mode on `device`.
        samples: training samples; those labelled -1 are left out.
        keep: elements kept of each modality, by its name.
        noise: sigma of each other modality, which gets Gaussian noise instead, as `certify`.
        steps: optimiser steps (AdamW, one cycle of the learning rate).
        batch_size: samples per step, drawn with replacement.
        lr: largest learning rate.
        weight_decay: of AdamW.
        joint: keep the sum of all k of all elements together, for a base model of the baseline (`certify` with
            `scheme="joint"`).
        augment: changes the inputs of a batch before ablation, such as `turn_sensors`.
        seed: of batches, masks, augmentation and dropout; equal seeds give equal weights on one machine, and PyTorch's
            global generator is left as it was.
        device: where to train.
        folder: where checkpoints go; a training that was stopped goes on from the last one, to the same weights.
        checkpoint_every: steps between checkpoints.
        progress: shows steps, loss and the share of right sub-samples.

    Raises:
        ValueError: `keep` does not name the model's modalities, keeps nothing of any or more than there are; no labels.
        FloatingPointError: the loss is not finite.
    """
    classifier = cast(MultiModalClassifier, model)
    batch_size = check_whole(batch_size, "batch_size", least=1)
    sizes = {m: element_count(lookup(samples.modalities, m, what="modality")) for m in classifier.modalities}
    kept_counts, levels = counted_and_noisy(keep, noise, sizes)
    judged = np.flatnonzero(samples.labels >= 0)
    if not len(judged):
        raise ValueError("Expected samples with labels, but got none.")
    chosen = samples.select(judged)
    inputs = {m: input_tensor(chosen.modalities[m], device) for m in classifier.modalities}
    labels = torch.from_numpy(chosen.labels).to(device)

    def step(generator: torch.Generator) -> tuple[Tensor, Tensor]:
        rows = torch.randint(len(labels), (batch_size,), generator=generator, device=device)
        batch = {m: values[rows] for m, values in inputs.items()}
        batch = with_noise(augment(batch, generator) if augment else batch, levels, generator)
        logits = classifier(batch, random_kept(batch_size, sizes, kept_counts, joint=joint, generator=generator))
        right = (logits.argmax(dim=1) == labels[rows]).float().mean()
        return nn.functional.cross_entropy(logits, labels[rows]), right

    return run_steps(
        model,
        step,
        title="train on ablated inputs",
        steps=steps,
        lr=lr,
        weight_decay=weight_decay,
        seed=seed,
        device=device,
        progress=progress,
        kept=Kept(
            folder,
            checkpoint_every,
            outcome_settings(
                model,
                samples,
                augment,
                keep=kept_counts,
                noise=levels,
                batch_size=batch_size,
                joint=joint,
            ),
        ),
    )


def turn_sensors(inputs: Inputs, generator: torch.Generator, *, degrees: float = 6.0) -> Inputs:
    """Turn each sample's three axes by a small random rotation, the same for all its sensors: a watch sits differently.

    Args:
        inputs: float [samples, elements, 3] per sensor of one rigid body; not changed.
        generator: source of the rotations.
        degrees: standard deviation of the turn about each axis.

    Raises:
        ValueError: a sensor has other than three axes.
    """
    for modality, values in inputs.items():
        if values.ndim != 3 or values.shape[2] != 3:
            raise ValueError(f"Expected {modality!r} [samples, elements, 3], but got {list(values.shape)}.")
    first = next(iter(inputs.values()))
    angles = torch.randn(len(first), 3, generator=generator, device=generator.device) * math.radians(degrees)
    x, y, z, nothing = *angles.unbind(dim=1), torch.zeros(len(first), device=angles.device)
    skew = torch.stack([nothing, -z, y, z, nothing, -x, -y, x, nothing], dim=1).reshape(-1, 3, 3)
    turns = torch.linalg.matrix_exp(skew).to(first.dtype)
    return {modality: values @ turns for modality, values in inputs.items()}
