"""What training on ablated inputs has in common, whatever the model labels: masks, and the course of the steps."""

from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from crossguard.checks import lookup
from crossguard.progress import Reporter, Silent

Model = TypeVar("Model", bound=nn.Module)
Step = Callable[[torch.Generator], tuple[Float[Tensor, ""], Float[Tensor, ""]]]


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


def random_kept(
    samples: int, sizes: Mapping[str, int], keep: Mapping[str, int], *, joint: bool, generator: torch.Generator
) -> dict[str, Bool[Tensor, "samples _"]]:
    """Return masks of every modality: k_i of its elements, or jointly the sum of all k_i of all elements together."""
    if joint:
        together = random_masks(samples, sum(sizes.values()), sum(keep.values()), generator=generator)
        return dict(zip(sizes, together.split(tuple(sizes.values()), dim=1), strict=True))
    return {m: random_masks(samples, size, keep[m], generator=generator) for m, size in sizes.items()}


def run_steps(
    model: Model,
    step: Step,
    *,
    title: str,
    steps: int,
    lr: float,
    weight_decay: float,
    seed: int,
    device: torch.device | str,
    progress: Reporter | None,
) -> Model:
    """Train with AdamW and one cycle of the learning rate, and return the model in evaluation mode.

    Args:
        model: trained in place, moved to `device`.
        step: draws a batch with the generator it is given; returns the loss and the share of right answers in [0, 1].
        title: of the progress.
        steps: optimiser steps.
        lr: largest learning rate.
        weight_decay: of AdamW.
        seed: of the generator and of dropout; PyTorch's global generator is left as it was.
        device: where to train.
        progress: shows steps, loss and the share of right answers.

    Raises:
        FloatingPointError: the loss is not finite.
    """
    generator = torch.Generator(device=device).manual_seed(seed)
    model.to(device).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=lr, total_steps=steps + 1)
    with (
        torch.random.fork_rng(devices=[device] if torch.device(device).type == "cuda" else []),
        (progress or Silent()).task(title, total=steps) as task,
    ):
        torch.manual_seed(seed)  # dropout takes no generator
        for _ in range(steps):
            loss, right = step(generator)
            if not torch.isfinite(loss):
                raise FloatingPointError(f"Expected a finite loss, but got {loss.item()}; lower `lr` ({lr}).")
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            task.advance(note=f"loss {loss.item():.3f}, right {100 * right.item():.0f} %")
    return model.eval()
