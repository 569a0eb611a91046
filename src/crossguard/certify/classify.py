"""`certify`: certificates of a classifier, from drawing sub-samples to certified accuracy."""

import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch

from crossguard.certify.accumulate import add_draws, resume
from crossguard.certify.arguments import probability, whole_number
from crossguard.certify.bounds import Bound
from crossguard.certify.certificate import Certificate
from crossguard.certify.design import Ablation, design_for, kinds_of
from crossguard.certify.fingerprint import fingerprint, model_fingerprint
from crossguard.certify.preflight import preflight
from crossguard.certify.rehearsal import show_preflight
from crossguard.certify.sampling import class_votes, evaluation_mode
from crossguard.certify.thresholds import Scheme
from crossguard.checks import check_choice
from crossguard.data.samples import MultiModalSamples
from crossguard.models.base import MultiModalClassifier
from crossguard.models.inputs import input_arrays
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
    scheme: Scheme = "independent",
    fill: Ablation | None = None,
    batch_size: int = 4096,
    device: torch.device | str = "cpu",
    folder: Path | str | None = None,
    progress: Reporter | None = None,
) -> Certificate:
    """Certify a classifier by sub-sampling of every modality.

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
        scheme: "independent" keeps exactly k_i elements of every modality i. "joint" keeps the sum of all k_i of all
            elements together, the baseline that this certificate is compared with: randomized ablation extended to
            several modalities. The sum makes the comparison fair: the model sees as many elements, at the same cost.
            Draws, counts and files of the two are kept apart, so both can run in one folder.
        fill: what ablated elements become: a constant, "mean" of those kept, or "drop", with which modalities that the
            model takes packed (`PackingClassifier`) hold the kept elements alone, and others are filled with 0. None
            drops where the model can.
        batch_size: sub-samples per forward pass.
        device: where masks are drawn and the model runs.
        folder: where counts are kept; what is there is not drawn again, and more draws can be added later. A number of
            draws chosen after looking at the certificates does not keep alpha. The counts are those of the model as it
            is: weights, buffers and attributes without a leading underscore; a model that is no `torch.nn.Module` is
            told by all that pickling it would write. Under torch.distributed, on a disk that all processes share.
        progress: shows sub-samples counted and the time left.

    Raises:
        ValueError: `keep` or `kind` names other modalities than the model's, k > n, "drop" with a model that takes
            nothing packed, draws that can only abstain (the message names the N needed), counts in `folder` that are
            not of this model and data, a `folder` for a model that cannot be told from others, or one that
            processes see differently.
    """
    started = time.perf_counter()
    values = input_arrays(model, samples)
    kinds = kinds_of(kind, model.modalities)
    design = design_for(
        model, values, keep=keep, scheme=scheme, seed=seed, fill=fill, batch_size=batch_size, device=device
    )
    check_choice(bound, ("majority", "gap"), "bound")
    alpha, draws = probability(alpha), whole_number(draws, "draws", least=1)
    selecting = whole_number(selection_draws, "selection_draws")
    if selecting and bound == "gap":
        raise ValueError('Expected `selection_draws` = 0 with the "gap" bound, which needs none.')
    found = preflight(
        n=tuple(design.sizes.values()),
        k=tuple(design.keep.values()),
        draws=draws,
        alpha=alpha,
        kind=kinds,
        scheme=scheme,
        labels=len(model.classes),
        bound=bound,
        separate=selecting > 0,
    ).require()
    source = fingerprint(model_fingerprint(model, kept=folder is not None), values, design)
    empty = design.no_votes((len(samples), len(model.classes)), source)
    paths = [None if folder is None else Path(folder) / design.file(name) for name in ("votes", "selection")]
    votes, chosen = resume(paths[0], empty, draws), resume(paths[1], empty, selecting)
    total, done = len(samples) * (draws + selecting), len(samples) * (votes.draws + chosen.draws)
    with evaluation_mode(model, device):
        show_preflight(found, model, values, design, rows=total - done, progress=progress)
        with (progress or Silent()).task("certify", total=total, done=done) as task:
            vote = partial(
                class_votes, model=model, values=values, ids=np.arange(len(samples)), design=design, task=task
            )
            add = partial(add_draws, vote=vote, least=design.draws_per_batch(len(samples)))
            chosen = add(chosen, span=(SELECTION_START, SELECTION_START + selecting), path=paths[1])
            votes = add(votes, span=(0, draws), path=paths[0])
    return Certificate(
        model=model.name,
        samples=samples,
        counts=votes,
        selection=chosen if selecting else None,
        alpha=alpha,
        kinds=dict(zip(model.modalities, kinds, strict=True)),
        bound=bound,
        seconds=time.perf_counter() - started,
        ablation=design.ablation,
    )
