"""Attacks on retrieval towards one chosen item: images that are to find a chosen text, texts a chosen image."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from crossguard.attacks.ascent import LossPerSample, Pixels
from crossguard.attacks.objectives import product, unit
from crossguard.attacks.ranking import NEGATIVES, image_states, match_scores, text_states
from crossguard.attacks.text_score import Scores, score_in_parts
from crossguard.models import FusionModel, States, VisionLanguageModel


@dataclass(frozen=True)
class Chosen:
    """An item that queries are to find first, and what it stands among.

    Args:
        gallery: float [items, dim], embeddings of all that is searched, texts for images or images for texts.
        places: int64 [same], the item's place, and those of items that the model cannot tell from it.
        owners: int64 [queries], ids of the images or texts that the item belongs to; they are left as they are.
        read: gives the states of some items by their places, as `FusionModel.match` reads them.
    """

    gallery: Float[Tensor, "items dim"]
    places: Int64[Tensor, " same"]
    owners: Int64[Tensor, " queries"]
    read: Callable[[list[int]], States]

    def logits(self, model: VisionLanguageModel, queries: States) -> Float[Tensor, "queries items"]:
        """Return the cosines with all items, as logits; differentiable."""
        scale = model.logit_scale.detach()
        return scale * product(unit(queries.embedding.float()), unit(self.gallery.float()).T)

    def likelihood(
        self, model: VisionLanguageModel, queries: States, contest: "Contest | None", rows: Int64[Tensor, " queries"]
    ) -> Float[Tensor, " queries"]:
        """Return the log-likelihood of the item among all by the cosine; with a contest plus that among its rivals.

        Args:
            model: the victim.
            queries: of `image_states` or `text_states`; differentiable.
            contest: of a fusion model.
            rows: which of the contest's queries they are.
        """
        found = self.logits(model, queries).log_softmax(dim=1)[:, self.places].logsumexp(dim=1)
        return found if contest is None else found + contest.likelihood(queries, rows)

    @torch.no_grad()
    def contest(self, model: VisionLanguageModel, queries: States, *, images: bool) -> "Contest | None":
        """Return the item and the others nearest to each query by cosine, for a fusion model to match; else None."""
        if not isinstance(model, FusionModel):
            return None
        near = self.logits(model, queries).index_fill(1, self.places, -torch.inf)
        rivals = near.topk(min(NEGATIVES, near.shape[1] - len(self.places)), dim=1).indices
        items, place = torch.unique(rivals, return_inverse=True)
        states = self.read([int(self.places[0]), *items.tolist()])
        first = torch.zeros(len(place), 1, dtype=torch.int64, device=place.device)
        return Contest(model, states, torch.cat([first, 1 + place], dim=1), images)

    def of_images(self, model: VisionLanguageModel, pixels: Pixels) -> LossPerSample:
        """Return what attacks raise on images, whose clean pixels say what a fusion model is asked about."""
        with torch.no_grad():
            contest = self.contest(model, image_states(model, pixels), images=True)
        rows = torch.arange(len(pixels), device=pixels.device)

        def likelier(moved: Pixels) -> Float[Tensor, " images"]:
            return self.likelihood(model, image_states(model, moved), contest, rows)

        return likelier


@dataclass(frozen=True)
class Contest:
    """A chosen item and its rivals, as a fusion model ranks them for some queries.

    Args:
        model: the victim.
        states: of the item, first, and of all rivals.
        asked: int64 [queries, 1 + rivals], places in `states` that each query is asked about; the first is the item.
        images: whether the queries are images.
    """

    model: FusionModel
    states: States
    asked: Int64[Tensor, "queries more"]
    images: bool

    def likelihood(self, queries: States, rows: Int64[Tensor, " some"]) -> Float[Tensor, " some"]:
        """Return the log-likelihood of the item among its rivals, by what the model ranks by; differentiable."""
        asked = self.asked[rows]
        own = torch.arange(len(asked), device=asked.device)[:, None].expand_as(asked)
        ends = (own, asked) if self.images else (asked, own)
        pairs = torch.stack([end.flatten() for end in ends], dim=1)
        sides = (queries, self.states) if self.images else (self.states, queries)
        return match_scores(self.model, *sides, pairs).view(asked.shape).log_softmax(dim=1)[:, 0]


class ChosenScore:
    """How unlikely a text makes the chosen image: what text attacks lower (see `TextScore`).

    Args:
        model: the victim, in evaluation mode.
        chosen: the image.
        texts: the originals.
    """

    def __init__(self, model: VisionLanguageModel, chosen: Chosen, texts: Sequence[str]) -> None:
        self.model, self.chosen = model, chosen
        self._contest = chosen.contest(model, text_states(model, texts), images=False)

    @torch.no_grad()
    def __call__(self, texts: Sequence[str], owners: Sequence[int]) -> Scores:
        """Score variants."""
        return score_in_parts(self._score, texts, owners) if len(texts) else np.zeros(0, np.float32)

    def _score(self, variants: Sequence[tuple[str, int]]) -> Float[Tensor, " variants"]:
        states = text_states(self.model, [text for text, _ in variants])
        rows = torch.tensor([owner for _, owner in variants], device=self.chosen.gallery.device)
        return -self.chosen.likelihood(self.model, states, self._contest, rows)
