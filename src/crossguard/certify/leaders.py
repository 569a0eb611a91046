"""Who has the most votes."""

import numpy as np
from jaxtyping import Int64


def most_votes(
    votes: Int64[np.ndarray, "*elements labels"],
) -> tuple[Int64[np.ndarray, "*elements"], Int64[np.ndarray, "*elements"]]:
    """Return the label with the most votes (the lowest among equals) and its votes."""
    label, top = np.zeros(votes.shape[:-1], dtype=np.int64), votes[..., 0].copy()
    for other in range(1, votes.shape[-1]):  # a pass per label is much faster than argmax along a short last axis
        more = votes[..., other] > top
        label[more] = other
        np.maximum(top, votes[..., other], out=top)
    return label, top
