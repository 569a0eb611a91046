"""From values and masks to the kept elements alone."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Int64, Shaped
from torch import Tensor

from crossguard.checks import nearest
from crossguard.models.base import Packed


def pack_all(
    inputs: Mapping[str, Shaped[Tensor, "samples ..."]],
    kept: Mapping[str, Bool[Tensor, "samples elements"]] | None,
    modalities: Sequence[str],
) -> dict[str, Packed]:
    """Pack every modality, see `pack`.

    Args:
        inputs: values [samples, elements, ...] by name.
        kept: which elements stay, by name; None: all of them.
        modalities: the names that are packed.

    Raises:
        ValueError: a modality is missing, or a mask has another shape than its values.
    """
    packed = {}
    for modality in modalities:
        if modality not in inputs:
            raise ValueError(f"Expected an input {modality!r}: {nearest(modality, inputs)}.")
        values = inputs[modality]
        mask = kept[modality] if kept is not None else values.new_ones(values.shape[:2], dtype=torch.bool)
        packed[modality] = pack(values, mask, name=modality)
    return packed


def pack(
    values: Shaped[Tensor, "samples elements *features"],
    kept: Bool[Tensor, "samples elements"],
    *,
    name: str = "values",
) -> Packed:
    """Gather the kept elements of each sample in their order, padded to the most that a sample keeps.

    Args:
        values: any values; those of elements that are not kept are not read. Not changed.
        kept: which elements stay.
        name: of the modality, for the message.

    Raises:
        ValueError: `kept` does not have one entry per element.

    Example:
        >>> packed = pack(torch.tensor([[5.0, 6.0, 7.0]]), torch.tensor([[True, False, True]]))
        >>> packed.values.tolist(), packed.positions.tolist(), packed.real
        ([[5.0, 7.0]], [[0, 2]], None)
    """
    if kept.shape != values.shape[:2]:
        raise ValueError(f"Expected a mask {list(values.shape[:2])} of {name!r}, but got {list(kept.shape)}.")
    sample = torch.arange(len(kept), device=kept.device)
    return pack_rows(values, sample, kept)


def pack_rows(
    values: Shaped[Tensor, "samples elements *features"],
    sample: Int64[Tensor, " rows"],
    kept: Bool[Tensor, "rows elements"],
) -> Packed:
    """Gather the kept elements of rows that share samples, without ever repeating a whole sample.

    Args:
        values: of the samples.
        sample: the sample that each row is of.
        kept: which elements of its sample each row keeps.
    """
    positions, real = kept_first(kept)
    chosen = values[sample.unsqueeze(1), positions]
    if real is not None:  # not a product with the mask: what was dropped may hold NaN
        chosen = chosen.masked_fill(~real.reshape(real.shape + (1,) * (chosen.ndim - 2)), 0.0)
        positions = positions.masked_fill(~real, 0)
    return Packed(chosen, positions, kept.shape[1], real)


def kept_first(
    kept: Bool[Tensor, "rows elements"],
) -> tuple[Int64[Tensor, "rows most"], Bool[Tensor, "rows most"] | None]:
    """Return the positions of the kept elements, ascending, padded to the most of any row (at least 1).

    The second is False on padding; None where there is none, because every row keeps as many.
    """
    counts = kept.sum(dim=1)
    most, fewest = max(1, int(counts.max())), int(counts.min())
    if most == fewest:
        return kept.nonzero()[:, 1].reshape(len(kept), most), None
    order = (~kept).to(torch.uint8).argsort(dim=1, stable=True)[:, :most]
    return order, kept.gather(1, order)
