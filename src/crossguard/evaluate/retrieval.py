"""Retrieval metrics as pure functions: ranks from scores or embeddings, recalls from ranks."""

from collections.abc import Iterator, Mapping
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from crossguard.evaluate.cosines import GalleryCosines
from crossguard.world import ALONE, World

Direction: TypeAlias = Literal["tr", "ir"]
"""`tr`, text retrieval: an image asks for its texts. `ir`, image retrieval: a text asks for its images."""

DIRECTIONS: tuple[Direction, ...] = ("tr", "ir")
CUTS = (1, 5, 10)
METRICS = tuple(f"{direction}@{cut}" for direction in DIRECTIONS for cut in CUTS)

_CHUNK = 1 << 22  # scores held at once: 16 MiB of float32


def retrieval_ranks(
    scores: Float[Tensor, "images texts"], links: Int64[Tensor, "links 2"]
) -> tuple[Int64[Tensor, " images"], Int64[Tensor, " texts"]]:
    """Rank every image's best own text among all texts, and every text's best own image among all images.

    Args:
        scores: similarity of every image with every text, any real scale; higher is more similar.
        links: true pairs as (image, text); every image and every text has at least one.

    Returns:
        Two vectors of ranks from 1 (best), see `partner_ranks`.

    Raises:
        ValueError: NaN among the scores, links out of range, an image or text without a link.

    Example:
        >>> scores = torch.tensor([[0.9, 0.1], [0.8, 0.3]])
        >>> image_ranks, text_ranks = retrieval_ranks(scores, torch.tensor([[0, 0], [1, 1]]))
        >>> image_ranks.tolist(), text_ranks.tolist()
        ([1, 2], [1, 1])
    """
    return partner_ranks(scores, links), partner_ranks(scores.T, links.flip(1))


def partner_ranks(
    scores: Float[Tensor, "queries gallery"], links: Int64[Tensor, "links 2"]
) -> Int64[Tensor, " queries"]:
    """Return, per query, 1 + the number of non-partners that score at least as high as its best partner.

    Ties are misses: a non-partner with the same score counts as ranked before. Other partners never count, so an
    image with five texts has rank 1 when any of them is on top.

    Args:
        scores: higher is more similar; infinities are allowed, NaN is not.
        links: (query, gallery item) of every true pair.

    Raises:
        ValueError: NaN among the scores, links out of range, a query without a partner.
    """
    queries, gallery = scores.shape
    links = links.to(scores.device)
    check_links(links, queries, gallery)
    step = max(1, _CHUNK // max(1, gallery))
    return torch.cat(
        [_rank(scores[start : start + step], links_within(links, start, step)) for start in range(0, queries, step)]
    )


def embedding_ranks(
    queries: Float[Tensor, "queries dim"],
    gallery: Float[Tensor, "gallery dim"],
    links: Int64[Tensor, "links 2"],
    *,
    world: World = ALONE,
) -> Int64[Tensor, " queries"]:
    """Return `partner_ranks` of the cosine similarities, without ever holding them all; equal items of a gallery tie.

    Args:
        queries: embeddings, of any length but zero.
        gallery: embeddings to search among.
        links: (query, gallery item) of every true pair.
        world: the processes that share the queries.

    Raises:
        ValueError: as `partner_ranks`; an embedding that is not finite gives NaN scores.
    """
    links = links.to(queries.device)
    check_links(links, len(queries), len(gallery))
    cosines = GalleryCosines(gallery)
    step = max(1, _CHUNK // max(1, len(gallery)))

    def ranks(start: int) -> Int64[Tensor, " some"]:
        found = _rank(cosines(queries[start : start + step]), links_within(links, start, step))
        return found if world.size == 1 else found.cpu()

    found = torch.empty(len(queries), dtype=torch.int64, device=queries.device)
    starts = range(0, len(queries), step)
    for start, part in zip(starts, world.each(starts, ranks), strict=True):  # into one tensor, see `sanity`
        found[start : start + len(part)] = part
    return found


def recalls(ranks: Mapping[Direction, Int64[Tensor, " queries"]]) -> dict[str, float]:
    """Return tr@1 tr@5 tr@10 ir@1 ir@5 ir@10 in percent: the share of queries with a partner among the top K.

    Args:
        ranks: by direction, ranks from 1 of at least one query.

    Raises:
        ValueError: a direction without queries.

    Example:
        >>> recalls({"tr": torch.tensor([1, 3]), "ir": torch.tensor([1, 1, 11, 12])})
        {'tr@1': 50.0, 'tr@5': 100.0, 'tr@10': 100.0, 'ir@1': 50.0, 'ir@5': 50.0, 'ir@10': 50.0}
    """
    for direction, values in ranks.items():
        if len(values) == 0:
            raise ValueError(f"Expected queries in direction {direction!r}, but got none.")
    return {
        f"{direction}@{cut}": 100 * int((ranks[direction] <= cut).sum()) / len(ranks[direction])
        for direction in DIRECTIONS
        for cut in CUTS
    }


def cuts() -> Iterator[tuple[str, Direction, int]]:
    """Give every metric with its parts: ("tr@1", "tr", 1), ..."""
    for direction in DIRECTIONS:
        for cut in CUTS:
            yield f"{direction}@{cut}", direction, cut


def _rank(scores: Float[Tensor, "queries gallery"], links: Int64[Tensor, "links 2"]) -> Int64[Tensor, " queries"]:
    if scores.isnan().any():
        raise ValueError(f"Expected scores to compare, but {int(scores.isnan().sum())} are NaN.")
    rows, columns = links[:, 0], links[:, 1]
    partners = scores[rows, columns]
    best = torch.full((len(scores),), -torch.inf, dtype=scores.dtype, device=scores.device)
    best = best.scatter_reduce(0, rows, partners, reduce="amax")
    reached = (scores >= best[:, None]).sum(dim=1)
    own = torch.zeros_like(reached).scatter_add(0, rows, (partners >= best[rows]).long())
    return 1 + reached - own


def links_within(links: Int64[Tensor, "links 2"], start: int, step: int) -> Int64[Tensor, "some 2"]:
    """Return the links of the queries `start` to `start + step - 1`, counted from `start`."""
    inside = links[(links[:, 0] >= start) & (links[:, 0] < start + step)]
    return torch.stack([inside[:, 0] - start, inside[:, 1]], dim=1)


def check_links(links: Int64[Tensor, "links 2"], queries: int, gallery: int) -> None:
    """Refuse links out of range or repeated, and queries without a partner.

    Raises:
        ValueError: saying what came.
    """
    for column, (what, size) in enumerate((("query", queries), ("gallery", gallery))):
        ends = links[:, column]
        if len(ends) and (ends.min() < 0 or ends.max() >= size):
            raise ValueError(
                f"Expected {what} indices of `links` in [0, {size}), but got {int(ends.min())}..{int(ends.max())}."
            )
    if len(torch.unique(links, dim=0)) != len(links):
        raise ValueError("Expected different `links`, but some are repeated.")
    lonely = queries - len(links[:, 0].unique())
    if lonely or not queries:
        raise ValueError(f"Expected every query to have a partner, but {lonely} of {queries} have none.")
