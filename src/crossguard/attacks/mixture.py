"""Choosing, among candidates for every image and every text of a batch, a set under which retrieval fails most.

Retrieval couples samples: whether one is found depends on all others. So candidates are judged within the set as it
stands, one sample replaced at a time, and a change is kept only if the whole set gets worse for the victim.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from crossguard.attacks.ascent import Pixels
from crossguard.attacks.ranking import NEGATIVES, contested, cosines, image_states, ranking_scores, text_states
from crossguard.data import PairBatch
from crossguard.models import States, VisionLanguageModel

_SHARE_OF_MARGIN = 0.5
"""A sample that nearly fails counts by up to this much: other galleries than the batch may hold nearer strangers."""


@torch.no_grad()
def worst_mixture(
    model: VisionLanguageModel,
    batch: PairBatch,
    images: Sequence[Pixels],
    texts: Sequence[tuple[str, ...]],
    *,
    sweeps: int = 4,
) -> tuple[Pixels, tuple[str, ...]]:
    """Mix whole candidate sets, sample by sample, into one set under which retrieval at rank 1 fails most.

    No worse for the attacker than the first image set with the first text set. Counted are images whose best own text
    is not above all others, and texts alike, each as a share, plus a part for how near the others are to that.

    Args:
        model: the victim.
        batch: gives the links.
        images: candidate pixels of all images, at least one set.
        texts: candidates of all texts, at least one set.
        sweeps: how often images and texts are gone through.
    """
    image_sets, text_sets = (
        _stack([image_states(model, p) for p in images]),
        _stack([text_states(model, t) for t in texts]),
    )
    rows = torch.arange(len(batch.pixels), device=batch.pixels.device)
    columns = torch.arange(len(batch.texts), device=batch.pixels.device)
    positives = batch.positives
    picked_images, picked_texts = torch.zeros_like(rows), torch.zeros_like(columns)
    now_images = image_sets.select(picked_images * len(rows) + rows)
    now_texts = text_sets.select(picked_texts * len(columns) + columns)
    scored = contested(cosines(now_images, now_texts), positives, negatives=NEGATIVES)
    for _ in range(sweeps):
        options = ranking_scores(model, image_sets, now_texts, scored.repeat(len(images), 1))
        changed = _improve(options.unflatten(0, (len(images), -1)), picked_images, positives)
        moved = not torch.equal(changed, picked_images)
        picked_images = changed
        now_images = image_sets.select(picked_images * len(rows) + rows)
        options = ranking_scores(model, now_images, text_sets, scored.repeat(1, len(texts))).T
        changed = _improve(options.unflatten(0, (len(texts), -1)), picked_texts, positives.T)
        moved = moved or not torch.equal(changed, picked_texts)
        picked_texts = changed
        now_texts = text_sets.select(picked_texts * len(columns) + columns)
        if not moved:
            break
    pixels = torch.stack(list(images))[picked_images, rows]
    return pixels, tuple(texts[pick][j] for j, pick in enumerate(picked_texts.tolist()))


def _stack(sets: Sequence[States]) -> States:
    """Lay sets of states one after the other, padded to the longest."""
    longest = max(s.hidden.shape[1] for s in sets)

    def padded(values: Tensor) -> Tensor:
        shape = (len(values), longest - values.shape[1], *values.shape[2:])
        return torch.cat([values, values.new_zeros(shape)], dim=1)

    return States(
        torch.cat([padded(s.hidden) for s in sets]),
        torch.cat([padded(s.mask) for s in sets]),
        torch.cat([s.embedding for s in sets]),
    )


def _improve(
    options: Float[Tensor, "candidates rows columns"],
    picked: Int64[Tensor, " rows"],
    positives: Bool[Tensor, "rows columns"],
) -> Int64[Tensor, " rows"]:
    """Replace the candidates of rows where that makes the whole set worse for the victim.

    All rows whose own replacement helps are replaced together; if that does not help in sum (rows compete for the same
    columns), the better half of them, and so on.
    """
    rows = torch.arange(len(picked), device=picked.device)
    stands = options[picked, rows]
    gains = replaced_failure(options, stands, positives) - failure(stands, positives)
    gain, best = gains.max(dim=0)
    order = gain.argsort(descending=True)
    count = int((gain > 1e-6).sum())
    while count:
        chosen = order[:count]
        trial = picked.clone()
        trial[chosen] = best[chosen]
        if failure(options[trial, rows], positives) > failure(stands, positives) + 1e-6:
            return trial
        count //= 2
    return picked


def failure(scores: Float[Tensor, "rows columns"], positives: Bool[Tensor, "rows columns"]) -> Float[Tensor, ""]:
    """Return how badly retrieval fails at rank 1, in both directions: from 0 to 2 (1 + the share of margins)."""
    return _share(_margin(scores, positives), positives) + _share(_margin(scores.T, positives.T), positives.T)


def replaced_failure(
    options: Float[Tensor, "candidates rows columns"],
    stands: Float[Tensor, "rows columns"],
    positives: Bool[Tensor, "rows columns"],
) -> Float[Tensor, "candidates rows"]:
    """Return `failure` of the set as it stands with one row replaced by one candidate, for every row and candidate."""
    own, strangers = _best(options, positives), _best(options, ~positives)
    by_row = _worth(strangers - own)
    standing = _worth(_margin(stands, positives))
    counted = positives.any(dim=1)
    row_sum = (standing * counted).sum() + (by_row - standing) * counted
    # Per column, the best of all rows but one: the largest, or where that row is the largest, the second.
    own_rest, stranger_rest = _best_without(stands, positives), _best_without(stands, ~positives)
    own_now = torch.where(positives, torch.maximum(options, own_rest), own_rest)
    strangers_now = torch.where(positives, stranger_rest, torch.maximum(options, stranger_rest))
    asked = positives.any(dim=0)
    column_sum = (_worth(strangers_now - own_now) * asked).sum(dim=2)
    return row_sum / counted.sum() + column_sum / asked.sum()


def _best(
    scores: Float[Tensor, "*sets rows columns"], among: Bool[Tensor, "rows columns"]
) -> Float[Tensor, "*sets rows"]:
    return scores.masked_fill(~among, torch.finfo(scores.dtype).min).amax(dim=-1)


def _margin(scores: Float[Tensor, "rows columns"], positives: Bool[Tensor, "rows columns"]) -> Float[Tensor, " rows"]:
    return _best(scores, ~positives) - _best(scores, positives)


def _best_without(
    scores: Float[Tensor, "rows columns"], among: Bool[Tensor, "rows columns"]
) -> Float[Tensor, "rows columns"]:
    lowest = torch.finfo(scores.dtype).min
    masked = scores.masked_fill(~among, lowest)
    if len(scores) == 1:
        return torch.full_like(scores, lowest)
    top = masked.topk(2, dim=0)
    here = torch.arange(len(scores), device=scores.device)[:, None] == top.indices[0]
    return torch.where(here, top.values[1], top.values[0])


def _worth(margins: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """One for a failure (ties are misses), and a smooth part that grows through the border; margins in logits."""
    return (margins >= 0).float() + _SHARE_OF_MARGIN * margins.sigmoid()


def _share(margins: Float[Tensor, " rows"], positives: Bool[Tensor, "rows columns"]) -> Float[Tensor, ""]:
    counted = positives.any(dim=1)
    return (_worth(margins) * counted).sum() / counted.sum()
