"""Who ranks where: by the towers' cosine, or by a fusion model's match among the first by cosine."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor
from torch.nn.functional import normalize

from crossguard.evaluate.candidates import Candidates, candidate_ranks, nearest_items
from crossguard.evaluate.matching import ReadPixels, look_up, match_scores, union
from crossguard.evaluate.retrieval import DIRECTIONS, Direction, embedding_ranks
from crossguard.models import FusionModel
from crossguard.models.unseen import same_tokens
from crossguard.progress import Reporter
from crossguard.world import ALONE, World

DEFAULT_RERANK = 128
"""How many candidates a fusion model re-ranks unless told otherwise: ALBEF's choice for Flickr30k (256 for COCO)."""


@dataclass(frozen=True)
class Side:
    """All images and all texts of a data set, clean or attacked: their embeddings, and what they are made from.

    Args:
        images: float [images, dim], not normalised.
        texts: float [texts, dim], not normalised.
        read_pixels: gives the pixels of some images.
        strings: the texts themselves.
    """

    images: Float[Tensor, "images dim"]
    texts: Float[Tensor, "texts dim"]
    read_pixels: ReadPixels
    strings: Sequence[str]

    def of(self, direction: Direction, role: str) -> Float[Tensor, "items dim"]:
        """Return the embeddings that are "query" or "gallery" in a direction."""
        return self.images if (direction == "tr") == (role == "query") else self.texts


@runtime_checkable
class Ranking(Protocol):
    """The outcome of retrieval in both directions.

    Attributes:
        ranks: by direction, the rank of every query's best partner, from 1; ties are misses.
    """

    ranks: Mapping[Direction, Int64[Tensor, " queries"]]

    def top(self, direction: Direction, query: int, *, count: int) -> tuple[int, ...]:
        """Return the best gallery items of a query, best first."""
        ...


class ByDirection:
    """Two rankings, one for each direction.

    Args:
        rankings: by direction.
    """

    def __init__(self, rankings: Mapping[Direction, Ranking]) -> None:
        self._rankings = rankings
        self.ranks: Mapping[Direction, Int64[Tensor, " queries"]] = {d: r.ranks[d] for d, r in rankings.items()}

    def top(self, direction: Direction, query: int, *, count: int) -> tuple[int, ...]:
        """Return the best gallery items of a query, best first."""
        return self._rankings[direction].top(direction, query, count=count)


class CosineRanking:
    """Ranking by the cosine of the two towers; scores are computed in slices and never held together.

    Args:
        queries: the side that asks.
        gallery: the side that is searched.
        links: true pairs as (image, text).
        world: the processes that share the queries.
        directions: which of the two are asked for.
    """

    def __init__(
        self,
        queries: Side,
        gallery: Side,
        links: Int64[Tensor, "links 2"],
        world: World = ALONE,
        directions: Sequence[Direction] = DIRECTIONS,
    ) -> None:
        self._queries, self._gallery = queries, gallery
        ends: dict[Direction, Int64[Tensor, "links 2"]] = {"tr": links, "ir": links.flip(1)}
        self.ranks: Mapping[Direction, Int64[Tensor, " queries"]] = {
            d: embedding_ranks(queries.of(d, "query"), gallery.of(d, "gallery"), ends[d], world=world)
            for d in directions
        }

    def top(self, direction: Direction, query: int, *, count: int) -> tuple[int, ...]:
        """Return the items with the highest cosine."""
        gallery = normalize(self._gallery.of(direction, "gallery"), dim=-1)
        scores = gallery @ normalize(self._queries.of(direction, "query")[query], dim=-1)
        return tuple(int(i) for i in scores.topk(min(count, len(scores))).indices)


@dataclass(frozen=True)
class Matching:
    """How a fusion model re-ranks.

    Args:
        model: in evaluation mode.
        candidates: items per query that the second stage scores.
        batch_size: images at a time.
        device: where the model is.
        progress: where it is shown.
        folder: where scores are kept, so that re-ranking goes on where it stopped; None keeps none.
        world: the processes that share the images.
    """

    model: FusionModel
    candidates: int
    batch_size: int
    device: torch.device
    progress: Reporter
    folder: Path | None = None
    world: World = ALONE


class MatchRanking:
    """Re-ranking by match (ALBEF, Li et al., 2021; BLIP, Li et al., 2022).

    Per query the first by cosine are candidates; they are ranked by the match logit, plus the cosine where the
    model's `rank_adds_cosine` says so; all else comes last, tied. The pairs that either direction asks for are scored
    once, texts that the model cannot tell apart once.

    Args:
        queries: the side that asks.
        gallery: the side that is searched.
        links: true pairs as (image, text).
        matching: how to re-rank.
        title: what is re-ranked, in words.
        directions: which of the two are asked for.
    """

    def __init__(
        self,
        queries: Side,
        gallery: Side,
        links: Int64[Tensor, "links 2"],
        matching: Matching,
        *,
        title: str,
        directions: Sequence[Direction] = DIRECTIONS,
    ) -> None:
        both: dict[Direction, tuple[Side, Side]] = {"tr": (queries, gallery), "ir": (gallery, queries)}
        sides = {direction: both[direction] for direction in directions}
        self._candidates: dict[Direction, Candidates] = {
            direction: nearest_items(
                queries.of(direction, "query"),
                gallery.of(direction, "gallery"),
                links if direction == "tr" else links.flip(1),
                count=matching.candidates,
            )
            for direction in directions
        }
        if queries is gallery:
            logits = self._score(sides, matching, title, place="both")
        else:  # the two directions look at different pictures and texts
            logits = {}
            for direction in directions:
                logits |= self._score({direction: sides[direction]}, matching, title, place=direction)
        added = matching.model.rank_adds_cosine
        self._scores = {
            direction: logits[direction] + self._candidates[direction].cosines if added else logits[direction]
            for direction in directions
        }
        ends: dict[Direction, Int64[np.ndarray, "links 2"]] = {"tr": links.cpu().numpy()}
        ends["ir"] = ends["tr"][:, ::-1]
        self.ranks: Mapping[Direction, Int64[Tensor, " queries"]] = {
            direction: torch.from_numpy(
                candidate_ranks(self._candidates[direction], self._scores[direction], ends[direction])
            )
            for direction in directions
        }

    def _score(
        self, sides: Mapping[Direction, tuple[Side, Side]], matching: Matching, title: str, *, place: str
    ) -> dict[Direction, Float32[np.ndarray, "queries candidates"]]:
        """Score what the given directions ask for; they share the (images, texts) of their sides."""
        images, texts = next(iter(sides.values()))
        first, slots = np.unique(same_tokens(matching.model, texts.strings), return_inverse=True)
        asked = {direction: self._pairs(direction, slots) for direction in sides}
        pairs = union(*asked.values())
        scores = match_scores(
            matching.model,
            pairs,
            read_pixels=images.read_pixels,
            texts=[texts.strings[int(i)] for i in first],
            batch_size=matching.batch_size,
            device=matching.device,
            progress=matching.progress,
            title=title,
            folder=None if matching.folder is None else matching.folder / place,
            world=matching.world,
        )
        return {
            direction: look_up(wanted, pairs, scores).reshape(self._candidates[direction].items.shape)
            for direction, wanted in asked.items()
        }

    def _pairs(self, direction: Direction, slots: Int64[np.ndarray, " texts"]) -> Int64[np.ndarray, "pairs 2"]:
        items = self._candidates[direction].items
        asking = np.repeat(np.arange(len(items)), items.shape[1])
        found = items.ravel()
        images, texts = (asking, found) if direction == "tr" else (found, asking)
        return np.stack([images, slots[texts]], axis=1)

    def top(self, direction: Direction, query: int, *, count: int) -> tuple[int, ...]:
        """Return the candidates with the highest scores."""
        best = np.argsort(-self._scores[direction][query], kind="stable")[:count]
        return tuple(int(item) for item in self._candidates[direction].items[query][best])


def candidates_of(model: object, rerank: int | None) -> int:
    """Return how many candidates per query are re-ranked; 0 means by cosine alone.

    Args:
        model: any vision-language model.
        rerank: as asked for; None: `DEFAULT_RERANK` for fusion models, 0 for others.

    Raises:
        ValueError: below 0, or above 0 for a model that cannot match.
    """
    fusion = isinstance(model, FusionModel)
    if rerank is None:
        return DEFAULT_RERANK if fusion else 0
    if rerank < 0 or (rerank and not fusion):
        raise ValueError(
            f"Expected `rerank` >= 0, and 0 for a model without `match`, but got {rerank} for {type(model).__name__}."
        )
    return rerank
