"""Plain accuracy of classifiers and segmenters on whole inputs: what sub-sampling is compared with."""

from typing import Any

import numpy as np
import torch

from crossguard.data.samples import MultiModalSamples
from crossguard.evaluate.statistics import Ratio
from crossguard.models.base import MultiModalClassifier, MultiModalSegmenter
from crossguard.models.inputs import input_arrays
from crossguard.models.plain_torch import plain_torch


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
    right = label_ratio(model, samples, batch_size=batch_size, device=device)
    return float(right.part.sum() / right.whole.sum())


@plain_torch()
@torch.no_grad()
def label_ratio(
    model: MultiModalClassifier | MultiModalSegmenter,
    samples: MultiModalSamples,
    *,
    batch_size: int = 64,
    device: torch.device | str = "cpu",
) -> Ratio:
    """Return the right and the judged labels of each sample in its group; arguments and errors of `label_accuracy`."""
    values = input_arrays(model, samples)
    judged = samples.labels >= 0
    if not judged.any():
        raise ValueError("Expected samples with labels to speak of accuracy, but all are -1.")
    right = np.zeros(len(samples))
    for start in range(0, len(samples), batch_size):
        rows = slice(start, start + batch_size)
        inputs: Any = {m: torch.from_numpy(array[rows].astype(np.float32)).to(device) for m, array in values.items()}
        answer = model(inputs).argmax(dim=1).cpu().numpy()
        hits = answer == samples.labels[rows]  # never -1, so what is not judged is not counted
        right[rows] = hits.reshape(len(hits), -1).sum(axis=1)
    return Ratio(right, judged.reshape(len(judged), -1).sum(axis=1).astype(np.float64), samples.groups)
