"""The sampling loop: draws sub-samples, asks the model, adds up the votes."""

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor, nn

from crossguard.certify.counts import Counts, Span, share_of
from crossguard.certify.subsample import Fill, ablate, draw_masks
from crossguard.models.base import MultiModalClassifier, MultiModalSegmenter
from crossguard.progress import Task

Vote = Callable[[Span], Int64[np.ndarray, "*elements labels"]]


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
    if fill == "mean":
        pixels = values.flatten(2).transpose(1, 2)
        return ablate(pixels, kept, fill=fill).transpose(1, 2).reshape(values.shape)
    mask = kept.reshape(len(values), 1, *values.shape[2:])
    return torch.where(mask, values, torch.tensor(float(fill), dtype=values.dtype, device=values.device))


def add_draws(counts: Counts, vote: Vote, span: Span, *, path: Path | None = None, saves: int = 10) -> Counts:
    """Return the counts with those draws of `span` added that have not voted yet.

    Under torch.distributed every process draws its share and all return the same sum. With a path the counts are saved
    after each of about `saves` parts, so an interrupted run loses at most one of them.
    """
    for missing in counts.missing(*span):
        for part in _parts(missing, math.ceil((span[1] - span[0]) / saves)):
            votes = _summed(vote(share_of(part, *_rank())))
            counts = counts + replace(counts, votes=votes, spans=(part,))
            if path is not None and _rank()[0] == 0:
                counts.save(path)
    return counts


def resume(path: Path | None, empty: Counts, draws: int) -> Counts:
    """Return the counts that a file holds, or `empty` where there is none.

    Raises:
        ValueError: the file is broken, its counts are not of this model, data and design, or has more than `draws`.
    """
    if path is None or not path.exists():
        return empty
    found = Counts.load(path)
    for name in ("source", "seed", "n", "k"):
        if getattr(found, name) != getattr(empty, name):
            what = "model and data" if name == "source" else f"`{name}`"
            raise ValueError(
                f"Expected counts of the same {what} in {path}; choose another folder, or remove the file."
            )
    if found.draws > draws:
        raise ValueError(
            f"Expected at most {draws} draws in {path}, but it has {found.draws}: ask for as many or more."
        )
    return found


def _parts(span: Span, size: int) -> Iterator[Span]:
    for start in range(span[0], span[1], size):
        yield start, min(start + size, span[1])


@torch.no_grad()
def class_votes(
    span: Span,
    *,
    model: MultiModalClassifier,
    values: Mapping[str, np.ndarray],
    ids: Int64[np.ndarray, " chosen"],
    design: Design,
    task: Task,
) -> Int64[np.ndarray, "chosen labels"]:
    """Return the votes of the draws of `span` for the chosen samples."""
    draws, labels = span[1] - span[0], len(model.classes)
    votes = torch.zeros(len(ids) * labels, dtype=torch.int64, device=design.device)
    for start in range(0, len(ids) * draws, design.batch_size):
        row = torch.arange(start, min(start + design.batch_size, len(ids) * draws), device=design.device)
        position = row // draws
        inputs, kept = sub_samples(values, ids, position, span[0] + row % draws, design)
        logits = model(inputs, kept)
        _check_logits(logits, (len(row), labels))
        votes.index_add_(0, position * labels + logits.argmax(dim=1), torch.ones_like(row))
        task.advance(len(row))
    return votes.reshape(len(ids), labels).cpu().numpy()


@torch.no_grad()
def pixel_votes(
    span: Span,
    *,
    model: MultiModalSegmenter,
    values: Mapping[str, np.ndarray],
    image: int,
    shape: tuple[int, int],
    design: Design,
    task: Task,
) -> Int64[np.ndarray, "height width labels"]:
    """Return the votes of the draws of `span` for every pixel of one image; memory does not grow with their number."""
    labels = len(model.classes)
    votes = torch.zeros(labels, *shape, dtype=torch.int64, device=design.device)
    for start in range(span[0], span[1], design.batch_size):
        draw = torch.arange(start, min(start + design.batch_size, span[1]), device=design.device)
        inputs, kept = sub_samples(values, np.array([image]), torch.zeros_like(draw), draw, design)
        logits = model(inputs, {modality: mask.reshape(-1, *shape) for modality, mask in kept.items()})
        _check_logits(logits, (len(draw), labels, *shape))
        predicted = most_likely(logits)
        for label in range(1, labels):
            votes[label] += (predicted == label).sum(dim=0, dtype=torch.int32)
        task.advance(len(draw))
    votes[0] = span[1] - span[0] - votes[1:].sum(dim=0)
    return np.ascontiguousarray(votes.permute(1, 2, 0).cpu().numpy())


def most_likely(logits: Float[Tensor, "rows labels height width"]) -> UInt8[Tensor, "rows height width"]:
    """Return the label with the largest logit, the lowest among equals.

    A pass per label is many times faster on a CPU than `argmax` along an axis that is not the last.

    Raises:
        ValueError: more than 256 labels.
    """
    if logits.shape[1] > 256:
        raise ValueError(f"Expected at most 256 labels, but got {logits.shape[1]}.")
    best = logits[:, 0]
    label = torch.zeros(best.shape, dtype=torch.uint8, device=logits.device)
    for other in range(1, logits.shape[1]):
        more = logits[:, other] > best
        label = torch.where(more, torch.full_like(label, other), label)
        best = torch.maximum(best, logits[:, other])
    return label


def sub_samples(
    values: Mapping[str, np.ndarray],
    ids: Int64[np.ndarray, " chosen"],
    position: Int64[Tensor, " rows"],
    draw: Int64[Tensor, " rows"],
    design: Design,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return ablated inputs and masks of draws `draw` of the samples `ids[position]`; `position` is ascending."""
    first, last = int(position[0]), int(position[-1]) + 1
    chosen = ids[first:last]
    index = torch.from_numpy(chosen).to(position.device)[position - first]
    inputs, kept = {}, {}
    for modality_position, (modality, k) in enumerate(design.keep.items()):
        picked = values[modality][chosen[0] : chosen[0] + 1] if len(chosen) == 1 else values[modality][chosen]
        whole = torch.from_numpy(picked).to(design.device)
        mask = draw_masks(
            seed=design.seed, inputs=index, modality=modality_position, draws=draw, n=design.sizes[modality], k=k
        )
        counted, elements = mask.sum(dim=1), element_count(values[modality])
        if mask.shape[1] != elements or (counted != k).any():
            raise RuntimeError(
                f"Expected masks of {modality!r} that keep {k} of {elements} elements, but got "
                f"{int(counted.min())}..{int(counted.max())} of {mask.shape[1]}."
            )
        # Overwritten here, whatever the model does with `kept`: the certificate must not rest on its good behaviour.
        rows = whole[position - first] if len(chosen) > 1 else whole.expand(len(index), *whole.shape[1:])
        inputs[modality] = ablate_elements(rows, mask, fill=design.fill)
        kept[modality] = mask
    return inputs, kept


def _check_logits(logits: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(logits.shape) != shape:
        raise ValueError(f"Expected logits {list(shape)} of the model, but got {list(logits.shape)}.")
    # The sum is finite when all are, but for overflow, and is much quicker to take.
    if not torch.isfinite(logits.sum()) and not torch.isfinite(logits).all():
        raise ValueError("Expected finite logits of the model, but got NaN or infinity.")


def model_fingerprint(model: Any) -> str:
    """Return a hash of a model's class and weights."""
    digest = hashlib.sha256(type(model).__qualname__.encode())
    if isinstance(model, nn.Module):
        for name, tensor in model.state_dict().items():
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def fingerprint(model: str, values: Mapping[str, np.ndarray], *, fill: Fill) -> str:
    """Return a hash of a model's fingerprint and the inputs, by which saved counts are recognised as theirs."""
    digest = hashlib.sha256(f"{model} {fill}".encode())
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


def _summed(votes: Int64[np.ndarray, "*elements labels"]) -> Int64[np.ndarray, "*elements labels"]:
    if _rank()[1] == 1:
        return votes
    nccl = torch.distributed.get_backend() == "nccl"
    total = torch.from_numpy(votes).to("cuda" if nccl else "cpu")
    torch.distributed.all_reduce(total)
    return total.cpu().numpy()
