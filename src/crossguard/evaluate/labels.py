"""Plain accuracy of classifiers and segmenters on whole inputs: what sub-sampling is compared with."""

from typing import Any

import numpy as np
import torch

from crossguard.data.samples import MultiModalSamples
from crossguard.models.base import MultiModalClassifier, MultiModalSegmenter
from crossguard.models.inputs import input_arrays


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
    values = input_arrays(model, samples)
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
