"""How sub-samples are drawn: `Design`, and the checks of what a caller asked for."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch

from crossguard.certify.arguments import edit_kinds, whole_number
from crossguard.certify.counts import Counts
from crossguard.certify.subsample import Fill
from crossguard.certify.thresholds import Scheme
from crossguard.checks import check_choice, lookup
from crossguard.data.samples import element_count
from crossguard.models.base import MultiModalClassifier, MultiModalSegmenter, PackingClassifier
from crossguard.threat import EditKind

Ablation = Fill | Literal["drop"]


@dataclass(frozen=True)
class Design:
    """How sub-samples are drawn.

    Args:
        keep: elements kept of each modality, by its name, in the model's order; of a joint scheme their sum counts.
        sizes: elements of each modality, by its name.
        seed: of the masks.
        fill: what ablated elements become before the model sees them.
        packs: modalities whose ablated elements are dropped instead.
        scheme: "independent" keeps exactly k_i of modality i, "joint" the sum of all k_i of all elements together.
        batch_size: sub-samples per forward pass.
        device: where masks are drawn and the model runs.
    """

    keep: Mapping[str, int]
    sizes: Mapping[str, int]
    seed: int = 0
    fill: Fill = 0.0
    packs: tuple[str, ...] = ()
    scheme: Scheme = "independent"
    batch_size: int = 1
    device: torch.device | str = "cpu"

    @property
    def ablation(self) -> str:
        """What becomes of ablated elements, in words."""
        dropped = f"{', '.join(self.packs)} dropped" if self.packs else ""
        others = set(self.sizes) - set(self.packs)
        return ", ".join([*([dropped] if dropped else []), *([f"filled with {self.fill}"] if others else [])])

    def draws_per_batch(self, samples: int) -> int:
        """Return how many draws of so many samples fill a forward pass, at least 1."""
        return max(1, self.batch_size // max(1, samples))

    def no_votes(self, shape: tuple[int, ...], source: str) -> Counts:
        """Return counts of no draws, for votes of a shape [..., labels]."""
        return Counts(
            votes=np.zeros(shape, dtype=np.int64),
            spans=(),
            seed=self.seed,
            n=self.sizes,
            k=self.keep,
            source=source,
            scheme=self.scheme,
        )

    def file(self, name: str) -> str:
        """Return the file name of counts of this scheme."""
        return f"{name}.npz" if self.scheme == "independent" else f"{name}-{self.scheme}.npz"


def design_for(
    model: MultiModalClassifier | MultiModalSegmenter,
    values: Mapping[str, np.ndarray],
    *,
    keep: Mapping[str, int],
    scheme: Scheme,
    seed: int,
    fill: Ablation | None,
    batch_size: int,
    device: torch.device | str,
) -> Design:
    """Check what a caller asked for.

    Raises:
        ValueError: `keep` names other modalities than the model's, k > n, an unknown scheme, a fill that is no finite
            number, "mean" or "drop", "drop" with a model that takes nothing packed, or numbers that are not whole.
    """
    check_choice(scheme, get_args(Scheme), "scheme")
    sizes = {m: element_count(array) for m, array in values.items()}
    packs: tuple[str, ...] = ()
    if fill in (None, "drop"):
        packs = packed_modalities(model)
        if fill == "drop" and not packs:
            raise ValueError(
                f"Expected a model that takes kept elements packed (`PackingClassifier`) for fill = 'drop', but "
                f"{model.name!r} does not: choose a number or 'mean'."
            )
        fill = 0.0
    elif fill != "mean" and not (isinstance(fill, int | float) and np.isfinite(fill)):
        raise ValueError(f"Expected `fill` to be a finite number, 'mean' or 'drop', but got {fill!r}.")
    return Design(
        keep=kept_counts(keep, sizes),
        sizes=sizes,
        seed=whole_number(seed, "seed"),
        fill=fill,
        packs=packs,
        scheme=scheme,
        batch_size=whole_number(batch_size, "batch_size", least=1),
        device=device,
    )


def packed_modalities(model: MultiModalClassifier | MultiModalSegmenter) -> tuple[str, ...]:
    """Return the modalities that a model takes packed; none unless it is a `PackingClassifier`.

    Raises:
        ValueError: it names a modality that is not its own.
    """
    if not isinstance(model, PackingClassifier):
        return ()
    for modality in model.packs:
        lookup(dict.fromkeys(model.modalities), modality, what=f"modality in `packs` of {model.name!r}")
    return tuple(model.packs)


def kept_counts(keep: Mapping[str, int], sizes: Mapping[str, int]) -> dict[str, int]:
    """Return `keep` in the order of `sizes`.

    Raises:
        ValueError: a modality is missing or unknown, or a number is not in [1, size].
    """
    for modality in keep:
        lookup(sizes, modality, what="modality in `keep`")
    kept = {}
    for modality, size in sizes.items():
        if modality not in keep:
            raise ValueError(f"Expected `keep` to name every modality of the model, but {modality!r} is missing.")
        kept[modality] = whole_number(keep[modality], f"keep[{modality!r}]", least=1)
        if kept[modality] > size:
            raise ValueError(
                f"Expected `keep[{modality!r}]` <= {size}, the number of elements, but got {keep[modality]}."
            )
    return kept


def kinds_of(kind: EditKind | Mapping[str, EditKind], modalities: tuple[str, ...]) -> tuple[str, ...]:
    """Return one kind of edit per modality.

    Raises:
        ValueError: an unknown kind or modality.
    """
    if isinstance(kind, str):
        return edit_kinds(kind, len(modalities))
    for modality in kind:
        lookup(dict.fromkeys(modalities), modality, what="modality in `kind`")
    return edit_kinds([kind.get(modality, "substitution") for modality in modalities], len(modalities))
