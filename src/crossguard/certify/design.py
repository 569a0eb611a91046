"""How sub-samples are drawn: `Design`, and the checks of what a caller asked for."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from math import prod
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from jaxtyping import Int64

from crossguard.certify.arguments import edit_kinds, probability, whole_number
from crossguard.certify.bounds import Bound
from crossguard.certify.counts import Counts
from crossguard.certify.ensemble import best_draws, block_counts
from crossguard.certify.looks import FIRST, choose_seed
from crossguard.certify.noise import noise_levels
from crossguard.certify.options import PRECISIONS, Ablation, CertifyOptions, Drawing
from crossguard.certify.preflight import Preflight, preflight
from crossguard.certify.published import PublishedDesign
from crossguard.certify.subsample import Fill
from crossguard.certify.thresholds import Scheme
from crossguard.certify.units import units_of
from crossguard.checks import check_choice, lookup
from crossguard.data.samples import element_count
from crossguard.models.base import MultiModalClassifier, MultiModalSegmenter, PackingClassifier
from crossguard.models.inputs import input_values
from crossguard.threat import EditKind
from crossguard.world import join

ANY_NUMBER = 2**20
"""Size that a model is told where elements are kept at a rate and places are withheld: no number says anything."""
MOST_VALUES = 2**24
"""Numbers in one forward pass by default: 64 MiB of float32, and the model's own memory on top."""


@dataclass(frozen=True)
class Design:
    """How sub-samples are drawn.

    Args:
        keep: elements kept of each modality, by its name, in the model's order; of a joint scheme their sum counts, of
            the scheme "rate" it is the chance that an element is kept.
        sizes: elements of each of them, by its name.
        noise: sigma of each modality that is under noise instead, by its name.
        kinds: kind of edit of each modality, by its name; "l2" of those under noise.
        units: what an element of each modality is called, by its name.
        draws: N.
        seed: of the masks.
        secret: the seed was drawn for this certificate, and nobody else knows it.
        fill: what ablated elements become before the model sees them.
        packs: modalities whose ablated elements are dropped instead.
        position_free: of these, modalities of which the model is not told where elements stood.
        scheme: "independent" keeps exactly k_i of modality i, "joint" the sum of all k_i of all elements together,
            "rate" every element with a chance; "fixed" and "product" are published designs, the same for all inputs.
        mask_size: height and width of what a segmenter gives, whatever those of the modalities are.
        batch_size: sub-samples per forward pass.
        device: where masks are drawn and the model runs.
        precision: of the base model, "float32" or "bfloat16".
    """

    keep: Mapping[str, int | float]
    sizes: Mapping[str, int]
    noise: Mapping[str, float] = field(default_factory=dict)
    kinds: Mapping[str, str] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    draws: int = 1
    seed: int = 0
    secret: bool = False
    fill: Fill = 0.0
    packs: tuple[str, ...] = ()
    position_free: tuple[str, ...] = ()
    scheme: Scheme = "independent"
    mask_size: tuple[int, int] | None = None
    batch_size: int = 1
    device: torch.device | str = "cpu"
    precision: str = "float32"

    @property
    def ablation(self) -> str:
        """What becomes of ablated elements, and what precision the model has if not the usual one, in words."""
        packed = [m for m in self.packs if m in self.sizes]
        dropped = f"{', '.join(packed)} dropped" if packed else ""
        others = f"filled with {self.fill}" if set(self.sizes) - set(self.packs) else ""
        free = f"positions of {', '.join(self.position_free)} withheld" if self.position_free else ""
        noisy = "; ".join(f"{m} under noise of sigma {sigma:g}" for m, sigma in self.noise.items())
        low = "" if self.precision == "float32" else f"the model in {self.precision}"
        return ", ".join(part for part in (dropped, others, free, noisy, low) if part)

    @cached_property
    def plan(self) -> PublishedDesign | None:
        """The published design; None of random draws."""
        if self.scheme not in ("fixed", "product"):
            return None
        kept = {m: int(k) for m, k in self.keep.items()}
        return PublishedDesign(self.scheme, self.sizes, kept, self.draws, self.seed)

    def preflight(
        self,
        options: CertifyOptions,
        *,
        labels: int,
        bound: Bound = "majority",
        elements: int = 1,
        separate: bool = False,
    ) -> Preflight:
        """Return what this can certify at best.

        Args:
            options: of the certificate.
            labels: number of labels.
            bound: on what the other labels have.
            elements: m, elements of an input that share alpha.
            separate: what is certified is not chosen by the votes that certify it.

        Raises:
            ValueError: it can only abstain; the message names the number of draws that would do.
        """
        once = options.folder is None or options.published  # otherwise more draws may follow, and a second look
        return preflight(
            n=tuple(self.sizes.values()),
            k=tuple(self.keep.values()),
            draws=self.draws,
            alpha=probability(options.alpha) * (1.0 if once else FIRST),
            kind=[self.kinds[m] for m in self.sizes],
            scheme=self.scheme,
            elements=elements,
            labels=labels,
            bound=bound,
            separate=separate or options.selection_draws > 0,
            noise=tuple(self.noise.values()),
        ).require()

    def shown_size(self, modality: str) -> int | None:
        """Return the size that a model is told instead of n where places are withheld; None elsewhere."""
        if modality not in self.position_free:
            return None
        if self.scheme == "rate":
            return ANY_NUMBER
        return int(sum(self.keep.values()) if self.scheme == "joint" else max(1, self.keep[modality]))

    def names(self, values: Mapping[str, np.ndarray]) -> Int64[np.ndarray, " samples"]:
        """Return what the samples are called where masks are drawn: a hash of the seed and of what the model takes.

        So nobody who does not know the seed can foresee which elements are drawn of an input that he makes.
        """
        key, samples = str(self.seed).encode()[:64], len(next(iter(values.values())))
        found = np.empty(samples, dtype=np.int64)
        for i in range(samples):
            told = blake2b(key=key, digest_size=8)
            for modality, array in values.items():
                told.update(f"{modality} {array.shape[1:]};".encode())
                told.update(input_values(array[i]).data)
            found[i] = int.from_bytes(told.digest(), "little", signed=True)
        return found

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
            secret=self.secret,
            noise=self.noise,
        )

    def file(self, name: str) -> str:
        """Return the file name of counts of this scheme."""
        return f"{name}.npz" if self.scheme == "independent" else f"{name}-{self.scheme}.npz"


def design_for(
    model: MultiModalClassifier | MultiModalSegmenter,
    values: Mapping[str, np.ndarray],
    options: CertifyOptions,
    *,
    names: Collection[str] = (),
    mask_size: tuple[int, int] | None = None,
    usual: int = 1000,
    batch_size: int = 4096,
) -> Design:
    """Check what a caller asked for, and settle what was left open.

    Args:
        model: the base model.
        values: of its modalities.
        options: what was asked for.
        names: what the files of counts in the options' folder begin with; the secret seed is theirs, if there are any.
        mask_size: height and width of a segmenter's masks.
        usual: N where none is asked for.
        batch_size: the most sub-samples per forward pass where no number is asked for.

    Raises:
        ValueError: `keep`, `noise`, `kind`, `lengths` or `units` names other modalities than the model's, k > n,
            sigma <= 0, a modality both in `keep` and `noise`, an unknown design or scheme, the joint baseline of a
            published design, or noise or rates beside it, a fill that is no finite number, "mean" or "drop", "drop"
            with a model that takes nothing packed, numbers that are not whole, or insertions or deletions in a
            modality of which the model may see where elements stand.
    """
    device = join(options.device).place(options.device)
    levels = noise_levels(options.noise, options.keep, tuple(values))
    sizes = _sizes(values, levels, options.lengths)
    scheme = _scheme_of(options)
    rates = scheme == "rate"
    keep = kept_rates(options.keep, sizes) if rates else kept_counts(options.keep, sizes, noisy=bool(levels))
    packs, fill = _ablation(model, options.fill)
    free = tuple(m for m in position_free(model) if m in packs and m not in levels)
    kinds = dict(zip(sizes, kinds_of(options.kind, tuple(sizes)), strict=True))
    check_kinds(model, kinds, free)
    numbers = sum(prod(array.shape[1:]) for array in values.values())
    most = max(1, min(batch_size, MOST_VALUES // numbers)) if options.batch_size is None else options.batch_size
    given = (options.seed or 0) if options.published else options.seed
    seed, secret = choose_seed(given, _files(options, scheme, names))
    return Design(
        keep=keep,
        sizes=sizes,
        noise=levels,
        kinds=kinds | dict.fromkeys(levels, "l2"),
        units=units_of(options.units, values),
        draws=draws_of(options.design, options.draws, keep, sizes, usual=usual),
        seed=whole_number(seed, "seed"),
        secret=secret,
        fill=fill,
        packs=packs,
        position_free=free,
        scheme=scheme,
        mask_size=mask_size,
        batch_size=whole_number(most, "batch_size", least=1),
        device=device,
        precision=check_choice(options.precision, PRECISIONS, "precision"),
    )


def _scheme_of(options: CertifyOptions) -> Scheme:
    design, scheme, rates = options.design, options.scheme, is_rate(options.keep)
    check_choice(design, get_args(Drawing), "design")
    check_choice(scheme, get_args(Scheme), "scheme")
    if rates and (options.published or scheme not in ("independent", "rate")):
        raise ValueError("Expected whole numbers in `keep`, but got rates, which random draws alone may have.")
    if design == "random":
        return "rate" if rates else scheme
    if options.noise:
        raise ValueError(
            "Expected no `noise` beside a published design: what it certifies needs draws that are random."
        )
    if scheme != "independent":
        raise ValueError(f"Expected scheme 'independent' with a published design, but got {scheme!r}.")
    return design


def _sizes(
    values: Mapping[str, np.ndarray], levels: Mapping[str, float], lengths: Mapping[str, int] | None
) -> dict[str, int]:
    sizes = {m: element_count(array) for m, array in values.items() if m not in levels}
    for modality, length in (lengths or {}).items():
        size = lookup(sizes, modality, what="modality in `lengths`")
        if not 1 <= length <= size:
            raise ValueError(
                f"Expected `lengths[{modality!r}]` in 1..{size}, the elements there are, but got {length}."
            )
        sizes[modality] = length
    return sizes


def _ablation(model: MultiModalClassifier | MultiModalSegmenter, fill: Ablation | None) -> tuple[tuple[str, ...], Fill]:
    """Return the modalities whose ablated elements are dropped, and what those of others become."""
    if fill is None or fill == "drop":
        packs = packed_modalities(model)
        if fill == "drop" and not packs:
            raise ValueError(
                f"Expected a model that takes kept elements packed (`PackingClassifier`) for fill = 'drop', but "
                f"{model.name!r} does not: choose a number or 'mean'."
            )
        return packs, 0.0
    if fill != "mean" and not (isinstance(fill, int | float) and np.isfinite(fill)):
        raise ValueError(f"Expected `fill` to be a finite number, 'mean' or 'drop', but got {fill!r}.")
    return (), fill


def _files(options: CertifyOptions, scheme: Scheme, names: Collection[str]) -> list[Path]:
    """Return the files of counts under a scheme that an earlier call left."""
    if options.place is None:
        return []
    own = [path for name in names for path in sorted(options.place.glob(f"{name}*.npz"))]
    return [path for path in own if _scheme_in(path) == scheme]


def _scheme_in(file: Path) -> str:
    """Return the scheme that the name of a file of counts ends in, see `Design.file`."""
    last = file.stem.rpartition("-")[2]
    return last if last in get_args(Scheme) else "independent"


def draws_of(
    design: Drawing, draws: int | None, keep: Mapping[str, int | float], sizes: Mapping[str, int], *, usual: int = 1000
) -> int:
    """Return N: what was asked for, or what suits the design.

    Args:
        design: "random" takes `usual`, "fixed" the N up to `usual` that wastes least, "product" the number of tuples.
        draws: what was asked for, or None.
        keep: elements kept, by modality.
        sizes: elements, by modality.
        usual: N of random draws.

    Raises:
        ValueError: not whole, or another number than all tuples of a "product".
    """
    if design == "product":
        tuples = prod(blocks or 1 for blocks in block_counts(sizes, kept_counts(keep, sizes)))
        if draws is not None and draws != tuples:
            raise ValueError(f"Expected no `draws`, or {tuples}, all tuples of blocks, but got {draws}.")
        return tuples
    if draws is None:
        return best_draws(sizes, kept_counts(keep, sizes), usual) if design == "fixed" else usual
    return whole_number(draws, "draws", least=1)


def position_free(model: MultiModalClassifier | MultiModalSegmenter) -> tuple[str, ...]:
    """Return the modalities of which a model does not ask where elements stood.

    Raises:
        ValueError: it names a modality that it does not take packed.
    """
    free = tuple(getattr(model, "position_free", ()))
    for modality in free:
        lookup(dict.fromkeys(packed_modalities(model)), modality, what=f"modality in `packs` of {model.name!r}")
    return free


def check_kinds(
    model: MultiModalClassifier | MultiModalSegmenter, kinds: Mapping[str, str], free: tuple[str, ...]
) -> None:
    """Refuse kinds of edit that the proof does not hold for.

    Raises:
        ValueError: insertions or deletions where the model may see positions.
    """
    for modality, kind in kinds.items():
        if kind != "substitution" and modality not in free:
            raise ValueError(
                f"Expected kind 'substitution' of {modality!r}, but got {kind!r}: an insertion or deletion moves other "
                f"elements, and {model.name!r} may see where they stand. Others are proven for modalities that a model "
                "takes packed and names in `position_free`, whose ablated elements are dropped."
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


def kept_rates(keep: Mapping[str, int | float], sizes: Mapping[str, int]) -> dict[str, float]:
    """Return the chances of `keep` in the order of `sizes`.

    Raises:
        ValueError: a modality is missing or unknown, or a chance that is not in (0, 1).
    """
    for modality in keep:
        lookup(sizes, modality, what="modality in `keep`")
    for modality in sizes:
        rate = keep.get(modality)
        if not isinstance(rate, float) or not 0 < rate < 1:
            raise ValueError(
                f"Expected `keep[{modality!r}]` to be a rate in (0, 1), as others of `keep` are, but got {rate!r}."
            )
    return {m: float(keep[m]) for m in sizes}


def is_rate(keep: Mapping[str, int | float]) -> bool:
    """Return whether elements are kept at a rate: some entry is a float."""
    return any(isinstance(k, float) for k in keep.values())


def kept_counts(keep: Mapping[str, int | float], sizes: Mapping[str, int], *, noisy: bool = False) -> dict[str, int]:
    """Return `keep` in the order of `sizes`; beside noise it may be empty.

    Raises:
        ValueError: a modality is missing or unknown, a number is not in [0, size], or nothing is kept of any.
    """
    for modality in keep:
        lookup(sizes, modality, what="modality in `keep`")
    kept = {}
    for modality, size in sizes.items():
        if modality not in keep:
            raise ValueError(f"Expected `keep` to name every modality of the model, but {modality!r} is missing.")
        kept[modality] = whole_number(keep[modality], f"keep[{modality!r}]", least=0)
        if kept[modality] > size:
            raise ValueError(
                f"Expected `keep[{modality!r}]` <= {size}, the number of elements, but got {keep[modality]}."
            )
    if not any(kept.values()) and not noisy:
        raise ValueError("Expected `keep` >= 1 for some modality, but nothing is kept of any.")
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
