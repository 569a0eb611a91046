"""The sampling loop: draws sub-samples, asks the model, counts its votes."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, Shaped, UInt8
from torch import Tensor, nn

from crossguard.certify.counts import Span
from crossguard.certify.design import Design
from crossguard.certify.subsample import ablate_elements, draw_masks, gaussian, rate_masks
from crossguard.data.samples import element_count
from crossguard.memory import told_of_memory
from crossguard.models.base import MultiModalClassifier, MultiModalSegmenter, Packed, PackingClassifier
from crossguard.models.inputs import input_tensor
from crossguard.models.packing import pack_rows
from crossguard.progress import Work

Inputs = dict[str, Tensor | Packed]
Masks = dict[str, Tensor]
_JOINT = 2**20  # stands for "all modalities together" where masks are drawn


@dataclass(frozen=True)
class Asked:
    """A base model and what it is asked about: all that votes depend on.

    Args:
        model: a classifier, or a segmenter where the design has a `mask_size`.
        values: of its modalities.
        design: how sub-samples of them are drawn.
    """

    model: Any
    values: Mapping[str, np.ndarray]
    design: Design

    @cached_property
    def names(self) -> Int64[np.ndarray, " samples"]:
        """What the samples are called where masks are drawn."""
        return self.design.names(self.values)

    def __len__(self) -> int:
        return len(next(iter(self.values.values())))

    def sub_samples(
        self, ids: Int64[np.ndarray, " chosen"], position: Int64[Tensor, " rows"], draw: Int64[Tensor, " rows"]
    ) -> tuple[Inputs, Masks]:
        """Return draws `draw` of the samples `ids[position]`, see `sub_samples`."""
        return sub_samples(self.values, self.names, ids, position, draw, self.design)


def in_precision(precision: str, device: torch.device | str) -> torch.autocast:
    """Return a context in which the base model computes in the design's precision."""
    kind = torch.device(device).type
    return torch.autocast(kind, torch.bfloat16, enabled=precision == "bfloat16", cache_enabled=False)


def class_logits_of(
    asked: Asked, span: Span, ids: Int64[np.ndarray, " chosen"], task: Work
) -> Iterator[tuple[Int64[Tensor, " rows"], Float[Tensor, "rows labels"]]]:
    """Ask about the draws of `span` of the chosen samples: give places in `ids` and logits, a batch at a time."""
    draws, design = span[1] - span[0], asked.design
    for start in range(0, len(ids) * draws, design.batch_size):
        row = torch.arange(start, min(start + design.batch_size, len(ids) * draws), device=design.device)
        position = row // draws
        shown = asked.sub_samples(ids, position, span[0] + row % draws)
        with in_precision(design.precision, design.device), told_of_memory(asked.model, batch_size=len(row)):
            logits = class_logits(asked.model, *shown)
        yield position, logits.float()
        task.advance(len(row))


@torch.no_grad()
def class_votes(
    span: Span, *, asked: Asked, ids: Int64[np.ndarray, " chosen"], task: Work
) -> Int64[np.ndarray, "chosen labels"]:
    """Return the votes of the draws of `span` for the chosen samples."""
    labels = len(asked.model.classes)
    votes = torch.zeros(len(ids) * labels, dtype=torch.int64, device=asked.design.device)
    for position, logits in class_logits_of(asked, span, ids, task):
        votes.index_add_(0, position * labels + logits.argmax(dim=1), torch.ones_like(position))
    return votes.reshape(len(ids), labels).cpu().numpy()


@torch.no_grad()
def top_votes(
    span: Span, *, asked: Asked, ids: Int64[np.ndarray, " chosen"], most: int, task: Work
) -> Int64[np.ndarray, "chosen items 2"]:
    """Return, for each item of the model's gallery, how often it is not and how often it is among the `most` likeliest.

    Of equal ones the first is the likelier.
    """
    items = len(asked.model.classes)
    votes = torch.zeros(len(ids) * items, dtype=torch.int64, device=asked.design.device)
    for position, logits in class_logits_of(asked, span, ids, task):
        first = logits.argsort(dim=1, descending=True, stable=True)[:, :most]
        places = (position[:, None] * items + first).flatten()
        votes.index_add_(0, places, torch.ones_like(places))
    among = votes.reshape(len(ids), items).cpu().numpy()
    return np.stack([span[1] - span[0] - among, among], axis=-1)


def class_logits(model: MultiModalClassifier, inputs: Inputs, kept: Masks) -> Float[Tensor, "rows labels"]:
    """Ask a classifier about sub-samples, packed where it takes them so.

    Raises:
        ValueError: logits of another shape, or not finite.
    """
    rows = len(next(iter(inputs.values())))
    if len(kept) < len(inputs):
        logits = cast(PackingClassifier, model).classify_kept(inputs, kept)
    else:
        logits = model(cast(dict[str, Tensor], inputs), kept)
    _check_logits(logits, (rows, len(model.classes)))
    return logits


@torch.no_grad()
def pixel_votes(span: Span, *, asked: Asked, image: int, task: Work) -> Int64[np.ndarray, "height width labels"]:
    """Return the votes of the draws of `span` for every pixel of one image; memory does not grow with their number."""
    labels, design = len(asked.model.classes), asked.design
    shape = design.mask_size or next(iter(asked.values.values())).shape[2:]
    votes = torch.zeros(labels, *shape, dtype=torch.int64, device=design.device)
    for predicted in pixel_labels(asked, span, image):
        for label in range(1, labels):
            votes[label] += (predicted == label).sum(dim=0, dtype=torch.int32)
        task.advance(len(predicted))
    votes[0] = span[1] - span[0] - votes[1:].sum(dim=0)
    return np.ascontiguousarray(votes.permute(1, 2, 0).cpu().numpy())


def pixel_labels(asked: Asked, span: Span, image: int) -> Iterator[UInt8[Tensor, "rows height width"]]:
    """Give what the draws of `span` say of every pixel of one image, a batch at a time."""
    design = asked.design
    for start in range(span[0], span[1], design.batch_size):
        draw = torch.arange(start, min(start + design.batch_size, span[1]), device=design.device)
        inputs, kept = asked.sub_samples(np.array([image]), torch.zeros_like(draw), draw)
        with in_precision(design.precision, design.device), told_of_memory(asked.model, batch_size=len(draw)):
            logits = pixel_logits(asked.model, inputs, kept, size=design.mask_size)
        yield most_likely(logits.float())


def pixel_logits(
    model: MultiModalSegmenter, inputs: Inputs, kept: Masks, *, size: tuple[int, int] | None = None
) -> Float[Tensor, "rows labels height width"]:
    """Ask a segmenter about sub-samples.

    Args:
        model: the base segmenter.
        inputs: of each modality, images of any size or [rows, elements, ...].
        kept: masks [rows, elements].
        size: height and width of the masks; None: of the first modality.

    Raises:
        ValueError: logits of another shape, or not finite.
    """
    images = cast(dict[str, Tensor], inputs)
    first = next(iter(images.values())).shape
    shown = {
        modality: mask.unflatten(1, images[modality].shape[2:]) if images[modality].ndim == 4 else mask
        for modality, mask in kept.items()
    }
    logits = model(images, shown)
    _check_logits(logits, (first[0], len(model.classes), *(size or first[2:])))
    return logits


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
    names: Int64[np.ndarray, " samples"],
    ids: Int64[np.ndarray, " chosen"],
    position: Int64[Tensor, " rows"],
    draw: Int64[Tensor, " rows"],
    design: Design,
) -> tuple[Inputs, Masks]:
    """Return sub-samples: draws `draw` of the samples `ids[position]`; `position` is ascending.

    Returns:
        Per modality the ablated values [rows, ...], or the kept elements packed; and the masks [rows, elements] of the
        modalities that are not packed.
    """
    first, last = int(position[0]), int(position[-1]) + 1
    chosen, row = ids[first:last], position - first
    called = torch.from_numpy(names[chosen]).to(position.device)[row]
    masks = draw_design(called, draw, design)
    inputs: Inputs = {}
    kept: Masks = {}
    for modality, mask in masks.items():
        padding = element_count(values[modality]) - mask.shape[1]
        if padding < 0:
            raise RuntimeError(
                f"Expected masks of at most {element_count(values[modality])} elements of {modality!r}, but got "
                f"{mask.shape[1]}."
            )
        mask = nn.functional.pad(mask, (0, padding)) if padding else mask
        picked = values[modality][chosen[0] : chosen[0] + 1] if len(chosen) == 1 else values[modality][chosen]
        whole = input_tensor(picked, design.device)
        if modality in design.packs:
            elements = whole.flatten(2).transpose(1, 2) if whole.ndim == 4 else whole
            inputs[modality] = pack_kept(elements, row, mask, shown_size=design.shown_size(modality))
            continue
        # Overwritten here, whatever the model does with `kept`: the certificate must not rest on its good behaviour.
        rows = whole[row] if len(chosen) > 1 else whole.expand(len(row), *whole.shape[1:])
        inputs[modality] = ablate_elements(rows, mask, fill=design.fill)
        kept[modality] = mask
    for i, (modality, sigma) in enumerate(design.noise.items()):
        whole = input_tensor(values[modality][chosen], design.device)[row]
        noisy = whole + sigma * gaussian(design.seed, called, i, draw, whole.shape[1:])
        every = torch.ones(len(row), element_count(values[modality]), dtype=torch.bool, device=row.device)
        if modality in design.packs:
            elements = noisy.flatten(2).transpose(1, 2) if noisy.ndim == 4 else noisy
            inputs[modality] = pack_kept(elements, torch.arange(len(row), device=row.device), every, shown_size=None)
        else:
            inputs[modality], kept[modality] = noisy, every
    return {modality: inputs[modality] for modality in values}, kept


def pack_kept(
    elements: Shaped[Tensor, "samples elements *features"],
    row: Int64[Tensor, " rows"],
    mask: Bool[Tensor, "rows elements"],
    *,
    shown_size: int | None,
) -> Packed:
    """Pack what is kept.

    Args:
        elements: of the samples.
        row: the sample that each row is of.
        mask: what is kept.
        shown_size: None tells the model where the elements stood of how many. A number is told instead of theirs, and
            of the places the order alone.
    """
    packed = pack_rows(elements, row, mask)
    if shown_size is None:
        return packed
    rank = torch.arange(packed.positions.shape[1], device=mask.device).expand_as(packed.positions)
    if packed.real is not None:
        rank = rank.masked_fill(~packed.real, 0)
    return Packed(packed.values, rank, shown_size, packed.real)


def draw_design(
    names: Int64[Tensor, " rows"], draw: Int64[Tensor, " rows"], design: Design
) -> dict[str, Bool[Tensor, "rows _"]]:
    """Draw masks of samples, and check them: k and n of the certificate are counted here."""
    sizes, keep = tuple(design.sizes.values()), tuple(design.keep.values())
    if design.scheme == "joint":
        total = sum(map(int, keep))
        mask = draw_masks(seed=design.seed, inputs=names, modality=_JOINT, draws=draw, n=sum(sizes), k=total)
        return dict(zip(design.sizes, _checked(mask, sum(sizes), total).split(sizes, dim=1), strict=True))
    if design.scheme == "rate":
        return {
            modality: rate_masks(design.seed, names, modality=i, draws=draw, n=n, rate=float(design.keep[modality]))
            for i, (modality, n) in enumerate(design.sizes.items())
        }
    masks = {}
    for i, (modality, n, k) in enumerate(zip(design.sizes, sizes, map(int, keep), strict=True)):
        if design.plan is not None:
            mask = design.plan.masks(modality, draw)
        else:
            mask = draw_masks(seed=design.seed, inputs=names, modality=i, draws=draw, n=n, k=k)
        # Blocks of a product may be one element smaller than others, and their sizes play no part in its certificate.
        masks[modality] = _checked(mask, n, k, fewest=0 if design.scheme == "product" else k)
    return masks


def _checked(
    mask: Bool[Tensor, "rows elements"], n: int, k: int, *, fewest: int | None = None
) -> Bool[Tensor, "rows elements"]:
    counted = mask.sum(dim=1)
    fewest = k if fewest is None else fewest
    if mask.shape[1] != n or bool(((counted > k) | (counted < fewest)).any()):
        raise RuntimeError(
            f"Expected masks that keep {k} of {n} elements, but got {int(counted.min())}..{int(counted.max())} of "
            f"{mask.shape[1]}."
        )
    return mask


def _check_logits(logits: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(logits.shape) != shape:
        raise ValueError(f"Expected logits {list(shape)} of the model, but got {list(logits.shape)}.")
    # The sum is finite when all are, but for overflow, and is much quicker to take.
    if not torch.isfinite(logits.sum()) and not torch.isfinite(logits).all():
        raise ValueError("Expected finite logits of the model, but got NaN or infinity.")


@contextmanager
def evaluation_mode(model: Any, device: torch.device | str) -> Iterator[None]:
    """Move a module to a device and put it into evaluation mode; on leaving, back into the mode it was in."""
    modules: Sequence[nn.Module] = ()
    if isinstance(model, nn.Module):
        model.to(device)
        modules = tuple(model.modules())
    modes = [module.training for module in modules]
    for module in modules:
        module.training = False
    try:
        yield
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode
