"""Where a sparse attack puts its elements, and what it puts there: greedy and gradient-ranked placement.

The threat is that of certificates by sub-sampling: at most r elements of each modality take any values in range; or
all elements of one rectangle.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn.functional import max_pool2d

from crossguard.attacks.apgd import auto_maximise
from crossguard.attacks.ball import window, window_sums
from crossguard.attacks.noise import uniform
from crossguard.attacks.parts import Box, Part, Parts, PartsLoss, all_rows, choose, gradient_of
from crossguard.threat import Budget, Elements, Patch

Placement = Literal["greedy", "gradient"]
_NEVER = -torch.inf


@dataclass(frozen=True)
class SparseSearch:
    """How a sparse attack searches.

    Args:
        placement: "greedy" tries elements one at a time with several contents, by forward passes, and takes the best
            one; "gradient" takes the elements of the largest first-order gain.
        shortlist: greedy tries only so many elements of a modality per turn, those of the largest first-order gain;
            None tries all of them.
        rounds: turns in which gradient placement spends its budget; gradients are taken anew in each.
        trials: random contents that greedy tries of every element, beside its values pushed to the ends of their range
            along the gradient, all to the lower end, and all to the upper.
        word_trials: random words that are tried in the place of every word.
        steps: Auto-PGD steps on the contents of all chosen elements after each turn; 0 leaves the contents that were
            tried.
        rows_per_forward: elements tried at once.
    """

    placement: Placement = "greedy"
    shortlist: int | None = None
    rounds: int = 4
    trials: int = 0
    word_trials: int = 16
    steps: int = 10
    rows_per_forward: int = 256


class Sites(ABC):
    """Where a budget lets a modality change: sets of elements, some of which may be chosen.

    Attributes:
        number: how many of the sets.
    """

    number: int

    @abstractmethod
    def gain(self, gain: Float[Tensor, "samples elements"]) -> Float[Tensor, "samples sites"]:
        """Return what each set gains, from what its elements gain."""

    @abstractmethod
    def open(self, chosen: Bool[Tensor, "samples elements"]) -> Bool[Tensor, "samples sites"]:
        """Mark the sets that may still be chosen beside some elements."""

    @abstractmethod
    def members(self, site: Int64[Tensor, " rows"], elements: int) -> Bool[Tensor, "rows elements"]:
        """Mark the elements of one set per row."""


@dataclass(frozen=True)
class Singles(Sites):
    """Single elements.

    Args:
        number: how many may be chosen.
    """

    number: int

    def gain(self, gain: Float[Tensor, "samples elements"]) -> Float[Tensor, "samples sites"]:
        """Return each element's own."""
        return gain

    def open(self, chosen: Bool[Tensor, "samples elements"]) -> Bool[Tensor, "samples sites"]:
        """Mark all others, until there are so many."""
        return ~chosen & (chosen.sum(dim=1, keepdim=True) < self.number)

    def members(self, site: Int64[Tensor, " rows"], elements: int) -> Bool[Tensor, "rows elements"]:
        """Mark the element."""
        return torch.arange(elements, device=site.device) == site[:, None]


@dataclass(frozen=True)
class Windows(Sites):
    """Rectangles of one size, of elements that lie in rows and columns; one may be chosen.

    Args:
        patch: the size.
        sides: (height, width) of the elements.
    """

    patch: Patch
    sides: tuple[int, int]
    number: int = 1

    def gain(self, gain: Float[Tensor, "samples elements"]) -> Float[Tensor, "samples sites"]:
        """Return each rectangle's sum where it is the largest around, and nothing elsewhere: others overlap it."""
        sums = window_sums(gain.unflatten(1, self.sides), self.patch.height, self.patch.width)[:, None]
        reach = (self.patch.height // 4, self.patch.width // 4)
        around = max_pool2d(sums, tuple(2 * side + 1 for side in reach), stride=1, padding=reach)
        return torch.where(sums == around, sums, 0.0).flatten(1)

    def open(self, chosen: Bool[Tensor, "samples elements"]) -> Bool[Tensor, "samples sites"]:
        """Mark all where none was chosen."""
        sites = (self.sides[0] - self.patch.height + 1) * (self.sides[1] - self.patch.width + 1)
        return ~chosen.any(dim=1, keepdim=True).expand(-1, sites)

    def members(self, site: Int64[Tensor, " rows"], elements: int) -> Bool[Tensor, "rows elements"]:
        """Mark the rectangle."""
        return window(site, (self.patch.height, self.patch.width), self.sides).flatten(1)


def sites_of(budget: Budget, clean: Part, block: tuple[int, ...]) -> Sites:
    """Return where a budget of elements, or of a rectangle, lets a part change.

    Args:
        budget: `Elements` or `Patch`.
        clean: the part.
        block: (channels, height, width) of its values as a picture.

    Raises:
        ValueError: another budget, or a patch larger than the picture.
    """
    if isinstance(budget, Elements):
        return Singles(min(budget.r, clean.shape[1]))
    if not isinstance(budget, Patch):
        raise ValueError(f"Expected Elements or Patch, but got {budget!r}.")
    if budget.height > block[1] or budget.width > block[2]:
        raise ValueError(f"Expected a patch of at most {block[1]} x {block[2]}, but got {budget}.")
    return Windows(budget, (block[1], block[2]))


def sparse_ascent(
    loss: PartsLoss,
    clean: Mapping[str, Part],
    *,
    sites: Mapping[str, Sites],
    search: SparseSearch,
    ids: Int64[Tensor, " samples"],
    seed: int,
    words: Mapping[str, int] | None = None,
) -> Parts:
    """Maximise a loss of every sample by giving a few elements of each modality any values in [0, 1].

    Elements are chosen turn by turn and stay chosen; after each turn the contents of all chosen ones climb together.
    The best state of each sample is returned, so that a turn that helped nothing costs nothing.

    Args:
        loss: see `parts.PartsLoss`.
        clean: the inputs as elements; not changed.
        sites: where modalities may change; one that is not named stays as it is.
        search: how to search.
        ids: what the samples are called, for random contents.
        seed: of the random contents.
        words: modalities whose elements are the whole numbers 0, ..., size - 1, scaled by 1 / (size - 1), and their
            sizes. There is no way between two of them: they are placed greedily and never climb.

    Returns:
        Parts of the shapes of `clean`, detached.
    """
    words = dict(words or {})
    sites = {name: places for name, places in sites.items() if places.number}
    current: Parts = {name: values.detach() for name, values in clean.items()}
    chosen = {name: torch.zeros(v.shape[:2], dtype=torch.bool, device=v.device) for name, v in current.items()}
    best, best_loss = current, None
    for turn, (ranked, tried) in enumerate(_turns({m: s.number for m, s in sites.items()}, search, set(words))):
        value, gradient = gradient_of(loss, current)
        best, best_loss = _keep(best, best_loss, current, value)
        if ranked:
            current = _place_ranked(current, gradient, chosen, ranked, sites)
        for place in range(tried):
            rest = {name: places for name, places in sites.items() if name not in ranked}
            stream = (turn * tried + place) * len(current)
            current = _place_best(
                loss, current, gradient, chosen, rest, search=search, words=words, ids=ids, seed=seed, stream=stream
            )
        if search.steps and set(sites) - set(words):
            current = _climb(loss, current, chosen, steps=search.steps, fixed=set(words))
    if not sites:
        return current
    with torch.no_grad():
        return _keep(best, best_loss, current, loss(current, all_rows(current)))[0]


def first_order_gain(values: Part, gradient: Part) -> Float[Tensor, "samples elements"]:
    """Return what each element would gain at most in [0, 1], were the loss linear: sum of max(g (1 - x), -g x)."""
    return (gradient.clamp(min=0) * (1 - values) + (-gradient).clamp(min=0) * values).sum(dim=2)


def _turns(budgets: Mapping[str, int], search: SparseSearch, words: set[str]) -> list[tuple[dict[str, int], int]]:
    """Return per turn how many elements of each modality are placed by rank, and how many of any are by trial."""
    if search.placement == "greedy":
        return [({}, 1) for _ in range(sum(budgets.values()))]
    tried = sum(r for name, r in budgets.items() if name in words)
    turns = min(search.rounds, max(budgets.values(), default=0))

    def share(r: int, turn: int) -> int:
        return r * (turn + 1) // turns - r * turn // turns

    return [
        (
            {name: share(r, turn) for name, r in budgets.items() if name not in words},
            share(tried, turn),
        )
        for turn in range(turns)
    ]


def _place_ranked(
    current: Parts,
    gradient: Parts,
    chosen: Mapping[str, Tensor],
    spend: Mapping[str, int],
    sites: Mapping[str, Sites],
) -> Parts:
    """Choose the elements of the largest gain, and push their values to the ends of the range along the gradient."""
    moved = dict(current)
    for name, amount in spend.items():
        gain = sites[name].gain(first_order_gain(current[name], gradient[name]))
        best = gain.masked_fill(~sites[name].open(chosen[name]), _NEVER).topk(amount, dim=1).indices
        members = sites[name].members(best.flatten(), chosen[name].shape[1])
        new = members.unflatten(0, best.shape).any(dim=1)
        chosen[name] |= new
        moved[name] = torch.where(new[:, :, None], _pushed(current[name], gradient[name]), current[name])
    return moved


@torch.no_grad()
def _place_best(
    loss: PartsLoss,
    current: Parts,
    gradient: Parts,
    chosen: Mapping[str, Tensor],
    sites: Mapping[str, Sites],
    *,
    search: SparseSearch,
    words: Mapping[str, int],
    ids: Int64[Tensor, " samples"],
    seed: int,
    stream: int,
) -> Parts:
    """Try elements with several contents, and give each sample the one of the highest loss."""
    samples = len(ids)
    best_loss = torch.full((samples,), _NEVER, device=ids.device)
    best = {name: values.clone() for name, values in current.items()}
    picked = {name: torch.zeros_like(mask) for name, mask in chosen.items()}
    for position, (name, places) in enumerate(sites.items()):
        gain = places.gain(first_order_gain(current[name], gradient[name]))
        open_ = places.open(chosen[name])
        count = gain.shape[1] if search.shortlist is None or name in words else min(search.shortlist, gain.shape[1])
        order = gain.masked_fill(~open_, _NEVER).topk(count, dim=1).indices
        contents = _contents(
            current[name],
            gradient[name],
            search=search,
            size=words.get(name),
            ids=ids,
            seed=seed,
            stream=stream + position,
        )
        sample, place, trial = torch.meshgrid(
            torch.arange(samples, device=ids.device),
            torch.arange(count, device=ids.device),
            torch.arange(len(contents), device=ids.device),
            indexing="ij",
        )
        sample, place, trial = sample.flatten(), place.flatten(), trial.flatten()
        site = order[sample, place]
        allowed = open_[sample, site]
        sample, site, trial = sample[allowed], site[allowed], trial[allowed]
        losses = torch.cat(
            [best_loss.new_empty(0)]
            + [
                loss(_with_site(current, name, contents, places, s, e, t), s)
                for s, e, t in zip(
                    *(part.split(search.rows_per_forward) for part in (sample, site, trial)), strict=True
                )
            ]
        )
        top, row = _highest(losses, sample, samples)
        winner = (top > best_loss) & (row >= 0)
        who = winner.nonzero().flatten()
        if not len(who):
            continue
        best_loss = torch.where(winner, top, best_loss)
        for other in best:  # an earlier modality's winner is beaten
            best[other][who] = current[other][who]
            picked[other][who] = False
        members = places.members(site[row[who]], chosen[name].shape[1])
        best[name][who] = torch.where(members[:, :, None], contents[trial[row[who]], who], current[name][who])
        picked[name][who] = members
    for name, mask in picked.items():
        chosen[name] |= mask
    return best


def _contents(
    values: Part,
    gradient: Part,
    *,
    search: SparseSearch,
    size: int | None,
    ids: Int64[Tensor, " samples"],
    seed: int,
    stream: int,
) -> Float[Tensor, "trials samples elements features"]:
    """Return what is tried in the place of each element."""
    trials = search.trials if size is None else search.word_trials
    ends = torch.stack([_pushed(values, gradient), torch.zeros_like(values), torch.ones_like(values)])
    if not trials:
        return ends[:0] if size is not None else ends
    drawn = uniform(ids, (trials, *values.shape[1:]), seed=seed, stream=stream, device=values.device).transpose(0, 1)
    if size is not None:
        return (drawn * size).floor() / max(1, size - 1)
    return torch.cat([ends, drawn.to(values.dtype)])


def _with_site(
    current: Parts,
    name: str,
    contents: Float[Tensor, "trials samples elements features"],
    places: Sites,
    sample: Int64[Tensor, " rows"],
    site: Int64[Tensor, " rows"],
    trial: Int64[Tensor, " rows"],
) -> dict[str, Float[Tensor, "rows _ _"]]:
    rows = {other: values[sample] for other, values in current.items()}
    members = places.members(site, rows[name].shape[1])
    rows[name] = torch.where(members[:, :, None], contents[trial, sample], rows[name])
    return rows


def _highest(
    losses: Float[Tensor, " rows"], sample: Int64[Tensor, " rows"], samples: int
) -> tuple[Float[Tensor, " samples"], Int64[Tensor, " samples"]]:
    """Return each sample's highest loss and the first row that has it; -1 for a sample without rows."""
    top = losses.new_full((samples,), _NEVER).scatter_reduce(0, sample, losses, "amax")
    rows = torch.arange(len(losses), device=losses.device)
    first = torch.where(losses == top[sample], rows, len(losses))
    row = first.new_full((samples,), len(losses)).scatter_reduce(0, sample, first, "amin")
    return top, torch.where(row < len(losses), row, -1)


def _climb(
    loss: PartsLoss,
    current: Parts,
    chosen: Mapping[str, Bool[Tensor, "samples elements"]],
    *,
    steps: int,
    fixed: set[str],
) -> Parts:
    """Let the values of all chosen elements climb together; the first step reaches from end to end."""
    free = {name: chosen[name][:, :, None] & (name not in fixed) for name in current}
    low = {name: torch.where(free[name], 0.0, values) for name, values in current.items()}
    high = {name: torch.where(free[name], 1.0, values) for name, values in current.items()}
    box = Box.between(low, high)
    return box.split(auto_maximise(box.loss(loss), box.ball, steps=steps, start=box.join(current)))


def _pushed(values: Part, gradient: Part) -> Part:
    return torch.where(gradient > 0, 1.0, torch.where(gradient < 0, 0.0, values))


def _keep(
    best: Parts, best_loss: Float[Tensor, " samples"] | None, current: Parts, value: Float[Tensor, " samples"]
) -> tuple[Parts, Float[Tensor, " samples"]]:
    if best_loss is None:
        return current, value
    higher = value > best_loss
    return choose(higher, current, best), torch.where(higher, value, best_loss)
