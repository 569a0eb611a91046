"""Training a classifier on ablated inputs, so that it labels sub-samples as well as it can.

A certificate by sub-sampling is only as good as the base model on k of n elements; trained on whole inputs it is
poor there.
"""

import math
from collections.abc import Callable, Mapping
from typing import TypeVar, cast

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from crossguard.checks import lookup
from crossguard.data.samples import MultiModalSamples
from crossguard.models.base import MultiModalClassifier
from crossguard.progress import Reporter, Silent

Inputs = dict[str, Float[Tensor, "samples elements ..."]]
Augment = Callable[[Inputs, torch.Generator], Inputs]
Model = TypeVar("Model", bound=nn.Module)


def train_ablated(
    model: Model,
    samples: MultiModalSamples,
    *,
    keep: Mapping[str, int],
    steps: int = 1500,
    batch_size: int = 256,
    lr: float = 3e-3,
    weight_decay: float = 1e-2,
    augment: Augment | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
    progress: Reporter | None = None,
) -> Model:
    """Train on sub-samples, drawn anew for every sample and step, as the certificate will draw them.

    Args:
        model: a module that meets `MultiModalClassifier`; trained in place, returned in evaluation mode on `device`.
        samples: training samples; those labelled -1 are left out.
        keep: elements kept of each modality, by its name.
        steps: optimiser steps (AdamW, one cycle of the learning rate).
        batch_size: samples per step, drawn with replacement.
        lr: largest learning rate.
        weight_decay: of AdamW.
        augment: changes the inputs of a batch before ablation, such as `turn_sensors`.
        seed: of batches, masks, augmentation and dropout; equal seeds give equal weights on one machine, and PyTorch's
            global generator is left as it was.
        device: where to train.
        progress: shows steps, loss and the share of right sub-samples.

    Raises:
        ValueError: `keep` does not name the model's modalities, or keeps less than 1 or more than there are; no labels.
        FloatingPointError: the loss is not finite.
    """
    classifier = cast(MultiModalClassifier, model)
    sizes = {m: lookup(samples.modalities, m, what="modality").shape[1] for m in classifier.modalities}
    kept_counts = check_keep(keep, sizes)
    judged = np.flatnonzero(samples.labels >= 0)
    if not len(judged):
        raise ValueError("Expected samples with labels, but got none.")
    chosen = samples.select(judged)
    inputs = {m: torch.from_numpy(chosen.modalities[m]).to(device) for m in classifier.modalities}
    labels = torch.from_numpy(chosen.labels).to(device)
    generator = torch.Generator(device=device).manual_seed(seed)
    model.to(device).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=lr, total_steps=steps + 1)
    with (
        torch.random.fork_rng(devices=[device] if torch.device(device).type == "cuda" else []),
        (progress or Silent()).task("train on ablated inputs", total=steps) as task,
    ):
        torch.manual_seed(seed)  # dropout takes no generator
        for _ in range(steps):
            rows = torch.randint(len(labels), (batch_size,), generator=generator, device=device)
            batch = {m: values[rows] for m, values in inputs.items()}
            batch = augment(batch, generator) if augment else batch
            kept = {m: random_masks(batch_size, sizes[m], k, generator=generator) for m, k in kept_counts.items()}
            logits = classifier(batch, kept)
            loss = nn.functional.cross_entropy(logits, labels[rows])
            if not torch.isfinite(loss):
                raise FloatingPointError(f"Expected a finite loss, but got {loss.item()}; lower `lr` ({lr}).")
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            right = (logits.argmax(dim=1) == labels[rows]).float().mean()
            task.advance(note=f"loss {loss.item():.3f}, right {100 * right.item():.0f} %")
    return model.eval()


def check_keep(keep: Mapping[str, int], sizes: Mapping[str, int]) -> dict[str, int]:
    """Return `keep` in the order of `sizes`.

    Raises:
        ValueError: other names than those of `sizes`, or a number that is not in [1, size].
    """
    for modality in keep:
        lookup(sizes, modality, what="modality in `keep`")
    for modality, size in sizes.items():
        k = keep.get(modality)
        if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= size:
            raise ValueError(f"Expected `keep[{modality!r}]` to be a whole number in [1, {size}], but got {k!r}.")
    return {modality: keep[modality] for modality in sizes}


def random_masks(
    samples: int, elements: int, k: int, *, generator: torch.Generator
) -> Bool[Tensor, "samples elements"]:
    """Return masks that keep exactly k elements of each sample, uniformly."""
    keys = torch.rand(samples, elements, generator=generator, device=generator.device)
    chosen: Int64[Tensor, "samples k"] = keys.topk(k, dim=1).indices
    return torch.zeros_like(keys, dtype=torch.bool).scatter_(1, chosen, True)


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
