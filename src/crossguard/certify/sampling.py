"""The sampling loop: draws sub-samples, asks the model, adds up the votes."""

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from crossguard.certify.counts import Counts, Span, share_of
from crossguard.certify.subsample import Fill, ablate, draw_masks
from crossguard.models.base import MultiModalClassifier
from crossguard.progress import Task


@dataclass(frozen=True)
class Design:
    """How sub-samples are drawn.

    Args:
        keep: elements kept of each modality, by its name, in the model's order.
        sizes: elements of each modality, by its name.
        seed: of the masks.
        fill: what ablated elements become before the model sees them.
        batch_size: sub-samples per forward pass.
        device: where masks are drawn and the model runs.
    """

    keep: Mapping[str, int]
    sizes: Mapping[str, int]
    seed: int
    fill: Fill
    batch_size: int
    device: torch.device | str


def element_count(values: np.ndarray) -> int:
    """Return the elements per sample: pixels of [samples, channels, height, width], else the second axis."""
    return int(np.prod(values.shape[2:])) if values.ndim == 4 else int(values.shape[1])


def ablate_elements(
    values: Float[Tensor, "rows ..."], kept: Bool[Tensor, "rows elements"], *, fill: Fill = 0.0
) -> Float[Tensor, "rows ..."]:
    """Ablate [rows, elements, ...], or the pixels of [rows, channels, height, width] across their channels."""
    if values.ndim != 4:
        return ablate(values, kept, fill=fill)
    pixels = values.flatten(2).transpose(1, 2)
    return ablate(pixels, kept, fill=fill).transpose(1, 2).reshape(values.shape)


def empty_counts(model: MultiModalClassifier, values: Mapping[str, np.ndarray], design: Design) -> Counts:
    """Return counts of no draws."""
    samples = len(next(iter(values.values())))
    return Counts(
        votes=np.zeros((samples, len(model.classes)), dtype=np.int64),
        spans=(),
        seed=design.seed,
        n=dict(design.sizes),
        k=dict(design.keep),
        source=fingerprint(model, values, fill=design.fill),
    )


def add_draws(
    counts: Counts,
    model: MultiModalClassifier,
    values: Mapping[str, np.ndarray],
    span: Span,
    design: Design,
    *,
    task: Task,
    path: Path | None = None,
    saves: int = 10,
) -> Counts:
    """Return the counts with those draws of `span` added that have not voted yet.

    Under torch.distributed every process draws its share and all return the same sum. With a path the counts are saved
    after each of about `saves` parts, so an interrupted run loses at most one of them.
    """
    for missing in counts.missing(*span):
        for part in _parts(missing, math.ceil((span[1] - span[0]) / saves)):
            votes = _votes(model, values, share_of(part, *_rank()), design, labels=counts.votes.shape[-1], task=task)
            counts = counts + replace(counts, votes=_summed(votes), spans=(part,))
            if path is not None and _rank()[0] == 0:
                counts.save(path)
    return counts


def _parts(span: Span, size: int) -> Iterator[Span]:
    for start in range(span[0], span[1], size):
        yield start, min(start + size, span[1])


@torch.no_grad()
def _votes(
    model: MultiModalClassifier,
    values: Mapping[str, np.ndarray],
    span: Span,
    design: Design,
    *,
    labels: int,
    task: Task,
) -> Int64[np.ndarray, "samples labels"]:
    """Return the votes of the draws of `span` for every sample, [samples, labels]."""
    samples, draws = len(next(iter(values.values()))), span[1] - span[0]
    votes = torch.zeros(samples * labels, dtype=torch.int64, device=design.device)
    for start in range(0, samples * draws, design.batch_size):
        row = torch.arange(start, min(start + design.batch_size, samples * draws), device=design.device)
        sample, draw = row // draws, span[0] + row % draws
        inputs, kept = _sub_samples(values, sample, draw, design)
        logits = model(inputs, kept)
        if logits.shape != (len(row), labels) or not torch.isfinite(logits).all():
            raise ValueError(
                f"Expected finite logits [{len(row)}, {labels}] of the model, but got {list(logits.shape)}"
                f"{'' if torch.isfinite(logits).all() else ' with NaN or infinity'}."
            )
        votes.index_add_(0, sample * labels + logits.argmax(dim=1), torch.ones_like(row))
        task.advance(len(row))
    return votes.reshape(samples, labels).cpu().numpy()


def _sub_samples(
    values: Mapping[str, np.ndarray], sample: Int64[Tensor, " rows"], draw: Int64[Tensor, " rows"], design: Design
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    first, last = int(sample[0]), int(sample[-1]) + 1  # rows are ordered by sample, so a batch needs few of them
    inputs, kept = {}, {}
    for position, (modality, k) in enumerate(design.keep.items()):
        whole = torch.from_numpy(values[modality][first:last]).to(design.device)
        mask = draw_masks(seed=design.seed, inputs=sample, modality=position, draws=draw, n=design.sizes[modality], k=k)
        counted = mask.sum(dim=1)
        if mask.shape[1] != element_count(values[modality]) or (counted != k).any():
            raise RuntimeError(
                f"Expected masks of {modality!r} that keep {k} of {element_count(values[modality])} elements, but got "
                f"{int(counted.min())}..{int(counted.max())} of {mask.shape[1]}."
            )
        # Overwritten here, whatever the model does with `kept`: the certificate must not rest on its good behaviour.
        inputs[modality] = ablate_elements(whole[sample - first], mask, fill=design.fill)
        kept[modality] = mask
    return inputs, kept


def fingerprint(model: Any, values: Mapping[str, np.ndarray], *, fill: Fill) -> str:
    """Return a hash of the model's weights and the inputs, by which saved counts are recognised as theirs."""
    digest = hashlib.sha256(f"{type(model).__qualname__} {fill}".encode())
    if isinstance(model, nn.Module):
        for name, tensor in model.state_dict().items():
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    for name, array in values.items():
        digest.update(f"{name} {array.shape} {array.dtype}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


@contextmanager
def evaluation_mode(model: Any) -> Iterator[None]:
    """Put a module into evaluation mode, and back into the mode it was in."""
    modules: Sequence[nn.Module] = tuple(model.modules()) if isinstance(model, nn.Module) else ()
    modes = [module.training for module in modules]
    for module in modules:
        module.training = False
    try:
        yield
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode


def _rank() -> tuple[int, int]:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def _summed(votes: Int64[np.ndarray, "samples labels"]) -> Int64[np.ndarray, "samples labels"]:
    if _rank()[1] == 1:
        return votes
    nccl = torch.distributed.get_backend() == "nccl"
    total = torch.from_numpy(votes).to("cuda" if nccl else "cpu")
    torch.distributed.all_reduce(total)
    return total.cpu().numpy()
