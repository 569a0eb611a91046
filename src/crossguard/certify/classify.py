"""`certify`: certificates of a classifier, from drawing sub-samples to certified accuracy."""

import time
from functools import partial
from typing import Any, get_args

import numpy as np

from crossguard.certify.accumulate import add_draws, looked_at, resume
from crossguard.certify.arguments import whole_number
from crossguard.certify.bounds import Bound
from crossguard.certify.certificate import Certificate
from crossguard.certify.design import Design, design_for
from crossguard.certify.fingerprint import fingerprint, model_fingerprint
from crossguard.certify.issued import settings_of
from crossguard.certify.options import CertifyOptions
from crossguard.certify.rehearsal import show_preflight
from crossguard.certify.sampling import Asked, class_votes, evaluation_mode
from crossguard.checks import check_choice
from crossguard.data.samples import MultiModalSamples
from crossguard.models.base import MultiModalClassifier
from crossguard.models.inputs import input_arrays
from crossguard.models.plain_torch import plain_torch
from crossguard.progress import Silent

SELECTION_START = 2**40  # selection draws have indices of their own, out of the way of any number of voting draws


@plain_torch()
def certify(model: MultiModalClassifier, samples: MultiModalSamples, **options: Any) -> Certificate:
    """Certify a classifier by sub-sampling of every modality.

    The smoothed classifier answers with the label that most sub-samples get. For each sample, with probability
    1 - alpha over the draws, no attacker who edits at most r_i elements of every modality i, at once and knowing
    everything but the draws, changes that label, for all radii (r_1, ..., r_T) that are reported, together. Of a
    published design (`design`) this holds for certain, and for an attacker who knows the draws too.

    Args:
        model: the base classifier; used as it is, in evaluation mode, moved to `device`.
        samples: what to certify; labels are not used until accuracy is asked for.
        options: by the names of `CertifyOptions`: `keep`, `noise`, `draws`, `alpha`, `design`, `folder`, ...

    Raises:
        ValueError: an unknown option (the nearest is named), `keep`, `noise` or `kind` names other modalities than the
            model's, k > n, sigma <= 0, a modality both in `keep` and `noise`, "drop" with a model that takes nothing
            packed, a kind of edit that is not proven for the model or design, draws that can only abstain (the message
            names the N needed), counts in `folder` that are not of this model and data, a `folder` for a model that
            cannot be told from others, or one that processes see differently.
    """
    how, started = CertifyOptions.read(options, "certify"), time.perf_counter()
    values = input_arrays(model, samples)
    design = design_for(model, values, how, names=("votes", "selection"))
    bound, selecting = _bound(how, design), whole_number(how.selection_draws, "selection_draws")
    found = design.preflight(how, labels=len(model.classes), bound=bound)
    asked = Asked(model, values, design)
    source = fingerprint(model_fingerprint(asked, how), values, design)
    paths = [None if how.place is None else how.place / design.file(name) for name in ("votes", "selection")]
    empty = design.no_votes((len(samples), len(model.classes)), source)
    votes, chosen = resume(paths[0], empty, design.draws), resume(paths[1], empty, selecting)
    total, done = len(samples) * (design.draws + selecting), len(samples) * (votes.draws + chosen.draws)
    with evaluation_mode(model, design.device):
        show_preflight(found, asked, rows=total - done, progress=how.progress)
        with (how.progress or Silent()).task("certify", total=total, done=done) as task:
            vote = partial(class_votes, asked=asked, ids=np.arange(len(samples)), task=task)
            add = partial(add_draws, vote=vote, least=design.draws_per_batch(len(samples)))
            chosen = add(chosen, span=(SELECTION_START, SELECTION_START + selecting), path=paths[1])
            votes = add(votes, span=(0, design.draws), path=paths[0])
            votes = looked_at(votes, None if how.published else paths[0])
    return Certificate(
        counts=votes,
        selection=chosen if selecting else None,
        bound=bound,
        seconds=time.perf_counter() - started,
        **settings_of(how, samples, asked),
    )


def _bound(options: CertifyOptions, design: Design) -> Bound:
    """Return the bound; beside noise "both" is the one that is proven there."""
    check_choice(options.bound, get_args(Bound), "bound")
    if design.noise and options.bound == "gap":
        raise ValueError("Expected bound 'majority' beside `noise`, but got 'gap', which is not proven there.")
    bound: Bound = "majority" if design.noise else options.bound
    if options.selection_draws and (bound == "gap" or options.published):
        what = "a published design" if options.published else 'the "gap" bound'
        raise ValueError(f"Expected `selection_draws` = 0 with {what}, which needs none.")
    return bound
