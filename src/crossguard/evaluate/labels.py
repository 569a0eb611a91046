"""Plain accuracy of classifiers and segmenters on whole inputs: what sub-sampling is compared with."""

from typing import Any

import numpy as np
import torch

from crossguard.checks import lookup
from crossguard.data.samples import MultiModalSamples
from crossguard.models.base import MultiModalClassifier, MultiModalSegmenter


@torch.no_grad()
def label_accuracy(
    model: MultiModalClassifier | MultiModalSegmenter,
    samples: MultiModalSamples,
    *,
    batch_size: int = 64,
    device: torch.device | str = "cpu",
) -> float:
    """Return the share of judged labels that a model gives right when nothing is ablated, in [0, 1].

    Args:
        model: used as it is, on `device`, in evaluation mode.
        samples: with one label each, or a mask; -1 is not judged.
        batch_size: samples per forward pass.
        device: where the model is.

    Raises:
        ValueError: a modality is missing, other classes than the model's, or nothing is judged.
    """
    values = {m: lookup(samples.modalities, m, what="modality") for m in model.modalities}
    if tuple(samples.classes) != tuple(model.classes):
        raise ValueError(f"Expected samples of the model's classes {model.classes}, but got {samples.classes}.")
    judged = int((samples.labels >= 0).sum())
    if not judged:
        raise ValueError("Expected samples with labels to speak of accuracy, but all are -1.")
    right = 0
    for start in range(0, len(samples), batch_size):
        rows = slice(start, start + batch_size)
        inputs: Any = {m: torch.from_numpy(array[rows].astype(np.float32)).to(device) for m, array in values.items()}
        answer = model(inputs).argmax(dim=1).cpu().numpy()
        right += int((answer == samples.labels[rows]).sum())  # never -1, so what is not judged is not counted
    return right / judged
