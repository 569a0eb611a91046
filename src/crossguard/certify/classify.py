"""`certify`: certificates of a classifier, from drawing sub-samples to certified accuracy."""

import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch

from crossguard.certify.arguments import choice, edit_kinds, probability, whole_number
from crossguard.certify.bounds import Bound
from crossguard.certify.certificate import Certificate
from crossguard.certify.counts import Counts
from crossguard.certify.preflight import preflight
from crossguard.certify.sampling import (
    Design,
    add_draws,
    class_votes,
    element_count,
    evaluation_mode,
    fingerprint,
    model_fingerprint,
    resume,
)
from crossguard.certify.subsample import Fill
from crossguard.checks import lookup
from crossguard.data.samples import MultiModalSamples
from crossguard.models.base import MultiModalClassifier
from crossguard.progress import Reporter, Silent
from crossguard.threat import EditKind

SELECTION_START = 2**40  # selection draws have indices of their own, out of the way of any number of voting draws


def certify(
    model: MultiModalClassifier,
    samples: MultiModalSamples,
    *,
    keep: Mapping[str, int],
    draws: int = 1000,
    alpha: float = 0.001,
    seed: int = 0,
    kind: EditKind | Mapping[str, EditKind] = "substitution",
    bound: Bound = "majority",
    selection_draws: int = 0,
    fill: Fill = 0.0,
    batch_size: int = 4096,
    device: torch.device | str = "cpu",
    folder: Path | str | None = None,
    progress: Reporter | None = None,
) -> Certificate:
    """Certify a classifier by independent sub-sampling of every modality.

    The smoothed classifier answers with the label that most sub-samples get. For each sample, with probability
    1 - alpha over the draws, no attacker who edits at most r_i elements of every modality i, at once and knowing
    everything but the draws, changes that label, for all radii (r_1, ..., r_T) that are reported, together.

    Args:
        model: the base classifier; used as it is, in evaluation mode, moved to `device`.
        samples: what to certify; labels are not used until accuracy is asked for.
        keep: elements kept of each modality, by its name. Elements are the second axis of a modality, or the pixels of
            [samples, channels, height, width].
        draws: N, sub-samples per sample.
        alpha: probability of a wrong certificate, per sample.
        seed: of the masks; a sample's masks depend on it, the sample's position, the modality and the draw alone.
        kind: the attacker's kind of edit, one for all modalities or by name.
        bound: "majority" takes p_B <= 1 - p_A; "gap" bounds every label, and is better where votes spread.
        selection_draws: separate draws that choose the label; 0 chooses it by the votes and pays for that. Used with
            "majority" only.
        fill: what ablated elements become: a constant, or "mean" of those kept.
        batch_size: sub-samples per forward pass.
        device: where masks are drawn and the model runs.
        folder: where counts are kept; what is there is not drawn again, and more draws can be added later. A number of
            draws chosen after looking at the certificates does not keep alpha.
        progress: shows sub-samples counted and the time left.

    Raises:
        ValueError: `keep` or `kind` names other modalities than the model's, k > n, draws that can only abstain
            (the message names the N needed), or counts in `folder` that are not of this model and data.
    """
    started = time.perf_counter()
    values = {m: lookup(samples.modalities, m, what="modality") for m in model.modalities}
    if tuple(samples.classes) != tuple(model.classes):
        raise ValueError(f"Expected samples of the model's classes {model.classes}, but got {samples.classes}.")
    sizes = {m: element_count(array) for m, array in values.items()}
    kept = kept_counts(keep, sizes)
    kinds = kinds_of(kind, model.modalities)
    choice(bound, "bound", ("majority", "gap"))
    alpha, draws = probability(alpha), whole_number(draws, "draws", least=1)
    selecting = whole_number(selection_draws, "selection_draws")
    if selecting and bound == "gap":
        raise ValueError('Expected `selection_draws` = 0 with the "gap" bound, which needs none.')
    whole_number(batch_size, "batch_size", least=1)
    preflight(
        n=tuple(sizes.values()),
        k=tuple(kept.values()),
        draws=draws,
        alpha=alpha,
        kind=kinds,
        labels=len(model.classes),
        bound=bound,
        separate=selecting > 0,
    ).require()
    design = Design(kept, sizes, whole_number(seed, "seed"), fill, batch_size, device)
    place = None if folder is None else Path(folder)
    paths = [None if place is None else place / name for name in ("votes.npz", "selection.npz")]
    if isinstance(model, torch.nn.Module):
        model.to(device)
    empty = Counts(
        votes=np.zeros((len(samples), len(model.classes)), dtype=np.int64),
        spans=(),
        seed=design.seed,
        n=sizes,
        k=kept,
        source=fingerprint(model_fingerprint(model), values, fill=fill),
    )
    votes, chosen = resume(paths[0], empty, draws), resume(paths[1], empty, selecting)
    total, done = len(samples) * (draws + selecting), len(samples) * (votes.draws + chosen.draws)
    with evaluation_mode(model), (progress or Silent()).task("certify", total=total, done=done) as task:
        vote = partial(class_votes, model=model, values=values, ids=np.arange(len(samples)), design=design, task=task)
        chosen = add_draws(chosen, vote, (SELECTION_START, SELECTION_START + selecting), path=paths[1])
        votes = add_draws(votes, vote, (0, draws), path=paths[0])
    return Certificate(
        model=model.name,
        samples=samples,
        counts=votes,
        selection=chosen if selecting else None,
        alpha=alpha,
        kinds=dict(zip(model.modalities, kinds, strict=True)),
        bound=bound,
        seconds=time.perf_counter() - started,
    )


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
