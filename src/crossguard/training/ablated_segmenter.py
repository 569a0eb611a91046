"""Training a segmenter on ablated images, so that it labels sub-samples of their pixels as well as it can."""

from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from crossguard.checks import lookup
from crossguard.data.samples import MultiModalSamples, element_count
from crossguard.models.base import MultiModalSegmenter
from crossguard.models.inputs import input_tensor
from crossguard.models.plain_torch import plain_torch
from crossguard.training.ablated_loop import Model, counted_and_noisy, random_kept, run_steps, with_noise
from crossguard.training.ablated_options import AblatedSegmenterOptions

Images = dict[str, Float[Tensor, "images channels height width"]]


@plain_torch()
def train_ablated_segmenter(model: Model, samples: MultiModalSamples, **options: Any) -> Model:
    """Train on sub-samples of pixels, drawn anew for every image and step, as the certificate will draw them.

    On a GPU the forward pass runs in bfloat16 where the device has it.

    Args:
        model: a module that meets `MultiModalSegmenter`; trained in place, returned in evaluation mode on `device`.
        samples: training samples with masks; pixels of -1 are not judged, images without others left out. Batches are
            moved to `device` one by one.
        options: by the names of `AblatedSegmenterOptions`: `keep`, `steps`, `whole`, ...

    Raises:
        ValueError: an unknown option (the nearest is named) or one out of range, `keep` does not name the model's
            modalities, or keeps less than 1 or more than there are; labels that are no masks, or none that is judged;
            other numbers of weights than classes.
        FloatingPointError: the loss is not finite.
    """
    how = AblatedSegmenterOptions.read(options, "train_ablated_segmenter", without=("lengths",))
    segmenter = cast(MultiModalSegmenter, model)
    values = {m: lookup(samples.modalities, m, what="modality") for m in segmenter.modalities}
    if samples.labels.ndim != 3 or not (samples.labels >= 0).any():
        raise ValueError(f"Expected masks [samples, height, width] with labels, but got {samples.labels.shape}.")
    judged = np.flatnonzero((samples.labels >= 0).any(axis=(1, 2)))
    sizes = {m: element_count(array) for m, array in values.items()}
    keep, levels = counted_and_noisy(how.keep, how.noise, sizes)
    weights = how.class_weights
    if weights is not None and len(weights) != len(segmenter.classes):
        raise ValueError(f"Expected {len(segmenter.classes)} class weights, but got {list(weights)}.")
    weight = None if weights is None else torch.tensor(list(weights), device=how.device)
    kind = torch.device(how.device).type
    half = kind == "cuda" and torch.cuda.is_bf16_supported()

    def step(generator: torch.Generator) -> tuple[Tensor, Tensor]:
        drawn = torch.randint(len(judged), (how.batch_size,), generator=generator, device=how.device)
        rows = judged[drawn.cpu().numpy()]
        batch = {m: input_tensor(array[rows], how.device) for m, array in values.items()}
        labels = torch.from_numpy(samples.labels[rows]).to(how.device)
        batch, labels = how.augment(batch, labels, generator) if how.augment else (batch, labels)
        batch = with_noise(batch, levels, generator)
        complete = torch.rand(how.batch_size, 1, generator=generator, device=how.device) < how.whole
        masks = random_kept(how.batch_size, sizes, keep, joint=how.joint, generator=generator)
        kept = {
            m: (mask | complete).unflatten(1, values[m].shape[2:]) if values[m].ndim == 4 else mask | complete
            for m, mask in masks.items()
        }
        with torch.autocast(kind, dtype=torch.bfloat16, enabled=half):
            logits = segmenter(batch, kept)
        right = (logits.argmax(dim=1) == labels)[labels >= 0].float().mean()
        return nn.functional.cross_entropy(logits.float(), labels, weight=weight, ignore_index=-1), right

    settings = {"keep": keep, "noise": levels}
    return run_steps(model, step, samples, how, title="train on ablated images", settings=settings)


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
