"""The processes of a training: who does which part of a step, and how the parts come together."""

from collections.abc import Sequence
from typing import TypeVar

import torch
import torch.distributed as dist
from jaxtyping import Shaped
from torch import Tensor

_Value = TypeVar("_Value")


class World:
    """One of `size` equal processes; with a size of 1 everything is a plain pass-through.

    Args:
        rank: number of this process.
        size: how many there are; above 1, `torch.distributed` must be ready.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size

    @property
    def main(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0

    def share(self, total: int) -> slice:
        """Return this process's part of `total` rows; parts are contiguous and differ by one row at most."""
        return slice(self._bound(self.rank, total), self._bound(self.rank + 1, total))

    @torch.no_grad()
    def gather(self, own: Shaped[Tensor, "own ..."], total: int) -> Shaped[Tensor, "all ..."]:
        """Return everyone's rows, in order; no gradient flows through.

        Args:
            own: this process's rows, `share(total)` of them.
            total: rows of all processes.
        """
        if self.size == 1:
            return own
        sizes = [self._bound(rank + 1, total) - self._bound(rank, total) for rank in range(self.size)]
        padded = own.new_zeros(max(sizes), *own.shape[1:])
        padded[: len(own)] = own.detach()
        as_sent = padded.to(torch.uint8) if padded.dtype == torch.bool else padded
        parts = [torch.empty_like(as_sent) for _ in sizes]
        dist.all_gather(parts, as_sent)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)]).to(own.dtype)

    @torch.no_grad()
    def add(self, tensors: Sequence[Tensor]) -> None:
        """Replace every tensor by its sum over the processes, in place."""
        if self.size == 1 or not tensors:
            return
        for dtype in dict.fromkeys(t.dtype for t in tensors):
            alike = [t for t in tensors if t.dtype == dtype]
            flat = torch.cat([t.reshape(-1) for t in alike])
            dist.all_reduce(flat)
            for tensor, total in zip(alike, flat.split([t.numel() for t in alike]), strict=True):
                tensor.copy_(total.view_as(tensor))

    def add_gradients(self, parameters: Sequence[Tensor]) -> None:
        """Replace every parameter's gradient by its sum; one that no process has a gradient for stays without."""
        if self.size == 1:
            return
        present = torch.tensor([float(p.grad is not None) for p in parameters], device=parameters[0].device)
        dist.all_reduce(present)
        used = [p for p, count in zip(parameters, present.tolist(), strict=True) if count]
        for parameter in used:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        self.add([p.grad for p in used if p.grad is not None])

    def agree(self, value: _Value) -> _Value:
        """Return the main process's value, which must be picklable and is trusted: it comes from this training."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    @torch.no_grad()
    def align(self, tensors: Sequence[Tensor]) -> None:
        """Give every process the main one's values, in place."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, src=0)

    def wait(self) -> None:
        """Return once every process is here."""
        if self.size > 1:
            dist.barrier()

    def _bound(self, rank: int, total: int) -> int:
        return rank * total // self.size


ALONE = World()
"""The world of a single process."""
