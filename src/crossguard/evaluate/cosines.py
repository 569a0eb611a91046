"""Cosines with a gallery in which items may be equal."""

from hashlib import blake2b

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import normalize


class GalleryCosines:
    """Cosines of queries with a gallery; equal items of the gallery get equal cosines.

    A matrix product alone adds up the columns at its edges in another order, so that equal ones may come out different,
    and a tie as a hit.

    Args:
        gallery: embeddings.
    """

    def __init__(self, gallery: Float[Tensor, "gallery dim"]) -> None:
        self._unit = normalize(gallery, dim=-1)
        self._copies, self._originals = _repeated(gallery)

    def __call__(self, queries: Float[Tensor, "queries dim"]) -> Float[Tensor, "queries gallery"]:
        """Return the cosines of some queries."""
        found = normalize(queries, dim=-1) @ self._unit.T
        if len(self._copies):
            found[:, self._copies] = found[:, self._originals]
        return found


def _repeated(rows: Float[Tensor, "rows dim"]) -> tuple[Int64[Tensor, " copies"], Int64[Tensor, " copies"]]:
    """Return the indices of rows that came before, and where each came first."""
    plain = (rows.detach() + 0.0).cpu().contiguous().view(torch.uint8).numpy()  # adding 0 makes -0 a 0
    first: dict[bytes, int] = {}
    found = [(i, first.setdefault(blake2b(row, digest_size=16).digest(), i)) for i, row in enumerate(plain)]
    pairs = torch.tensor([pair for pair in found if pair[0] != pair[1]], dtype=torch.int64).reshape(-1, 2)
    copies, originals = pairs.to(rows.device).unbind(dim=1)
    return copies, originals
