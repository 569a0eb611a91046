"""The texts of a batch under attack within a whole gallery: the worst variants of each, for every goal."""

from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from crossguard.attacks.budget import Budgets
from crossguard.attacks.candidates import Candidates, CandidateSource
from crossguard.attacks.encode import encode_texts
from crossguard.attacks.gallery import Found
from crossguard.attacks.gallery_scores import GalleryScores
from crossguard.attacks.mixture import SOFT, Chosen, Goal, Links, Standing, replacement_gains
from crossguard.attacks.objectives import product, unit
from crossguard.attacks.swap import Order, swap_words
from crossguard.attacks.text_score import Scores, TextScore
from crossguard.data import PairBatch
from crossguard.models import VisionLanguageModel

NOT_KEPT = 1 << 30
_SLOPE = 1e-3
"""What a logit of the mean cosine with the own images counts beside a failed query, so that no gain is ever flat."""
_BYTES = 1 << 28


class EncodedOnce:
    """Embeds lists of texts, and remembers the latest: every stage asks for the same variants again.

    A list is embedded as a whole or not at all, so that what comes out does not depend on what was asked before.
    """

    def __init__(self, model: VisionLanguageModel) -> None:
        self.model = model
        self._known: OrderedDict[bytes, Float[Tensor, "texts dim"]] = OrderedDict()
        self._bytes = 0

    def __call__(self, texts: Sequence[str]) -> Float[Tensor, "texts dim"]:
        """Return the embeddings."""
        key = blake2b("\0".join(texts).encode(), digest_size=16).digest()
        if key not in self._known:
            found = self._known[key] = encode_texts(self.model, texts)
            self._bytes += found.nbytes
            while self._bytes > _BYTES and len(self._known) > 1:
                self._bytes -= self._known.popitem(last=False)[1].nbytes
        return self._known[key]


class KnownSource:
    """A source of candidates that is asked once for every text."""

    def __init__(self, source: CandidateSource) -> None:
        self.source, self.name = source, source.name
        self._known: dict[str, Candidates] = {}

    def candidates(self, texts: Sequence[str], *, model: VisionLanguageModel) -> list[Candidates]:
        """Return the candidates, see `CandidateSource`."""
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if new:
            self._known |= zip(new, self.source.candidates(new, model=model), strict=True)
        return [self._known[text] for text in texts]


class GainScore:
    """What replacing a text by a variant gains the victim, in queries; see `TextScore`.

    Args:
        scores: what is ranked by.
        links: texts with images.
        chosen: the set as it stands.
        stands: how it fares.
        goal: what counts.
        owners: the texts of the batch, in the gallery.
        partners: float [texts, dim], the mean unit embedding of each one's images.
        scale: from cosines to logits.
        encoded: embeds texts.
    """

    def __init__(
        self,
        scores: GalleryScores,
        links: Links,
        chosen: Chosen,
        stands: tuple[Standing, Standing],
        goal: Goal,
        *,
        owners: Int64[Tensor, " texts"],
        partners: Float[Tensor, "texts dim"],
        scale: float,
        encoded: EncodedOnce,
    ) -> None:
        self.scores, self.links, self.chosen, self.goal = scores, links, chosen, goal
        self.stands = stands[::-1]
        self.owners, self.partners, self.scale, self.encoded = owners, partners, scale, encoded

    @torch.no_grad()
    def __call__(self, texts: Sequence[str], owners: Sequence[int]) -> Scores:
        """Score variants."""
        embeddings = self.encoded(texts)
        local = torch.tensor(owners, dtype=torch.int64, device=embeddings.device)
        whose = self.owners[local]

        def turned(some: Int64[Tensor, " some"], images: Int64[Tensor, " images"]) -> Float[Tensor, "some images"]:
            strings = [texts[k] for k in some.tolist()]
            return self.scores.with_texts(images, strings, embeddings[some], whose[some]).T

        gains = replacement_gains(
            turned,
            self.links,
            self.stands,
            self.chosen.images,
            (self.goal.ir, self.goal.tr),
            torch.arange(len(texts), device=whose.device),
            whose,
            SOFT,
        )
        own = self.scale * (unit(embeddings) * self.partners[local]).sum(dim=1)
        return (_SLOPE * own - self.links.images * gains).float().cpu().numpy()


class Remembered:
    """A text score that keeps what it has seen; what comes out of it is within the budget of who asked.

    Args:
        score: what is asked.
        originals: the unchanged texts.
        encoded: embeds texts.
        hidden: the mask token; variants with a hidden word are no texts to keep.
    """

    def __init__(self, score: TextScore, originals: Sequence[str], *, encoded: EncodedOnce, hidden: str) -> None:
        self.score, self.originals, self.encoded, self.hidden = score, originals, encoded, hidden
        self.seen: list[dict[str, tuple[float, Float[Tensor, " dim"]]]] = [{} for _ in originals]

    def __call__(self, texts: Sequence[str], owners: Sequence[int]) -> Scores:
        """Score variants, see `TextScore`."""
        scores, embeddings = self.score(texts, owners), self.encoded(texts)
        for row, (text, owner, value) in enumerate(zip(texts, owners, scores.tolist(), strict=True)):
            if self.hidden not in text or self.hidden in self.originals[owner]:
                self.seen[owner].setdefault(text, (value, embeddings[row]))
        return scores

    def worst(self, text: int, *, size: int) -> list[tuple[str, Float[Tensor, " dim"]]]:
        """Return the `size` worst variants of a text that were seen, and their embeddings, worst first."""
        seen = self.seen[text]
        return [(variant, seen[variant][1]) for variant in sorted(seen, key=lambda t: seen[t][0])[:size]]


def worst_texts(
    model: VisionLanguageModel,
    batch: PairBatch,
    places: tuple[Int64[Tensor, " images"], Int64[Tensor, " texts"]],
    scores: GalleryScores,
    links: Links,
    sets: Sequence[tuple[Chosen, tuple[Standing, Standing], Goal]],
    image_embeddings: Float[Tensor, "image_candidates dim"],
    *,
    most: int,
    budget: Budgets,
    encoded: EncodedOnce,
    source: KnownSource,
    order: Order,
    more: Sequence[TextScore] = (),
) -> Found:
    """Return the worst variants of a batch's texts, `most` for every goal, ranked.

    Args:
        model: the victim.
        batch: the texts, clean.
        places: which images and texts of the gallery the batch holds.
        scores: what is ranked by.
        links: images with texts of the gallery.
        sets: per goal, the set as it stands, how it fares, and the goal.
        image_embeddings: of all candidates.
        most: variants per text and goal.
        budget: of edits.
        encoded: embeds texts.
        source: of candidates.
        order: of words.
        more: other scores to lower.
    """
    images, texts = places
    turned = links.flipped
    shares = batch.positives.T.float()
    shares = shares / shares.sum(dim=1, keepdim=True).clamp(min=1)
    asked: list[TextScore] = [
        GainScore(
            scores,
            turned,
            chosen,
            stands,
            goal,
            owners=texts,
            partners=product(shares, unit(image_embeddings[chosen.images[images]])),
            scale=float(model.logit_scale.detach()),
            encoded=encoded,
        )
        for chosen, stands, goal in sets
    ]
    asked += more
    ranks: list[dict[str, list[int]]] = [{} for _ in batch.texts]
    embeddings: list[dict[str, Tensor]] = [{} for _ in batch.texts]
    for column, score in enumerate(asked):
        remembered = Remembered(score, batch.texts, encoded=encoded, hidden=model.mask_token)
        swap_words(
            model,
            batch.texts,
            None,
            batch.positives,
            words=budget.words,
            kinds=budget.kinds,
            source=source,
            order=order,
            score=remembered,
        )
        for j in range(len(batch.texts)):
            for rank, (text, embedding) in enumerate(remembered.worst(j, size=most)):
                ranks[j].setdefault(text, [NOT_KEPT] * len(asked))[column] = rank
                embeddings[j].setdefault(text, embedding)
    # In an order that does not depend on how many are kept.
    flat = [(j, text) for j, kept in enumerate(ranks) for text in sorted(kept, key=lambda t: (min(kept[t]), t))]
    dim = image_embeddings.shape[1]
    found = [embeddings[j][text].cpu().numpy() for j, text in flat]
    return Found(
        image_owners=np.empty(0, np.int64),
        image_tags=np.empty((0, 2), np.int64),
        grey=np.empty((0, *batch.pixels.shape[1:]), np.uint8),
        images=np.empty((0, dim), np.float32),
        text_owners=texts.cpu().numpy()[[j for j, _ in flat]].astype(np.int64),
        text_ranks=np.array([ranks[j][text] for j, text in flat], np.int64).reshape(-1, len(asked)),
        strings=tuple(text for _, text in flat),
        texts=np.stack(found) if found else np.empty((0, dim), np.float32),
    )
