"""What training on ablated inputs has in common, whatever the model labels: masks, and the course of the steps."""

import math
import warnings
from collections.abc import Callable, Mapping
from numbers import Integral
from pathlib import Path
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from crossguard.checks import lookup
from crossguard.data.samples import MultiModalSamples
from crossguard.models.plain_torch import check_weights
from crossguard.progress import Silent
from crossguard.runs import tidy
from crossguard.training.ablated_options import AblatedOptions
from crossguard.training.checkpoint import load_checkpoint, save_checkpoint

Model = TypeVar("Model", bound=nn.Module)
Step = Callable[[torch.Generator], tuple[Float[Tensor, ""], Float[Tensor, ""]]]


def check_keep(keep: Mapping[str, int], sizes: Mapping[str, int]) -> dict[str, int]:
    """Return `keep` in the order of `sizes`.

    Raises:
        ValueError: other names than those of `sizes`, a number that is not in [0, size], or nothing kept of any.
    """
    for modality in keep:
        lookup(sizes, modality, what="modality in `keep`")
    for modality, size in sizes.items():
        k = keep.get(modality)
        if isinstance(k, bool) or not isinstance(k, Integral) or not 0 <= k <= size:
            raise ValueError(f"Expected `keep[{modality!r}]` to be a whole number in [0, {size}], but got {k!r}.")
    if not any(keep.values()):
        raise ValueError("Expected `keep` >= 1 for some modality, but nothing is kept of any.")
    return {modality: int(keep[modality]) for modality in sizes}


def random_masks(
    samples: int,
    elements: int,
    k: int,
    *,
    generator: torch.Generator,
    lengths: Int64[Tensor, " samples"] | None = None,
) -> Bool[Tensor, "samples elements"]:
    """Return masks that keep exactly k elements of each sample, uniformly; of its first `lengths`, all if fewer."""
    keys = torch.rand(samples, elements, generator=generator, device=generator.device)
    if lengths is not None:
        behind = torch.arange(elements, device=keys.device) >= lengths[:, None]
        keys = keys.masked_fill(behind, -1.0)
    chosen: Int64[Tensor, "samples k"] = keys.topk(k, dim=1).indices
    masks = torch.zeros_like(keys, dtype=torch.bool).scatter_(1, chosen, True)
    return masks if lengths is None else masks & ~behind


def counted_and_noisy(
    keep: Mapping[str, int], noise: Mapping[str, float | int] | None, sizes: Mapping[str, int]
) -> tuple[dict[str, int], dict[str, float]]:
    """Return what is kept of sub-sampled modalities, and sigma of those that get noise instead.

    Raises:
        ValueError: a modality in both or in none, numbers out of range, or a sigma that is not finite and > 0.
    """
    levels = {m: float(sigma) for m, sigma in (noise or {}).items()}
    for modality, sigma in levels.items():
        lookup(sizes, modality, what="modality in `noise`")
        if modality in keep or not 0 < sigma < math.inf:
            raise ValueError(
                f"Expected `noise[{modality!r}]` to be a finite sigma > 0 of a modality that `keep` does not name, but "
                f"got {sigma!r} and `keep` of {', '.join(keep) or 'none'}."
            )
    counted = {m: size for m, size in sizes.items() if m not in levels}
    return (check_keep(keep, counted) if counted or keep else {}), levels


def with_noise(values: dict[str, Tensor], levels: Mapping[str, float], generator: torch.Generator) -> dict[str, Tensor]:
    """Return the values with noise on the noisy modalities."""
    drawn = {
        m: torch.randn(values[m].shape, generator=generator, device=values[m].device) * sigma
        for m, sigma in levels.items()
    }
    return {m: value + drawn[m] if m in drawn else value for m, value in values.items()}


def random_kept(
    samples: int,
    sizes: Mapping[str, int],
    keep: Mapping[str, int],
    *,
    joint: bool,
    generator: torch.Generator,
    lengths: Mapping[str, Int64[Tensor, " samples"]] | None = None,
) -> dict[str, Bool[Tensor, "samples _"]]:
    """Return masks of every modality: k_i of its elements, or jointly the sum of all k_i of all elements together.

    Of a modality that `keep` does not name, all elements; of one in `lengths` none behind the sample's own.
    """
    lengths = lengths or {}
    every = {
        m: torch.ones(samples, size, dtype=torch.bool, device=generator.device)
        for m, size in sizes.items()
        if m not in keep
    }
    if every:
        counted = {m: size for m, size in sizes.items() if m in keep}
        drawn = {}
        if counted:
            drawn = random_kept(samples, counted, keep, joint=joint, generator=generator, lengths=lengths)
        return {m: every[m] if m in every else drawn[m] for m in sizes}
    if joint:
        together = random_masks(samples, sum(sizes.values()), sum(keep.values()), generator=generator)
        return dict(zip(sizes, together.split(tuple(sizes.values()), dim=1), strict=True))
    return {
        m: random_masks(samples, size, keep[m], generator=generator, lengths=lengths.get(m))
        for m, size in sizes.items()
    }


def run_steps(
    model: Model,
    step: Step,
    samples: MultiModalSamples,
    options: AblatedOptions,
    *,
    title: str,
    settings: Mapping[str, Any],
) -> Model:
    """Train with AdamW and one cycle of the learning rate, and return the model in evaluation mode.

    Args:
        model: trained in place, moved to the options' device.
        step: draws a batch with the generator it is given; returns the loss and the share of right answers in [0, 1].
        samples: what it is trained on.
        options: of the training; one begun in their folder goes on, to the same weights on the same device. PyTorch's
            global generator is left as it was.
        title: of the progress.
        settings: what decides the outcome beside the options' own numbers, as JSON values.

    Raises:
        ValueError: a checkpoint of another training.
        FloatingPointError: the loss is not finite; the last checkpoint stands.
    """
    check_weights(model)
    about = {
        "model": f"{type(model).__name__} {getattr(model, 'name', '')}",
        "data": f"{samples.name} {samples.split}",
        **options.outcome,
        **settings,
    }
    device, folder = options.device, None if options.folder is None else Path(options.folder)
    on_gpu = torch.device(device).type == "cuda"
    generator = torch.Generator(device=device).manual_seed(options.seed)
    model.to(device).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=options.lr, weight_decay=options.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=options.lr, total_steps=options.steps + 1)

    def dice() -> dict[str, Tensor]:
        states = {"batches": generator.get_state(), "dropout": torch.get_rng_state()}
        return states | ({"dropout on the device": torch.cuda.get_rng_state(device)} if on_gpu else {})

    with torch.random.fork_rng(devices=[device] if on_gpu else []):
        torch.manual_seed(options.seed)  # dropout takes no generator
        done, rolled = 0, dice()
        if folder is not None:
            tidy(folder.parent, name=folder.name)
            done = load_checkpoint(folder, model, optimiser, settings=about, carried=rolled)
        if done:
            generator.set_state(rolled["batches"])
            torch.set_rng_state(rolled["dropout"])
            if on_gpu:
                torch.cuda.set_rng_state(rolled["dropout on the device"], device)
            schedule.last_epoch = done - 1
            with warnings.catch_warnings():  # of a schedule that steps before its optimiser
                warnings.simplefilter("ignore")
                schedule.step()
        with (options.progress or Silent()).task(title, total=options.steps, done=min(done, options.steps)) as task:
            for number in range(done, options.steps):
                loss, right = step(generator)
                if not torch.isfinite(loss):
                    raise FloatingPointError(
                        f"Expected a finite loss, but got {loss.item()}; lower `lr` ({options.lr})."
                    )
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
                task.advance(note=f"loss {loss.item():.3f}, right {100 * right.item():.0f} %")
                if folder is not None and (number + 1) % options.checkpoint_every == 0:
                    save_checkpoint(folder, model, optimiser, step=number + 1, settings=about, carried=dice())
    return model.eval()
