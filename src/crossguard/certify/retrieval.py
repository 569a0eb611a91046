"""`certify_retrieval`: which items of a fixed gallery stay among the K likeliest, whatever an attacker does.

One binary vote per item: is it among the K likeliest of a sub-sample? The smoothed retrieval answers with all items
that more than half of the sub-samples have there, fewer than 2 K. An item with p > 1/2 + (1 - a) stays (the margin of
`certify`, with p_B = 1 - p: the item is not there).

How many items the gallery has costs nothing. With N draws, let c(tau) be the fewest votes whose tail
f(tau) = P(Bin(N, tau) >= c(tau)) is at most alpha tau / K, for thresholds tau >= 1/2. An item of probability p is
wrongly certified only with at least c(max(p, 1/2)) votes. For p >= 1/2 the chance of that is at most alpha p / K. For
p < 1/2 the tail of c(1/2) > N / 2 votes is convex in p and 0 at p = 0, so that it is at most 2 p f(1/2), no more than
alpha p / K either. The probabilities of all items add up to K, so the chance that any item is wrongly certified, at any
radius, is at most alpha. Bounds here take alpha / (2 K) for every tau.
"""

import time
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from crossguard.certify.accumulate import add_draws, looked_at, resume
from crossguard.certify.arguments import whole_number
from crossguard.certify.bounds import clopper_pearson
from crossguard.certify.certificate import SampleCertificate
from crossguard.certify.counts import Counts
from crossguard.certify.design import design_for
from crossguard.certify.elements import Radii
from crossguard.certify.fingerprint import fingerprint, model_fingerprint
from crossguard.certify.issued import settings_of
from crossguard.certify.looks import level_of
from crossguard.certify.options import CertifyOptions
from crossguard.certify.rehearsal import show_preflight
from crossguard.certify.sampling import Asked, evaluation_mode, top_votes
from crossguard.data.samples import MultiModalSamples
from crossguard.models.base import MultiModalClassifier
from crossguard.models.inputs import input_arrays
from crossguard.models.plain_torch import plain_torch
from crossguard.progress import Silent


@dataclass(frozen=True, kw_only=True, repr=False)
class RetrievalCertificate(SampleCertificate):
    """Votes of every item for every query; certificates are computed when asked for.

    All that is said about a query's items holds together, for all radii at once, with probability 1 - alpha over the
    draws. A query is certified where a right item is; which items are right plays no part in `items`.

    Args:
        counts: int64 votes [queries, items, 2]: not among the `most` likeliest, and among them.
        most: K.
        truth: bool [queries, items], which items are right.
    """

    counts: Counts
    most: int
    truth: Bool[np.ndarray, "queries items"]

    @property
    def first(self) -> Counts:
        """The votes."""
        return self.counts

    @property
    def metric(self) -> str:
        """What the share of queries with a certified right item is called: R@K."""
        return f"recall@{self.most}"

    @cached_property
    def judged(self) -> Bool[np.ndarray, " queries"]:
        """All queries."""
        return np.ones(len(self.truth), dtype=bool)

    @property
    def found(self) -> Bool[np.ndarray, "queries items"]:
        """Items that the smoothed retrieval answers with: more than half of the votes have them among the K."""
        return np.asarray(self.counts.votes[..., 1] > self.counts.votes[..., 0])

    @cached_property
    def right(self) -> Bool[np.ndarray, " queries"]:
        """Queries whose answer has a right item, certified or not."""
        return np.asarray((self.found & self.truth).any(axis=1))

    @cached_property
    def leads(self) -> Float[np.ndarray, "queries items"]:
        """Lower bounds on the lead of "among the K likeliest"; below 0 where an item is not certified to be there."""
        votes, draws = self.counts.votes[..., 1], self.counts.draws
        if self.deterministic:
            lead = 2 * votes - draws - 1  # a tie is no majority
            return np.where(lead >= 0, lead / draws, -1.0)
        level = level_of(self.counts, self.alpha) / (2 * self.most)
        table = 2 * clopper_pearson(np.arange(draws + 1), draws, level, side="lower") - 1
        return np.where(table[votes] >= 0, table[votes], -1.0)

    @cached_property
    def gaps(self) -> Float[np.ndarray, " queries"]:
        """The largest of the `leads` of a query's right items."""
        return np.where(self.truth, self.leads, -1.0).max(axis=1)

    def items(self, radii: Radii) -> Bool[np.ndarray, "queries items"]:
        """Return which items no attacker within `radii` can take out of the answer.

        Raises:
            ValueError: an unknown modality, or a radius that is not whole, negative or > n.
        """
        return np.asarray(self.leads >= self.margins.at([self._vector(radii)])[0])

    @property
    def answers(self) -> float:
        """The mean number of items in an answer; always fewer than 2 K."""
        return float(self.found.sum(axis=1).mean())

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per query, of plain JSON values."""
        sizes = self.found.sum(axis=1)
        return [
            {
                **self.settings,
                "most": self.most,
                "sample": i,
                "group": int(self.samples.groups[i]),
                "right": bool(self.right[i]),
                "answers": int(sizes[i]),
                "frontier": self.frontier(i).tolist(),
            }
            for i in range(len(self.truth))
        ]

    def summary(self) -> dict[str, Any]:
        """Return the settings and the main figures, as plain JSON values."""
        return {
            **self.settings,
            "most": self.most,
            "samples": len(self.truth),
            "items": self.truth.shape[1],
            "scope": self.scope,
            "ablation": self.ablation,
            "looks": list(self.counts.looks),
            "clean_accuracy": self.clean_accuracy,
            "certified_accuracy_unattacked": self.accuracy(),
            "abstention": self.abstention,
            "answers": self.answers,
            "average_radius": self.radii(),
            "seconds": self.seconds,
        }


@plain_torch()
def certify_retrieval(
    model: MultiModalClassifier,
    samples: MultiModalSamples,
    *,
    most: int = 1,
    truth: Bool[np.ndarray, "queries items"] | None = None,
    **options: Any,
) -> RetrievalCertificate:
    """Certify which items of the model's gallery stay among the `most` likeliest, by sub-sampling of every modality.

    For each query, with probability 1 - alpha over the draws, no attacker within the radii takes any certified item out
    of the smoothed retrieval's answer: the items that more than half of the sub-samples have among the K likeliest. The
    gallery is not attacked, and its size costs nothing.

    Args:
        model: gives logits of the items of a gallery (its `classes`), such as `GalleryChoice`.
        samples: the queries.
        most: K.
        truth: which items are right; None: the one that is a query's label.
        options: by the names of `CertifyOptions`, but `bound` and `selection_draws`.

    Raises:
        ValueError: an unknown option (the nearest is named), K that is not in 1..items, truth of another shape, a query
            without a right item, or as `certify`.
    """
    how = CertifyOptions.read(options, "certify_retrieval", without=("bound", "selection_draws"))
    started, values, items = time.perf_counter(), input_arrays(model, samples), len(model.classes)
    if not 1 <= whole_number(most, "most", least=1) < items:
        raise ValueError(f"Expected `most` in 1..{items - 1}, fewer than the gallery has, but got {most}.")
    right = samples.labels[:, None] == np.arange(items) if truth is None else np.asarray(truth)
    if right.shape != (len(samples), items) or not right.any(axis=1).all():
        raise ValueError(
            f"Expected a right item for each of {len(samples)} queries among {items}, but got truth of shape "
            f"{list(right.shape)}{'' if right.any(axis=-1).all() else ', and queries without one'}."
        )
    design = design_for(model, values, how, names=("retrieval",))
    found = design.preflight(how, labels=2, elements=2 * most, separate=True)
    asked, name = Asked(model, values, design), f"retrieval-{most:d}"
    source = fingerprint(model_fingerprint(asked, how), values, design, most)
    path = None if how.place is None else how.place / design.file(name)
    votes = resume(path, design.no_votes((len(samples), items, 2), source), design.draws)
    total, done = len(samples) * design.draws, len(samples) * votes.draws
    with evaluation_mode(model, design.device):
        show_preflight(found, asked, rows=total - done, progress=how.progress)
        with (how.progress or Silent()).task("certify", total=total, done=done) as task:
            vote = partial(top_votes, asked=asked, ids=np.arange(len(samples)), most=most, task=task)
            least = design.draws_per_batch(len(samples))
            votes = add_draws(votes, vote, (0, design.draws), path=path, least=least)
            votes = looked_at(votes, None if how.published else path)
    return RetrievalCertificate(
        counts=votes,
        most=most,
        truth=right,
        seconds=time.perf_counter() - started,
        **settings_of(how, samples, asked),
    )
