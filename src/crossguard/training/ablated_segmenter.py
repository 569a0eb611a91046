"""Training a segmenter on ablated images, so that it labels sub-samples of their pixels as well as it can."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from crossguard.checks import check_whole, lookup
from crossguard.data.samples import MultiModalSamples, element_count
from crossguard.models.base import MultiModalSegmenter
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

Images = dict[str, Float[Tensor, "images channels height width"]]
AugmentImages = Callable[[Images, Tensor, torch.Generator], tuple[Images, Tensor]]


@plain_torch()
def train_ablated_segmenter(
    model: Model,
    samples: MultiModalSamples,
    *,
    keep: Mapping[str, int],
    noise: Mapping[str, float | int] | None = None,
    steps: int = 1000,
    batch_size: int = 8,
    lr: float = 2e-3,
    weight_decay: float = 1e-2,
    whole: float = 0.1,
    joint: bool = False,
    class_weights: Sequence[float] | None = None,
    augment: AugmentImages | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
    folder: Path | str | None = None,
    checkpoint_every: int = 500,
    progress: Reporter | None = None,
) -> Model:
    """Train on sub-samples of pixels, drawn anew for every image and step, as the certificate will draw them.

    On a GPU the forward pass runs in bfloat16 where the device has it.

    Args:
        model: a module that meets `MultiModalSegmenter`; trained in place, returned in evaluation mode on `device`.
        samples: training samples with masks; pixels of -1 are not judged, images without others left out. Batches are
            moved to `device` one by one.
        keep: pixels kept of each modality, by its name.
        noise: sigma of each other modality, which gets Gaussian noise instead, as `certify_segmentation`.
        steps: optimiser steps (AdamW, one cycle of the learning rate).
        batch_size: images per step, drawn with replacement.
        lr: largest learning rate.
        weight_decay: of AdamW.
        whole: share of the images that are shown whole, so that the model stays good on those too.
        joint: keep the sum of all k of the pixels of all modalities together, for a base model of the baseline.
        class_weights: weight of each label in the loss, for rare ones; None weighs pixels alike.
        augment: changes images and labels of a batch before ablation, such as `flip_and_tint`.
        seed: of batches, masks, augmentation and dropout; equal seeds give equal weights on one machine, and PyTorch's
            global generator is left as it was.
        device: where to train.
        folder: where checkpoints go; a training that was stopped goes on from the last one, to the same weights.
        checkpoint_every: steps between checkpoints.
        progress: shows steps, loss and the share of right pixels.

    Raises:
        ValueError: `keep` does not name the model's modalities, or keeps less than 1 or more than there are; labels
            that are no masks, or none that is judged; other numbers of weights than classes; `whole` outside [0, 1].
        FloatingPointError: the loss is not finite.
    """
    segmenter = cast(MultiModalSegmenter, model)
    batch_size = check_whole(batch_size, "batch_size", least=1)
    values = {m: lookup(samples.modalities, m, what="modality") for m in segmenter.modalities}
    if samples.labels.ndim != 3 or not (samples.labels >= 0).any():
        raise ValueError(f"Expected masks [samples, height, width] with labels, but got {samples.labels.shape}.")
    judged = np.flatnonzero((samples.labels >= 0).any(axis=(1, 2)))
    sizes = {m: element_count(array) for m, array in values.items()}
    kept_counts, levels = counted_and_noisy(keep, noise, sizes)
    if not 0 <= whole <= 1:
        raise ValueError(f"Expected `whole` in [0, 1], but got {whole}.")
    if class_weights is not None and len(class_weights) != len(segmenter.classes):
        raise ValueError(f"Expected {len(segmenter.classes)} class weights, but got {list(class_weights)}.")
    weight = None if class_weights is None else torch.tensor(list(class_weights), device=device)
    half = torch.device(device).type == "cuda" and torch.cuda.is_bf16_supported()

    def step(generator: torch.Generator) -> tuple[Tensor, Tensor]:
        rows = judged[torch.randint(len(judged), (batch_size,), generator=generator, device=device).cpu().numpy()]
        batch = {m: input_tensor(array[rows], device) for m, array in values.items()}
        labels = torch.from_numpy(samples.labels[rows]).to(device)
        batch, labels = augment(batch, labels, generator) if augment else (batch, labels)
        batch = with_noise(batch, levels, generator)
        complete = torch.rand(batch_size, 1, generator=generator, device=device) < whole
        masks = random_kept(batch_size, sizes, kept_counts, joint=joint, generator=generator)
        kept = {
            m: (mask | complete).unflatten(1, values[m].shape[2:]) if values[m].ndim == 4 else mask | complete
            for m, mask in masks.items()
        }
        with torch.autocast(torch.device(device).type, dtype=torch.bfloat16, enabled=half):
            logits = segmenter(batch, kept)
        right = (logits.argmax(dim=1) == labels)[labels >= 0].float().mean()
        return nn.functional.cross_entropy(logits.float(), labels, weight=weight, ignore_index=-1), right

    return run_steps(
        model,
        step,
        title="train on ablated images",
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
                whole=whole,
                class_weights=None if class_weights is None else [float(weight) for weight in class_weights],
            ),
        ),
    )


def flip_and_tint(
    images: Images, labels: Tensor, generator: torch.Generator, *, tint: float = 0.1
) -> tuple[Images, Tensor]:
    """Mirror half of the images left to right, and change the brightness and colour of "rgb" a little.

    Args:
        images: float [images, channels, height, width] by modality; not changed. The first channel of "normals" points
            right, so it changes its sign.
        labels: int64 [images, height, width]; not changed.
        generator: source of what is random.
        tint: standard deviation of each colour's factor.
    """
    turned = torch.rand(len(labels), generator=generator, device=labels.device) < 0.5
    changed = {}
    for modality, values in images.items():
        mirrored = values.flip(3)
        if modality == "normals":
            mirrored = mirrored * mirrored.new_tensor([-1.0, 1.0, 1.0])[:, None, None]
        changed[modality] = torch.where(turned[:, None, None, None], mirrored, values)
    if "rgb" in changed:
        factor = 1 + tint * torch.randn(len(labels), 3, 1, 1, generator=generator, device=labels.device)
        white = changed["rgb"].amax().clamp_min(1)  # or more, of values that are not in [0, 1]
        changed["rgb"] = torch.minimum(changed["rgb"] * factor, white).clamp_min(0)
    return changed, torch.where(turned[:, None, None], labels.flip(2), labels)
