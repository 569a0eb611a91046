"""Published designs: sub-samples that are drawn once, for all inputs, from a public seed.

"fixed": N draws, balanced. Random orders of a modality's elements are laid end to end and cut into pieces of k, so that
every element is in floor or ceil of N k / n of them. A piece that runs over the end of an order repeats no element:
the next order begins with others.

"product": modality i is cut into m_i = ceil(n_i / k_i) random blocks of nearly equal size, none larger than k_i, and
every tuple of one block per modality is a draw.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import ceil
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from crossguard.certify.arguments import sizes, whole_number
from crossguard.certify.ensemble import block_counts, tuple_count
from crossguard.certify.subsample import mixed
from crossguard.checks import check_choice

PublishedKind = Literal["fixed", "product"]
_STREAM = 2**30  # of the orders, out of the way of other streams of the same seed


@dataclass(frozen=True)
class PublishedDesign:
    """Which elements each of the N draws holds; it depends on its arguments alone, on every machine.

    Args:
        design: "fixed" or "product".
        n: number of elements of each modality, by its name.
        k: number of elements kept of each modality; of "product" the most that a block has.
        draws: N; of "product" the number of tuples.
        seed: public.

    Raises:
        ValueError: k > n, nothing kept of any modality, or another number of draws than there are tuples.
    """

    design: PublishedKind
    n: Mapping[str, int]
    k: Mapping[str, int]
    draws: int
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice(self.design, get_args(PublishedKind), "design")
        sizes(tuple(self.n.values()), tuple(self.k.values()))
        whole_number(self.draws, "draws", least=1)
        whole_number(self.seed, "seed")
        if self.design == "product" and self.draws != tuple_count(self.blocks):
            raise ValueError(
                f"Expected `draws` = {tuple_count(self.blocks)}, all tuples of blocks {self.blocks}, but got "
                f"{self.draws}."
            )

    @cached_property
    def blocks(self) -> tuple[int, ...]:
        """The number of blocks of each modality, 0 where nothing is kept."""
        return block_counts(self.n, self.k)

    @cached_property
    def members(self) -> dict[str, Int64[np.ndarray, "draws kept"]]:
        """Of a "fixed" design, the elements that each draw holds of each modality, in ascending order."""
        return {
            modality: balanced(size, self.k[modality], self.draws, seed=self.seed, stream=i)
            for i, (modality, size) in enumerate(self.n.items())
        }

    @cached_property
    def block_of(self) -> dict[str, Int64[np.ndarray, " n"]]:
        """Of a "product" design, the block that each element is in; -1 where nothing is kept."""
        return {
            modality: partition(size, m, seed=self.seed, stream=i)
            for i, ((modality, size), m) in enumerate(zip(self.n.items(), self.blocks, strict=True))
        }

    def masks(self, modality: str, draw: Int64[Tensor, " rows"]) -> Bool[Tensor, "rows n"]:
        """Return what the draws hold of a modality, on the device of `draw`."""
        rows, size = len(draw), self.n[modality]
        if self.design == "fixed":
            held = torch.from_numpy(self.members[modality]).to(draw.device)[draw]
            return torch.zeros(rows, size, dtype=torch.bool, device=draw.device).scatter(1, held, True)
        at = list(self.n).index(modality)
        later = tuple_count(self.blocks[at + 1 :])
        chosen = draw // later % max(1, self.blocks[at])
        return torch.from_numpy(self.block_of[modality]).to(draw.device) == chosen[:, None]

    def degrees(self) -> dict[str, Int64[np.ndarray, " n"]]:
        """Return how many draws hold each element."""
        if self.design == "fixed":
            return {m: np.bincount(held.ravel(), minlength=self.n[m]) for m, held in self.members.items()}
        return {
            m: np.full(size, self.draws // blocks if blocks else 0)
            for (m, size), blocks in zip(self.n.items(), self.blocks, strict=True)
        }


def balanced(n: int, k: int, draws: int, *, seed: int, stream: int) -> Int64[np.ndarray, "draws kept"]:
    """Return draws of k different elements of n, each element in floor or ceil of draws * k / n of them.

    Args:
        n: number of elements.
        k: elements per draw.
        draws: number of draws.
        seed: of the orders.
        stream: a number per modality.
    """
    orders: list[np.ndarray] = []
    for index in range(ceil(draws * k / n)):
        order = np.argsort(_keys(n, seed, stream, index), kind="stable")
        over = index * n % k if k else 0  # elements of the piece that the order before began
        if over:
            apart = ~np.isin(order, orders[-1][n - over :], assume_unique=True)
            first = order[apart][: k - over]
            order = np.concatenate([first, order[~np.isin(order, first, assume_unique=True)]])
        orders.append(order)
    line = np.concatenate([*orders, np.empty(0, dtype=np.int64)])[: draws * k]
    return np.sort(line.reshape(draws, k), axis=1)


def partition(n: int, blocks: int, *, seed: int, stream: int) -> Int64[np.ndarray, " n"]:
    """Return the block of each element: a random partition into so many blocks of nearly equal size; -1 for none."""
    block = np.full(n, -1)
    for index, part in enumerate(np.array_split(np.argsort(_keys(n, seed, stream, 0), kind="stable"), max(1, blocks))):
        block[part] = index if blocks else -1
    return block


def _keys(n: int, seed: int, stream: int, index: int) -> Int64[np.ndarray, " n"]:
    """Return a random number per element; equal ones, by the order of elements, are as good as never."""
    return mixed(seed, torch.arange(n), torch.full((n,), _STREAM + stream), torch.full((n,), index)).numpy()
