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

from crossguard.attacks import mixture
from crossguard.attacks.mixture import LOWEST, Chosen, Links, Scores, Standing, lead, nearness

DONE = 2.0
"""An image moves no more once all that it can make fail does, by so many logits."""


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

    @classmethod
    def of(
        cls,
        scores: Scores,
        links: Links,
        chosen: Chosen,
        stands: Standing,
        places: tuple[Int64[Tensor, " images"], Int64[Tensor, " texts"]],
        variants: Int64[Tensor, "texts variants"],
        columns: Int64[Tensor, " gallery"],
    ) -> "ImageRetrieval":
        """Look at a gallery as it stands; its images are gone through some at a time.

        Args:
            scores: what is ranked by.
            links: the true pairs.
            chosen: the set as it stands.
            stands: how its texts that ask for images fare.
            places: which images and texts of the gallery the batch holds.
            variants: of the batch's texts, as candidates.
            columns: which texts of the gallery count.
        """
        images, texts = places
        forms, flat = variants.shape[1], variants.flatten()
        true = links.flipped.among(texts)
        top = torch.full((len(flat),), LOWEST, device=flat.device)
        total = top.clone()

        def found(rows: Int64[Tensor, " rows"]) -> tuple[Float[Tensor, "rows flat"], Bool[Tensor, "rows flat"]]:
            return scores(chosen.images[rows], flat), true[:, rows].T.repeat_interleave(forms, dim=1)

        for rows in torch.arange(links.images, device=flat.device).split(max(1, mixture.CHUNK // max(1, len(flat)))):
            values, mine = found(rows)
            values = values.masked_fill(mine, LOWEST)
            top = torch.maximum(top, values.amax(dim=0))
            total = torch.logaddexp(total, values.logsumexp(dim=0))
        values, mine = found(images)
        partners = values.masked_fill(~mine, LOWEST).unflatten(1, variants.shape)
        best = partners.topk(min(2, len(images)), dim=0)
        second = best.values[1] if len(images) > 1 else torch.full_like(best.values[0], LOWEST)
        moving = torch.arange(len(images), device=images.device)[:, None, None]
        among = links.among(images)
        return cls(
            among[:, texts],
            among[:, columns],
            torch.where(moving == best.indices[0], second, best.values[0]),
            top.unflatten(0, variants.shape),
            total.unflatten(0, variants.shape),
            stands.own.first[columns],
            stands.others.without(images)[:, columns],
        )

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
        before, among = self.best_other[rows], self.among[rows]
        theirs = lead(self.best_own, torch.maximum(gallery, before))
        taken = nearness(theirs) - nearness(lead(self.best_own, before))
        harm = lost + taken.masked_fill(among, 0.0).sum(dim=1)
        # An image whose own texts are lost may still take the place of others' images.
        left = torch.cat([margins.masked_fill(~own, torch.inf), theirs.masked_fill(among, torch.inf)], dim=1)
        return {
            "margin": margins.masked_fill(~own, 0.0).sum(dim=1) / count,
            "entropy": entropy.masked_fill(~own, 0.0).sum(dim=1) / count,
            "count": harm,
            "judge": harm,
            "done": left.amin(dim=1) - DONE,
        }
