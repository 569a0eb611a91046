"""A queue of embeddings that every process fills with the embeddings of all."""

import torch
import torch.distributed as dist
from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn


class FeatureQueue(nn.Module):
    """The last embeddings that were pushed, with their ids; part of a module's state.

    Args:
        size: the most entries.
        dim: of the embeddings.

    Raises:
        ValueError: a size below 1.
    """

    features: Tensor
    ids: Tensor
    pushed: Tensor

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ValueError(f"Expected a queue of a whole number >= 1 of entries, but got {size!r}.")
        self.register_buffer("features", torch.zeros(size, dim))
        self.register_buffer("ids", torch.full((size,), -1, dtype=torch.int64))
        self.register_buffer("pushed", torch.zeros((), dtype=torch.int64))

    def entries(self) -> tuple[Float[Tensor, "entries dim"], Int64[Tensor, " entries"]]:
        """Return views of what is in the queue, in no particular order; the next push changes them."""
        filled = min(int(self.pushed), len(self.ids))
        return self.features[:filled], self.ids[:filled]

    @torch.no_grad()
    def push(self, features: Float[Tensor, "new dim"], ids: Int64[Tensor, " new"]) -> None:
        """Put new entries in place of the oldest."""
        size, start, new = len(self.ids), int(self.pushed), len(ids)
        last = min(new, size)
        slots = torch.arange(start + new - last, start + new, device=ids.device) % size
        self.features[slots] = features[new - last :].to(self.features.dtype)
        self.ids[slots] = ids[new - last :]
        self.pushed += new


@torch.no_grad()
def gather(values: Shaped[Tensor, "samples ..."]) -> Shaped[Tensor, "everyones_samples ..."]:
    """Return the values of all processes, in the order of their ranks; without others, the given ones.

    Every process must give equally many.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return values
    parts = [torch.empty_like(values) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, values.contiguous())
    return torch.cat(parts)
