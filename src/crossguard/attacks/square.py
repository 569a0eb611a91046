"""Square Attack: random search with squares at the corners of an L-inf ball (Andriushchenko et al., ECCV 2020)."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from crossguard.attacks.ascent import LossPerSample
from crossguard.attacks.ball import LInfBall, Values, wide
from crossguard.attacks.noise import uniform
from crossguard.attacks.parts import Block

FIRST_SHARE = 0.8
"""p of the paper: the share of a block that the first squares cover."""
_HALVED_AFTER = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Of 10,000 queries; in proportion for other numbers."""


def share_at(query: int, queries: int) -> float:
    """Return the share of a block that the square of a query covers.

    Example:
        >>> [share_at(query, 5000) for query in (1, 6, 5000)]
        [0.8, 0.4, 0.0015625]
    """
    return FIRST_SHARE / 2.0 ** sum(query * 10_000 > after * queries for after in _HALVED_AFTER)


def square_size(share: float, block: Block) -> tuple[int, int]:
    """Return (height, width) of a square that covers a share of a block; an oblong where the block is too narrow.

    Example:
        >>> square_size(0.8, (3, 32, 32)), square_size(0.5, (1, 1, 20)), square_size(0.001, (3, 8, 8))
        ((29, 29), (1, 10), (1, 1))
    """
    _, height, width = block
    area = share * height * width
    side = max(1, round(area**0.5))
    if side > height:
        return height, max(1, round(area / height))
    if side > width:
        return max(1, round(area / width)), width
    return side, side


def stripes(
    ball: LInfBall, blocks: Sequence[Block], ids: Int64[Tensor, " samples"], *, seed: int, stream: int
) -> Values:
    """Return where the search begins: each column of each channel at a random end of the ball."""
    signs = []
    for position, (channels, height, width) in enumerate(blocks):
        drawn = uniform(ids, (channels, 1, width), seed=seed, stream=stream + position, device=ball.clean.device)
        signs.append(drawn.expand(-1, -1, height, -1).flatten(1) < 0.5)
    return _corner(ball, torch.cat(signs, dim=1))


@torch.no_grad()
def random_squares(
    lead: LossPerSample,
    ball: LInfBall,
    start: Values,
    start_lead: Float[Tensor, " samples"],
    *,
    blocks: Sequence[Block],
    queries: range,
    budget: int,
    ids: Int64[Tensor, " samples"],
    seed: int,
    stream: int,
) -> tuple[Values, Float[Tensor, " samples"]]:
    """Move a random square of each sample to a random corner of the ball, and keep what raises the lead.

    Args:
        lead: the lead of the best wrong class; one forward a query, and no gradients.
        ball: the clean values and the budget.
        start: where to begin, within the ball.
        start_lead: the lead there.
        blocks: how the values of a sample are cut, in order; queries take turns among them.
        queries: the numbers of the queries, from 1.
        budget: how many there are in all, by which squares shrink.
        ids: what random numbers belong to.
        seed: of the random numbers.
        stream: of the random numbers; query q uses number `stream + q`.

    Returns:
        The values of the highest lead, and that lead.
    """
    best, best_lead = start, start_lead
    sizes = [channels * height * width for channels, height, width in blocks]
    for query in queries:
        turn = query % len(blocks)
        channels, height, width = blocks[turn]
        tall, broad = square_size(share_at(query, budget), blocks[turn])
        drawn = uniform(ids, (2 + channels,), seed=seed, stream=stream + query, device=start.device)
        inside = _places(drawn[:, 0], tall, height)[:, :, None] & _places(drawn[:, 1], broad, width)[:, None, :]
        shape = (-1, channels, height, width)
        window = inside[:, None].expand(shape).flatten(1)
        up = (drawn[:, 2:, None, None] < 0.5).expand(*shape[:2], height, width).flatten(1)
        before, after = sum(sizes[:turn]), sum(sizes[turn + 1 :])
        window, up = (torch.nn.functional.pad(mask, (before, after)) for mask in (window, up))
        moved = torch.where(window.view_as(best), _corner(ball, up), best)
        found = lead(moved)
        higher = found > best_lead
        best, best_lead = torch.where(wide(higher, best), moved, best), torch.where(higher, found, best_lead)
    return best, best_lead


def _corner(ball: LInfBall, up: Bool[Tensor, "samples values"]) -> Values:
    return ball.project(ball.clean + 2 * ball.eps * ball.steepest((2.0 * up - 1).view_as(ball.clean)))


def _places(drawn: Float[Tensor, " samples"], size: int, length: int) -> Bool[Tensor, "samples places"]:
    """Mark a run of so many places, the first of which is drawn from [0, 1)."""
    first = (drawn * (length - size + 1)).floor()[:, None]
    places = torch.arange(length, device=drawn.device)
    return (places >= first) & (places < first + size)
