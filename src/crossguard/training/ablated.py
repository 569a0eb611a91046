"""Training a classifier on ablated inputs, so that it labels sub-samples as well as it can.

A certificate by sub-sampling is only as good as the base model on k of n elements; trained on whole inputs it is
poor there.
"""

import math
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from crossguard.checks import lookup
from crossguard.data.lengths import checked_lengths
from crossguard.data.samples import MultiModalSamples, element_count
from crossguard.models.base import MultiModalClassifier
from crossguard.models.inputs import input_tensor
from crossguard.models.plain_torch import plain_torch
from crossguard.training.ablated_loop import Model, counted_and_noisy, random_kept, run_steps, with_noise
from crossguard.training.ablated_options import AblatedOptions

Inputs = dict[str, Float[Tensor, "samples elements ..."]]


@plain_torch()
def train_ablated(model: Model, samples: MultiModalSamples, **options: Any) -> Model:
    """Train on sub-samples, drawn anew for every sample and step, as the certificate will draw them.

    Args:
        model: a module that meets `MultiModalClassifier`; trained in place, returned in evaluation mode on `device`.
        samples: training samples; those labelled -1 are left out.
        options: by the names of `AblatedOptions`: `keep`, `steps`, `lr`, ...

    Raises:
        ValueError: an unknown option (the nearest is named) or one out of range, `keep` does not name the model's
            modalities, keeps nothing of any or more than there are; no labels.
        FloatingPointError: the loss is not finite.
    """
    how = AblatedOptions.read(options, "train_ablated")
    classifier = cast(MultiModalClassifier, model)
    sizes = {m: element_count(lookup(samples.modalities, m, what="modality")) for m in classifier.modalities}
    keep, levels = counted_and_noisy(how.keep, how.noise, sizes)
    judged = np.flatnonzero(samples.labels >= 0)
    if not len(judged):
        raise ValueError("Expected samples with labels, but got none.")
    chosen = samples.select(judged)
    inputs = {m: input_tensor(chosen.modalities[m], how.device) for m in classifier.modalities}
    labels = torch.from_numpy(chosen.labels).to(how.device)
    lengths = {
        m: torch.from_numpy(own[judged]).to(how.device)
        for m, own in checked_lengths(how.lengths or {}, {m: sizes[m] for m in keep}, len(samples)).items()
    }

    def step(generator: torch.Generator) -> tuple[Tensor, Tensor]:
        rows = torch.randint(len(labels), (how.batch_size,), generator=generator, device=how.device)
        batch = {m: values[rows] for m, values in inputs.items()}
        batch = with_noise(how.augment(batch, generator) if how.augment else batch, levels, generator)
        own = {m: lengths[m][rows] for m in lengths}
        kept = random_kept(how.batch_size, sizes, keep, joint=how.joint, generator=generator, lengths=own)
        logits = classifier(batch, kept)
        right = (logits.argmax(dim=1) == labels[rows]).float().mean()
        return nn.functional.cross_entropy(logits, labels[rows]), right

    settings = {"keep": keep, "noise": levels, "lengths": sorted(lengths)}
    return run_steps(model, step, samples, how, title="train on ablated inputs", settings=settings)


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
