"""The losses of images against a whole gallery, one direction of retrieval at a time.

Everything but the image itself is held as the gallery stands, the images of the same batch too, so that how the data
are cut into batches plays no part. The own texts are each the worst of their variants for the image at hand: ascent on
these losses is joint over an image and its texts (the gradient of a maximum is that of its maximiser).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn.functional import softplus

from crossguard.attacks.mixture import LOWEST, lead, nearness

DONE = 2.0
"""An image whose failure leads by so many logits moves no more."""


@dataclass(frozen=True)
class TextRetrieval:
    """Images asking for texts.

    Args:
        own: bool [images, texts of the batch], the true pairs.
        among: bool [images, texts of the gallery], the same pairs.
    """

    own: Bool[Tensor, "images texts"]
    among: Bool[Tensor, "images gallery"]

    def __call__(
        self,
        mine: Float[Tensor, "rows texts variants"],
        gallery: Float[Tensor, "rows gallery"],
        rows: Int64[Tensor, " rows"],
    ) -> dict[str, Float[Tensor, " rows"]]:
        """Return losses by name, and the margin that decides ("judge").

        Args:
            mine: scores with the variants of the batch's texts.
            gallery: scores with the gallery's texts.
            rows: whose scores they are.
        """
        own = mine.amin(dim=2).masked_fill(~self.own[rows], LOWEST)
        others = gallery.masked_fill(self.among[rows], LOWEST)
        margin = lead(own.amax(dim=1), others.amax(dim=1))
        entropy = softplus(lead(own.logsumexp(dim=1), others.logsumexp(dim=1)))
        return {"margin": margin, "entropy": entropy, "judge": margin, "done": margin - DONE}


@dataclass(frozen=True)
class ImageRetrieval:
    """Texts asking for images, one of which moves.

    Args:
        own: bool [images, texts of the batch], the true pairs.
        among: bool [images, texts of the gallery], the same pairs.
        partners: float [images, texts, variants], the best score of the other images that a text belongs to.
        others: float [texts, variants], the best score of all images that it does not belong to.
        total: float [texts, variants], their log-sum-exp.
        best_own: float [gallery], the best own score of every text of the gallery.
        best_other: float [images, gallery], the best other score of these, the moving image left out.
    """

    own: Bool[Tensor, "images texts"]
    among: Bool[Tensor, "images gallery"]
    partners: Float[Tensor, "images texts variants"]
    others: Float[Tensor, "texts variants"]
    total: Float[Tensor, "texts variants"]
    best_own: Float[Tensor, " gallery"]
    best_other: Float[Tensor, "images gallery"]

    def __call__(
        self,
        mine: Float[Tensor, "rows texts variants"],
        gallery: Float[Tensor, "rows gallery"],
        rows: Int64[Tensor, " rows"],
    ) -> dict[str, Float[Tensor, " rows"]]:
        """Return losses by name, and how many texts are lost, smoothly counted ("judge"); see `TextRetrieval`."""
        own = self.own[rows]
        count = own.sum(dim=1).clamp(min=1)
        ahead = lead(torch.maximum(mine, self.partners[rows]), self.others)
        margins = ahead.amax(dim=2)
        entropy = softplus(lead(mine, self.total)).amax(dim=2)
        lost = nearness(margins).masked_fill(~own, 0.0).sum(dim=1)
        before, best_own = self.best_other[rows], self.best_own
        taken = nearness(lead(best_own, torch.maximum(gallery, before))) - nearness(lead(best_own, before))
        harm = lost + taken.masked_fill(self.among[rows], 0.0).sum(dim=1)
        worst = margins.masked_fill(~own, torch.inf).amin(dim=1)
        worst = worst.where(own.any(dim=1), -worst)  # an image without texts may still take others' places
        return {
            "margin": margins.masked_fill(~own, 0.0).sum(dim=1) / count,
            "entropy": entropy.masked_fill(~own, 0.0).sum(dim=1) / count,
            "count": harm,
            "judge": harm,
            "done": worst - DONE,
        }
