"""The first stage of retrieval with a fusion model: per query, the best of the gallery by cosine."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

from crossguard.evaluate.cosines import GalleryCosines
from crossguard.evaluate.retrieval import check_links, links_within

_CHUNK = 1 << 22  # scores held at once: 16 MiB of float32


@dataclass(frozen=True)
class Candidates:
    """Per query, the gallery items that its second stage scores.

    Args:
        items: int64 [queries, candidates], indices in the gallery, in no particular order.
        cosines: float32 [queries, candidates].
        gallery: how many items there are to choose from.
    """

    items: Int64[np.ndarray, "queries candidates"]
    cosines: Float32[np.ndarray, "queries candidates"]
    gallery: int


def nearest_items(
    queries: Float[Tensor, "queries dim"],
    gallery: Float[Tensor, "gallery dim"],
    links: Int64[Tensor, "links 2"],
    *,
    count: int,
) -> Candidates:
    """Return the `count` gallery items with the highest cosine to each query, without holding all cosines.

    A tie is a miss here too: where items tie for the last places, the query's own partners come last, and the others
    by their index.

    Args:
        queries: embeddings.
        gallery: embeddings.
        links: (query, gallery item) of every true pair.
        count: candidates per query, at least 1; no more than the gallery has are taken.

    Raises:
        ValueError: `count` below 1, an embedding that is not finite, or links as `partner_ranks` refuses them.
    """
    if count < 1:
        raise ValueError(f"Expected at least 1 candidate per query, but got {count}.")
    links = links.to(queries.device)
    check_links(links, len(queries), len(gallery))
    count = min(count, len(gallery))
    cosines_of = GalleryCosines(gallery.float())
    step = max(1, _CHUNK // len(gallery))
    items, cosines = [], []
    for start in range(0, len(queries), step):
        scores = cosines_of(queries[start : start + step].float())
        if not bool(scores.isfinite().all()):
            raise ValueError(f"Expected finite embeddings, but {int((~scores.isfinite()).sum())} cosines are not.")
        chosen = _choose(scores, links_within(links, start, step), count)
        items.append(chosen.cpu())
        cosines.append(scores.gather(1, chosen).cpu())
    return Candidates(torch.cat(items).numpy(), torch.cat(cosines).numpy(), len(gallery))


def _choose(
    scores: Float[Tensor, "queries gallery"], links: Int64[Tensor, "links 2"], count: int
) -> Int64[Tensor, "queries count"]:
    values, chosen = scores.topk(count, dim=1, sorted=True)
    # Only where more items reach the last value than there is room for does the choice among equals matter.
    tied = torch.nonzero((scores >= values[:, -1:]).sum(dim=1) > count).flatten()
    if len(tied):
        partner = torch.zeros_like(scores, dtype=torch.bool)
        partner[links[:, 0], links[:, 1]] = True
        others_first = partner[tied].long().argsort(dim=1, stable=True)
        order = scores[tied].gather(1, others_first).argsort(dim=1, descending=True, stable=True)
        chosen[tied] = others_first.gather(1, order[:, :count])
    return chosen


def candidate_ranks(
    candidates: Candidates, scores: Float32[np.ndarray, "queries candidates"], links: Int64[np.ndarray, "links 2"]
) -> Int64[np.ndarray, " queries"]:
    """Rank every query's best partner by the second stage's scores, as `partner_ranks` does.

    What is no candidate has the score minus infinity. So a query without a partner among its candidates is a miss for
    every K: its rank counts all items that are not its partners.

    Args:
        candidates: of the first stage.
        scores: of the second stage, for each candidate.
        links: (query, gallery item) of every true pair.

    Raises:
        ValueError: NaN among the scores.
    """
    if np.isnan(scores).any():
        raise ValueError(f"Expected scores to compare, but {int(np.isnan(scores).sum())} are NaN.")
    own = _partners(candidates, links)
    best = np.where(own, scores, -np.inf).max(axis=1, keepdims=True)
    reached = ((scores >= best) & ~own).sum(axis=1)
    partners = np.bincount(links[:, 0], minlength=len(scores))
    ranks: Int64[np.ndarray, " queries"] = 1 + np.where(own.any(axis=1), reached, candidates.gallery - partners)
    return ranks


def _partners(candidates: Candidates, links: Int64[np.ndarray, "links 2"]) -> Bool[np.ndarray, "queries candidates"]:
    keys = np.sort(links[:, 0] * candidates.gallery + links[:, 1])
    asked = np.arange(len(candidates.items))[:, None] * candidates.gallery + candidates.items
    found: Bool[np.ndarray, "queries candidates"] = keys[np.searchsorted(keys, asked).clip(max=len(keys) - 1)] == asked
    return found
