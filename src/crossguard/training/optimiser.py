"""AdamW over the trained parameters, and the learning rate as a pure function of the step."""

import math
from collections.abc import Collection

import torch
from torch import nn

from crossguard.models import Captioner, VisionLanguageModel
from crossguard.training.codes import Tower


def learning_rate_at(step: int, *, steps: int, warmup: int, peak: float) -> float:
    """Return the learning rate of a step: linear warm-up to `peak`, then half a cosine down to 0.

    Args:
        step: from 0.
        steps: of the whole training.
        warmup: steps of the warm-up.
        peak: the largest learning rate.

    Example:
        >>> [round(learning_rate_at(s, steps=6, warmup=2, peak=1.0), 3) for s in range(6)]
        [0.5, 1.0, 0.962, 0.691, 0.309, 0.038]
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    done = (step - warmup + 0.5) / max(1, steps - warmup)
    return peak * 0.5 * (1 + math.cos(math.pi * done))


def select_trained(model: VisionLanguageModel | Captioner, towers: Collection[Tower]) -> list[nn.Parameter]:
    """Switch gradients on for what is trained and off for all else; return what is trained.

    With both towers every other parameter is trained too. What its owner had frozen stays frozen.

    Args:
        model: changed in its `requires_grad` flags.
        towers: the towers to train.

    Raises:
        ValueError: nothing is left to train.
    """
    module: nn.Module = model  # type: ignore[assignment]
    wanted = {id(p) for tower in towers for p in model.tower(tower)}
    trained = []
    for parameter in module.parameters():
        chosen = parameter.requires_grad and (len(set(towers)) == 2 or id(parameter) in wanted)
        parameter.requires_grad_(chosen)
        if chosen:
            trained.append(parameter)
    if not trained:
        raise ValueError(
            f"Expected parameters to train in {' and '.join(sorted(towers))} tower, but all are frozen "
            "(`requires_grad` is off)."
        )
    return trained


def make_optimiser(parameters: Collection[nn.Parameter], *, weight_decay: float) -> torch.optim.AdamW:
    """Return AdamW whose weight decay leaves biases, norms and scales (fewer than two dimensions) alone.

    On GPUs all parameters are updated by a few kernels (`fused`).

    Args:
        parameters: what is trained.
        weight_decay: per step, times the learning rate.
    """
    return torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
        ],
        lr=0.0,
        betas=(0.9, 0.98),
        eps=1e-6,
        fused=all(p.is_cuda for p in parameters) or None,
    )
