"""`certify`: certificates of a classifier, from drawing sub-samples to certified accuracy."""

import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import get_args

import numpy as np
import torch

from crossguard.certify.accumulate import add_draws, looked_at, resume
from crossguard.certify.arguments import probability, whole_number
from crossguard.certify.bounds import Bound
from crossguard.certify.certificate import Certificate
from crossguard.certify.design import Ablation, Drawing, design_for, draws_of, is_rate, kinds_of, scheme_for
from crossguard.certify.fingerprint import fingerprint, model_fingerprint
from crossguard.certify.looks import FIRST, choose_seed
from crossguard.certify.noise import noise_levels
from crossguard.certify.preflight import preflight
from crossguard.certify.rehearsal import show_preflight
from crossguard.certify.sampling import class_votes, evaluation_mode
from crossguard.certify.thresholds import Scheme
from crossguard.checks import check_choice
from crossguard.data.samples import MultiModalSamples, element_count
from crossguard.models.base import MultiModalClassifier
from crossguard.models.inputs import input_arrays
from crossguard.models.plain_torch import plain_torch
from crossguard.progress import Reporter, Silent
from crossguard.threat import EditKind

SELECTION_START = 2**40  # selection draws have indices of their own, out of the way of any number of voting draws


@plain_torch()
def certify(
    model: MultiModalClassifier,
    samples: MultiModalSamples,
    *,
    keep: Mapping[str, int | float],
    noise: Mapping[str, float | int] | None = None,
    lengths: Mapping[str, int] | None = None,
    design: Drawing = "random",
    draws: int | None = None,
    alpha: float = 0.001,
    seed: int | None = None,
    kind: EditKind | Mapping[str, EditKind] = "substitution",
    bound: Bound = "both",
    selection_draws: int = 0,
    scheme: Scheme = "independent",
    fill: Ablation | None = None,
    batch_size: int | None = None,
    device: torch.device | str = "cpu",
    folder: Path | str | None = None,
    identity: str | None = None,
    progress: Reporter | None = None,
) -> Certificate:
    """Certify a classifier by sub-sampling of every modality.

    The smoothed classifier answers with the label that most sub-samples get. For each sample, with probability
    1 - alpha over the draws, no attacker who edits at most r_i elements of every modality i, at once and knowing
    everything but the draws, changes that label, for all radii (r_1, ..., r_T) that are reported, together. Of a
    published design (`design`) this holds for certain, and for an attacker who knows the draws too.

    Args:
        model: the base classifier; used as it is, in evaluation mode, moved to `device`.
        samples: what to certify; labels are not used until accuracy is asked for.
        keep: elements kept of each modality, by its name. Elements are the second axis of a modality, or the pixels of
            [samples, channels, height, width]. 0 leaves a modality out, and no edit of it matters. Rates in (0, 1)
            keep every element independently of the others (scheme "rate"): radii, of insertions and deletions too,
            then do not depend on how many elements there are.
        noise: sigma of each other modality, by its name, in the units of its values: it gets Gaussian noise N(0,
            sigma^2) instead of being sub-sampled, and its radius is the L2 distance that an attacker may move it.
            Alone it is randomized smoothing (Cohen et al., ICML 2019), beside `keep` both hold at once. Takes p_B <= 1
            - p_A.
        lengths: elements that all these samples have, by modality, where their arrays are padded; what lies behind is
            never kept. For samples of different lengths see `certify_lengths`.
        design: "random" draws sub-samples anew for every sample. "fixed" and "product" publish N of them once for all:
            a balanced design, or all tuples of disjoint blocks; what answers then is exactly what is certified, and
            neither alpha nor a secret is needed. Substitutions only.
        draws: N, sub-samples per sample. None takes 1,000 at random; of a "fixed" design the number up to 1,000 that
            wastes least; a "product" has as many as there are tuples.
        alpha: probability of a wrong certificate, per sample; not used by a published design.
        seed: of the masks. None draws a secret one and keeps it with the counts: whoever knows the seed could make an
            input whose sub-samples show what he likes. A number is for experiments, and the result says so. A sample's
            masks depend on the seed, its own values, the modality and the draw alone. Of a published design the seed
            is public, and None is 0.
        kind: the attacker's kind of edit, one for all modalities or by name; others than "substitution" only for
            modalities of which the model is not told where elements stand, see `PackingClassifier.position_free`.
        bound: "majority" takes p_B <= 1 - p_A; "gap" bounds every label, and is better where votes spread; "both" takes
            the better one, each at half of alpha.
        selection_draws: separate draws that choose the label; 0 chooses it by the votes and pays for that. Used with
            "majority" only.
        scheme: "independent" keeps exactly k_i elements of every modality i. "joint" keeps the sum of all k_i of all
            elements together, the baseline that this certificate is compared with: randomized ablation extended to
            several modalities. The sum makes the comparison fair: the model sees as many elements, at the same cost.
            Draws, counts and files of the two are kept apart, so both can run in one folder.
        fill: what ablated elements become: a constant, "mean" of those kept, or "drop", with which modalities that the
            model takes packed (`PackingClassifier`) hold the kept elements alone, and others are filled with 0. None
            drops where the model can.
        batch_size: sub-samples per forward pass; None chooses by their size, 4,096 at most.
        device: where masks are drawn and the model runs.
        folder: where counts are kept; what is there is not drawn again, and more draws can be added later. Since that
            is a second look, the first has nine tenths of alpha and the others share the rest; without a folder there
            is one look. The counts are those of the model as it is, by all
            state that can be reached and its answers to a few probes (`models.identity`). Under torch.distributed, on
            a disk that all processes share.
        identity: the caller's word for which model this is, where its own state cannot be read; used with `folder`.
        progress: shows sub-samples counted and the time left.

    Raises:
        ValueError: `keep`, `noise` or `kind` names other modalities than the model's, k > n, sigma <= 0, a modality
            both in `keep` and `noise`, "drop" with a model that takes
            nothing packed, a kind of edit that is not proven for the model or design, draws that can only abstain (the
            message names the N needed), counts in `folder` that are not of this model and data, a `folder` for a model
            that cannot be told from others, or one that processes see differently.
    """
    folder = None if folder is None else Path(folder).expanduser()
    started = time.perf_counter()
    values = input_arrays(model, samples)
    scheme, levels = scheme_for(design, scheme, noise, rates=is_rate(keep)), noise_levels(noise, keep, model.modalities)
    counted = tuple(m for m in model.modalities if m not in levels)
    kinds = kinds_of(kind, counted)
    check_choice(bound, get_args(Bound), "bound")
    if levels and bound == "gap":
        raise ValueError("Expected bound 'majority' beside `noise`, but got 'gap', which is not proven there.")
    bound = "majority" if levels else bound
    published, stem = design != "random", "" if scheme == "independent" else f"-{scheme}"
    paths = [None if folder is None else Path(folder) / f"{name}{stem}.npz" for name in ("votes", "selection")]
    sizes = {m: (lengths or {}).get(m, element_count(values[m])) for m in counted}
    draws = draws_of(design, draws, keep, sizes)
    if published:
        seed = seed or 0
    chosen_seed, secret = choose_seed(seed, [path for path in paths if path])
    drawn = design_for(
        model,
        values,
        keep=keep,
        scheme=scheme,
        seed=chosen_seed,
        secret=secret,
        fill=fill,
        batch_size=batch_size,
        device=device,
        kinds=kinds,
        published=draws if published else 0,
        noise=noise,
        lengths=sizes,
    )
    alpha, selecting = probability(alpha), whole_number(selection_draws, "selection_draws")
    if selecting and (bound == "gap" or published):
        what = "a published design" if published else 'the "gap" bound'
        raise ValueError(f"Expected `selection_draws` = 0 with {what}, which needs none.")
    found = preflight(
        n=tuple(drawn.sizes.values()),
        k=tuple(drawn.keep.values()),
        draws=draws,
        alpha=alpha if folder is None or published else FIRST * alpha,
        kind=kinds,
        scheme=scheme,
        labels=len(model.classes),
        bound=bound,
        separate=selecting > 0,
        noise=tuple(levels.values()),
    ).require()
    source = fingerprint(
        model_fingerprint(model, values, drawn, kept=folder is not None, identity=identity), values, drawn
    )
    empty = drawn.no_votes((len(samples), len(model.classes)), source)
    votes, chosen = resume(paths[0], empty, draws), resume(paths[1], empty, selecting)
    total, done = len(samples) * (draws + selecting), len(samples) * (votes.draws + chosen.draws)
    names = drawn.names(values)
    with evaluation_mode(model, device):
        show_preflight(found, model, values, drawn, rows=total - done, progress=progress)
        with (progress or Silent()).task("certify", total=total, done=done) as task:
            vote = partial(
                class_votes,
                model=model,
                values=values,
                names=names,
                ids=np.arange(len(samples)),
                design=drawn,
                task=task,
            )
            add = partial(add_draws, vote=vote, least=drawn.draws_per_batch(len(samples)))
            chosen = add(chosen, span=(SELECTION_START, SELECTION_START + selecting), path=paths[1])
            votes = looked_at(add(votes, span=(0, draws), path=paths[0]), None if published else paths[0])
    return Certificate(
        model=model.name,
        samples=samples,
        counts=votes,
        selection=chosen if selecting else None,
        alpha=0.0 if published else alpha,
        kinds=dict(zip(counted, kinds, strict=True)) | dict.fromkeys(levels, "l2"),
        bound=bound,
        seconds=time.perf_counter() - started,
        ablation=drawn.ablation,
        fill=fill,
    )
