"""How well a model tells the pairs of a step apart, for what is logged and shown."""

from jaxtyping import Bool, Float
from torch import Tensor

from crossguard.models import cosine


def batch_accuracy(
    images: Float[Tensor, "images dim"], texts: Float[Tensor, "texts dim"], positives: Bool[Tensor, "images texts"]
) -> float:
    """Return the share of images whose nearest text in the batch is one of their own, in [0, 1]; ties are misses.

    Args:
        images: embeddings, of any length.
        texts: embeddings; a text may stand twice, and a copy of an own text counts as own.
        positives: every true pair.
    """
    similarity = cosine(images, texts)
    own = similarity.masked_fill(~positives, -2.0).amax(dim=1)
    other = similarity.masked_fill(positives, -2.0).amax(dim=1)
    return float((own > other).float().mean())
