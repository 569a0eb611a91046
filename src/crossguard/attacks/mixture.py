"""Choosing, among candidates for every image and every text of a gallery, the set under which retrieval fails most.

Retrieval couples samples: whether one is found depends on all others. So candidates are judged within the set as it
stands, one sample replaced at a time, and a set is given up only for one that leaves no more of the gallery right.
Scores are computed in slices, so that the matrix of a large gallery is never held.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

CHUNK = 1 << 22  # scores held at once: 16 MiB of float32
_TIE = 3e-5
"""Margins in logits that float32 does not tell from a tie, which is a miss."""
SOFT, _HARD = 0.5, 1e-6
"""How much nearly failing counts, beside one for a failure: first to find a way, then only to break ties."""

Indices = Int64[Tensor, " _"]


@runtime_checkable
class Scores(Protocol):
    """What retrieval ranks by, in logits."""

    def __call__(
        self, images: Int64[Tensor, " images"], texts: Int64[Tensor, " texts"], /
    ) -> Float[Tensor, "images texts"]:
        """Return the scores of candidates of images with candidates of texts, given by their indices."""
        ...


class Links:
    """The true pairs of a gallery, by image and by text.

    Args:
        pairs: int64 [links, 2] of (image, text).
        images: how many images.
        texts: how many texts.
    """

    def __init__(self, pairs: Int64[Tensor, "links 2"], *, images: int, texts: int) -> None:
        self.pairs, self.images, self.texts = pairs, images, texts
        order = (pairs[:, 0] * max(1, texts) + pairs[:, 1]).argsort()
        ordered = pairs[order]
        self._ends = ordered[:, 1]
        self._bounds = torch.searchsorted(ordered[:, 0].contiguous(), torch.arange(images + 1, device=pairs.device))

    @cached_property
    def flipped(self) -> "Links":
        """The same with images and texts exchanged."""
        turned = Links(self.pairs.flip(1), images=self.texts, texts=self.images)
        turned.__dict__["flipped"] = self
        return turned

    def among(self, images: Int64[Tensor, " some"]) -> Bool[Tensor, "some texts"]:
        """Return which texts belong to some images; an image may come again."""
        mask = torch.zeros(len(images), self.texts, dtype=torch.bool, device=self._ends.device)
        first, count = self._bounds[images], self._bounds[images + 1] - self._bounds[images]
        rows = torch.arange(len(images), device=mask.device).repeat_interleave(count)
        within = torch.arange(len(rows), device=mask.device) - (count.cumsum(0) - count)[rows]
        mask[rows, self._ends[first[rows] + within]] = True
        return mask

    @cached_property
    def linked(self) -> Bool[Tensor, " images"]:
        """Which images have a text."""
        return self._bounds[1:] > self._bounds[:-1]


@dataclass(frozen=True)
class Tops:
    """For every column of a score matrix the two highest rows among some: what stays when one row is replaced.

    Args:
        first: the highest score; `LOWEST` where there is none.
        second: the second one.
        row: whose the highest is.
    """

    first: Float[Tensor, " columns"]
    second: Float[Tensor, " columns"]
    row: Int64[Tensor, " columns"]

    def without(self, rows: Int64[Tensor, " some"]) -> Float[Tensor, "some columns"]:
        """Return the highest score of the others than a row, for each of some rows."""
        return torch.where(rows[:, None] == self.row, self.second, self.first)


LOWEST = torch.finfo(torch.float32).min


@dataclass(frozen=True)
class Standing:
    """How a set fares in one direction: per query its best partner's score and the best other one's.

    Args:
        own: over the queries' partners.
        others: over all else.
    """

    own: Tops
    others: Tops

    @property
    def margins(self) -> Float[Tensor, " queries"]:
        """By how much the best other item leads, in logits; without any other, minus the best partner's score."""
        return lead(self.own.first, self.others.first)


def lead(own: Float[Tensor, "..."], others: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Return by how much others lead over partners; where there are none, a score of 0 stands for them."""
    return torch.where(others > LOWEST, others, torch.zeros_like(others)) - own


def _tops(scores: Float[Tensor, "rows columns"], rows: Int64[Tensor, " rows"], before: Tops | None) -> Tops:
    """Take more rows into account."""
    if len(scores) < 2:
        scores = torch.cat([scores, torch.full_like(scores, LOWEST)])
        rows = torch.cat([rows, rows])
    values, places = scores.topk(2, dim=0)
    found = Tops(values[0], values[1], rows[places[0]])
    if before is None:
        return found
    ahead = found.first > before.first
    second = torch.where(ahead, torch.maximum(before.first, found.second), torch.maximum(found.first, before.second))
    return Tops(torch.where(ahead, found.first, before.first), second, torch.where(ahead, found.row, before.row))


@torch.no_grad()
def standing(scores: Scores, images: Indices, texts: Indices, links: Links) -> tuple[Standing, Standing]:
    """Return how a set fares in both directions: images asking for texts, and texts asking for images.

    Args:
        scores: what is ranked by.
        images: per image the index of its candidate.
        texts: per text the index of its candidate.
        links: the true pairs.
    """
    columns = torch.arange(links.texts, device=images.device)
    by_image: list[tuple[Tops, Tops]] = []
    own = others = None
    for rows in torch.arange(links.images, device=images.device).split(max(1, CHUNK // max(1, links.texts))):
        found, mask = scores(images[rows], texts), links.among(rows)
        mine, rest = found.masked_fill(~mask, LOWEST), found.masked_fill(mask, LOWEST)
        by_image.append((_tops(mine.T, columns, None), _tops(rest.T, columns, None)))
        own, others = _tops(mine, rows, own), _tops(rest, rows, others)
    assert own is not None and others is not None  # noqa: PT018
    asking = Standing(*(_joined(parts) for parts in zip(*by_image, strict=True)))
    return asking, Standing(own, others)


def _joined(parts: Sequence[Tops]) -> Tops:
    return Tops(*(torch.cat([getattr(part, name) for part in parts]) for name in ("first", "second", "row")))


@dataclass(frozen=True)
class Chosen:
    """One candidate for every image and every text, as indices."""

    images: Indices
    texts: Indices


@dataclass(frozen=True)
class Worth:
    """What a set is worth to the attacker: the weighted share of failed queries, then how near the others are."""

    failed: float
    near: float

    def beats(self, other: "Worth") -> bool:
        """Return whether more fails, or as much and the rest is nearer to failing."""
        if abs(self.failed - other.failed) > 1e-9:
            return self.failed > other.failed
        return self.near > other.near + 1e-12


@dataclass(frozen=True)
class Goal:
    """Which directions count, and what may be replaced.

    Args:
        tr: weight of images asking for texts.
        ir: weight of texts asking for images.
        images: whether images may be replaced.
        texts: whether texts may be.
    """

    tr: float
    ir: float
    images: bool = True
    texts: bool = True


class Mixture:
    """All candidates of a gallery, and the search for the worst set of them.

    Args:
        scores: what is ranked by.
        links: the true pairs.
        image_owners: per candidate of an image, whose it is; the first ones are the clean images, in order.
        text_owners: the same for texts.
    """

    def __init__(
        self,
        scores: Scores,
        links: Links,
        image_owners: Int64[Tensor, " image_candidates"],
        text_owners: Int64[Tensor, " text_candidates"],
    ) -> None:
        self.scores, self.links = scores, links
        self.image_owners, self.text_owners = image_owners, text_owners

    @property
    def clean(self) -> Chosen:
        """The set in which nothing is replaced."""
        device = self.image_owners.device
        return Chosen(torch.arange(self.links.images, device=device), torch.arange(self.links.texts, device=device))

    def standing(self, chosen: Chosen) -> tuple[Standing, Standing]:
        """Return how a set fares, see `standing`."""
        return standing(self.scores, chosen.images, chosen.texts, self.links)

    def worth(self, chosen: Chosen, goal: Goal) -> Worth:
        """Return what a set is worth to the attacker."""
        return self._worth(self.standing(chosen), goal)

    def _worth(self, stands: tuple[Standing, Standing], goal: Goal) -> Worth:
        failed = near = 0.0
        asked = (self.links.linked, self.links.flipped.linked)
        for weight, direction, counted in zip((goal.tr, goal.ir), stands, asked, strict=True):
            if weight and bool(counted.any()):
                margins = direction.margins[counted].double()
                failed += weight * float((margins >= -_TIE).double().mean())
                near += weight * float(nearness(margins).mean())
        return Worth(failed, near)

    def best(self, sets: Sequence[Chosen], goal: Goal, *, first: Chosen | None = None) -> Chosen:
        """Return the set that is worth most; `first` (default: the first one) where none is worth more."""
        best = sets[0] if first is None else first
        worth = self.worth(best, goal)
        for other in sets:
            if other is not best and (found := self.worth(other, goal)).beats(worth):
                best, worth = other, found
        return best

    @torch.no_grad()
    def worst(
        self,
        starts: Sequence[Chosen],
        goal: Goal,
        *,
        images: Indices,
        texts: Indices,
        sweeps: int = 4,
    ) -> Chosen:
        """Return a set that is worth no less than any of the starts.

        Args:
            starts: sets of candidates, at least one.
            goal: what counts, and what may be replaced.
            images: the candidates of images to choose among.
            texts: the candidates of texts.
            sweeps: how often images and texts are gone through at most, for each of two ways to count.
        """
        best = self.best(starts, goal)
        best_worth = self.worth(best, goal)
        now = best
        for softness in (SOFT, _HARD):
            for _ in range(sweeps):
                before = now
                if goal.images:
                    now = self._improve_images(now, goal, images, softness)
                if goal.texts:
                    now = self._improve_texts(now, goal, texts, softness)
                if now is before:
                    break
            worth = self.worth(now, goal)
            if worth.beats(best_worth):
                best, best_worth = now, worth
            else:
                now = best
        return best

    def _improve_images(self, now: Chosen, goal: Goal, pool: Int64[Tensor, " some"], softness: float) -> Chosen:
        picked = self._improve(
            self.scores, self.links, now.images, now.texts, (goal.tr, goal.ir), pool, self.image_owners[pool], softness
        )
        return now if picked is None else Chosen(picked, now.texts)

    def _improve_texts(self, now: Chosen, goal: Goal, pool: Int64[Tensor, " some"], softness: float) -> Chosen:
        def turned(texts: Indices, images: Indices) -> Float[Tensor, "texts images"]:
            return self.scores(images, texts).T

        picked = self._improve(
            turned,
            self.links.flipped,
            now.texts,
            now.images,
            (goal.ir, goal.tr),
            pool,
            self.text_owners[pool],
            softness,
        )
        return now if picked is None else Chosen(now.images, picked)

    def _improve(
        self,
        scores: Scores,
        links: Links,
        rows: Indices,
        columns: Indices,
        weights: tuple[float, float],
        pool: Int64[Tensor, " some"],
        owners: Int64[Tensor, " some"],
        softness: float,
    ) -> Indices | None:
        """Replace the candidates of rows where that makes the whole set worse for the victim; None: nowhere.

        All rows whose own replacement helps are replaced together; if that does not help in sum (rows compete for the
        same columns), the better half of them, and so on.
        """
        if not len(pool):
            return None
        stands = standing(scores, rows, columns, links)
        goal = Goal(*weights)
        value = _value(stands, links, goal, softness)
        gains = replacement_gains(scores, links, stands, columns, weights, pool, owners, softness)
        best = torch.full((len(rows),), -torch.inf, dtype=gains.dtype, device=gains.device)
        best = best.scatter_reduce(0, owners, gains, reduce="amax")
        which = torch.zeros_like(rows).scatter_reduce(
            0,
            owners[gains == best[owners]],
            (len(gains) - torch.arange(len(gains), device=gains.device))[gains == best[owners]],
            reduce="amax",
        )  # the first of equals
        order = best.argsort(descending=True, stable=True)
        count = int((best > 1e-12).sum())
        while count:
            chosen = order[:count]
            trial = rows.clone()
            trial[chosen] = pool[len(gains) - which[chosen]]
            if _value(standing(scores, trial, columns, links), links, goal, softness) > value + 1e-12:
                return trial
            count //= 2
        return None


def _value(stands: tuple[Standing, Standing], links: Links, goal: Goal, softness: float) -> float:
    total = 0.0
    for weight, direction, counted in zip(
        (goal.tr, goal.ir), stands, (links.linked, links.flipped.linked), strict=True
    ):
        if weight and bool(counted.any()):
            total += weight * float(harm(direction.margins[counted], softness).mean())
    return total


def harm(margins: Float[Tensor, "*shape"], softness: float) -> Float[Tensor, "*shape"]:
    """Return one for a failure (ties are misses), and a smooth part that grows through the border, in float64."""
    return (margins >= -_TIE).double() + softness * nearness(margins.double())


def nearness(margins: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return how near a query is to failing, from 0 to 1: the sigmoid of its margin, with a slope that never ends."""
    return 0.98 * margins.sigmoid() + 0.01 * (1 + margins / (1 + margins.abs()))


@torch.no_grad()
def replacement_gains(
    scores: Scores,
    links: Links,
    stands: tuple[Standing, Standing],
    columns: Indices,
    weights: tuple[float, float],
    pool: Int64[Tensor, " candidates"],
    owners: Int64[Tensor, " candidates"],
    softness: float,
) -> Float[Tensor, " candidates"]:
    """Return by how much the set gets worse for the victim when one row is replaced by one candidate, for each.

    Args:
        scores: of candidates of rows with candidates of columns.
        links: rows with columns.
        stands: the set as it stands, rows asking for columns and columns for rows.
        columns: the candidates of the columns.
        weights: of rows asking and of columns asking, each as a mean.
        pool: candidates of rows.
        owners: whose they are.
        softness: see `harm`.
    """
    asking, asked = stands
    row_counts, column_counts = links.linked, links.flipped.linked
    row_share = weights[0] / max(1, int(row_counts.sum()))
    column_share = weights[1] / max(1, int(column_counts.sum()))
    row_before = harm(asking.margins, softness)
    column_before = harm(asked.margins, softness)
    parts = []
    for some in torch.arange(len(pool), device=pool.device).split(max(1, CHUNK // max(1, len(columns)))):
        found, mine = scores(pool[some], columns), links.among(owners[some])
        gain = torch.zeros(len(some), dtype=torch.float64, device=pool.device)
        if row_share:
            own = found.masked_fill(~mine, LOWEST).amax(dim=1)
            others = found.masked_fill(mine, LOWEST).amax(dim=1)
            gain += (
                row_share * row_counts[owners[some]] * (harm(lead(own, others), softness) - row_before[owners[some]])
            )
        if column_share:
            own, others = asked.own.without(owners[some]), asked.others.without(owners[some])
            own = torch.where(mine, torch.maximum(found, own), own)
            others = torch.where(mine, others, torch.maximum(found, others))
            change = harm(lead(own, others), softness) - column_before
            gain += column_share * (change * column_counts).sum(dim=1)
        parts.append(gain)
    return torch.cat(parts)
