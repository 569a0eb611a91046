"""Word substitution after BERT-Attack (Li et al., EMNLP 2020), for a whole batch of texts at once."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import ClassVar, Literal, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from crossguard.attacks.base import Attack
from crossguard.attacks.budget import Budgets
from crossguard.attacks.candidates import CandidateSource, propose
from crossguard.attacks.first_order import FirstOrder
from crossguard.attacks.objectives import Objective
from crossguard.attacks.sources import SourceLike, make_source
from crossguard.attacks.text_score import DivergenceScore, EmbeddingScore, TextScore, text_score
from crossguard.attacks.towards import Chosen, ChosenScore
from crossguard.attacks.word_variants import EditedText
from crossguard.checks import check_choice
from crossguard.data import PairBatch
from crossguard.models import VisionLanguageModel
from crossguard.threat import WordEdit

Order = Literal["importance", "all"]
WordRanking = Literal["mask", "gradient"]
MARGIN = 1e-6
"""A change must lower the score by more than float32 noise, or the text stays as it is."""


@torch.no_grad()
def swap_words(
    model: VisionLanguageModel,
    texts: Sequence[str],
    image_features: Float[Tensor, "images dim"] | None,
    positives: Bool[Tensor, "images texts"],
    *,
    words: int,
    source: CandidateSource,
    order: Order = "importance",
    score: TextScore | None = None,
    kinds: Sequence[WordEdit] = ("substitution",),
    ranking: WordRanking = "mask",
    shortlist: int | None = None,
    importance: TextScore | None = None,
) -> tuple[str, ...]:
    """Edit up to `words` words of every text, so that its score with its own images falls.

    BERT-Attack's scheme: words are ranked by the fall of the score when each is replaced by the model's mask token,
    and visited in that order; at a word, all candidates and the unchanged text are scored and the best is taken. All
    masked variants of all texts are encoded together, and so are the candidates of each round of visits.

    Args:
        model: the victim, in evaluation mode.
        texts: the originals.
        image_features: embeddings of images (clean or adversarial), constant; not needed with a `score`.
        positives: the links; a text without any stays as it is.
        words: most edits per text.
        source: where candidates come from.
        order: "importance" visits words as above; "all" scores every candidate of every word in each round and takes
            the best one (stronger, and dearer by about the number of attackable words).
        score: how variants are scored, see `text_score`; None is the mean cosine with the text's own images.
        kinds: the edits that may be made: "substitution" by a candidate, "insertion" of a candidate before the word
            that it was proposed for, "deletion". Negations are neither inserted nor removed.
        ranking: "mask" hides one word after the other; "gradient" takes the first-order estimate of the same fall from
            one forward and backward, which is faster and less sure.
        shortlist: score only so many candidates per word, the first by a first-order estimate (HotFlip; Ebrahimi et
            al., ACL 2018); None: all.
        importance: how texts with a hidden word are scored to rank words by "mask"; None: by `score`.

    Returns:
        One text per original, at most `words` edits of the given kinds away (Levenshtein, in words), never empty.

    Raises:
        ValueError: neither `image_features` nor a `score`; gradients of a score that is not of embeddings, or of a
            model whose token embeddings cannot be looked into.
    """
    if score is None:
        if image_features is None:
            raise ValueError("Expected `image_features` or a `score`, but got neither.")
        score = EmbeddingScore(model, image_features, positives, among_all=False)
    # Deletions need no candidates.
    ask = source.candidates if set(kinds) == {"deletion"} else partial(propose, source)
    proposals = ask(texts, model=model) if words else [() for _ in texts]
    linked = positives.any(dim=0).tolist()
    active = [j for j, proposed in enumerate(proposals) if linked[j] and proposed]
    slope = None
    if active and (shortlist is not None or (ranking == "gradient" and order == "importance")):
        slope = FirstOrder.of(model, texts, score)
    if slope is not None and shortlist is not None:
        proposals = slope.shortened(proposals, limit=shortlist)
    states = [EditedText(text, c, kinds) for text, c in zip(texts, proposals, strict=True)]
    active = [j for j in active if states[j].open]
    if not active:
        return tuple(texts)
    if order == "importance" and ranking == "gradient" and slope is not None:
        for j in active:
            fall = slope.of_mask(j)
            states[j].open.sort(key=fall.__getitem__)
    masked = order == "importance" and ranking == "mask"
    _rank(score, importance or score, states, active, mask=model.mask_token if masked else None)
    changes = np.zeros(len(states), dtype=np.int64)
    while active:
        variants = [states[j].variants(every=order == "all") for j in active]
        chosen = _argmin(score, [[text for *_, text in v] for v in variants], active, states)
        still = []
        for j, options, (pick, value) in zip(active, variants, chosen, strict=True):
            state = states[j]
            if pick is not None:
                state.take(options[pick], value)
                changes[j] += 1
            elif order == "all":
                continue
            else:
                state.open.pop(0)
            if state.open and changes[j] < words:
                still.append(j)
        active = still
    return tuple(state.text for state in states)


def _rank(
    score: TextScore, importance: TextScore, states: list[EditedText], active: list[int], *, mask: str | None
) -> None:
    """Score the unchanged texts and, given a mask token, sort the open words of each by importance."""
    # The order of a single word is known.
    hidden = [states[j].masked(mask) if mask is not None and len(states[j].open) > 1 else [] for j in active]
    texts, masked = [states[j].text for j in active], [text for group in hidden for text in group]
    owners = [j for j, group in zip(active, hidden, strict=True) for _ in group]
    if importance is score or not masked:
        scores = score(texts + masked, active + owners)
    else:
        scores = np.concatenate([score(texts, active), importance(masked, owners)])
    at = len(active)
    for position, (j, group) in enumerate(zip(active, hidden, strict=True)):
        states[j].score = float(scores[position])
        if group:
            ranks = np.argsort(scores[at : at + len(group)], kind="stable")
            states[j].open = [states[j].open[i] for i in ranks]
        at += len(group)


def _argmin(
    score: TextScore, variants: list[list[str]], active: list[int], states: list[EditedText]
) -> list[tuple[int | None, float]]:
    """Return per text the variant of the lowest score, or None where none is below the text as it stands."""
    owners = [j for j, group in zip(active, variants, strict=True) for _ in group]
    scores = score([text for group in variants for text in group], owners) if owners else np.empty(0, np.float32)
    chosen: list[tuple[int | None, float]] = []
    at = 0
    for j, group in zip(active, variants, strict=True):
        here = scores[at : at + len(group)]
        pick = int(np.argmin(here)) if len(here) else None
        value = states[j].score if pick is None else float(here[pick])
        better = value < states[j].score - MARGIN
        chosen.append((pick, value) if better else (None, states[j].score))
        at += len(group)
    return chosen


class WordSwap(Attack):
    """BERT-Attack on texts alone, against the clean images.

    `compat=True` is the published attack, as Co-Attack and its descendants run it: words are ranked by
    KL(softmax(embedding of the text with the word hidden) || softmax(embedding of the text)), without the image, and
    visited in that order; candidates are chosen by `objective`, as here. The source "masked-lm", given by its name and
    options, is read as published too, unless it says `compat` itself. The descriptions that this follows leave open
    whether those embeddings are scaled to length one (here they are not) and what hides a word of a model without
    a mask token (here `model.mask_token`).

    Args:
        source: a name of the table of candidate sources, a mapping of its name and options, or a source of your own.
        order: "importance" or "all", see `swap_words`.
        objective: "cosine", "contrastive", "ranking", "match" or "distance", see `text_score`.
        ranking: how words are ranked, "mask" or "gradient", see `swap_words`.
        shortlist: how many candidates per word are scored, see `swap_words`; None: all.
        compat: repeat the published attack instead of our form of it.

    Raises:
        ValueError: an unknown source, order, objective or ranking, a `shortlist` below one, or `compat` with another
            order or ranking than the published one or with a `shortlist`.
    """

    name = "word-swap"
    uses = frozenset({"text"})
    aims: ClassVar[bool] = True

    def __init__(
        self,
        *,
        source: SourceLike = "thesaurus",
        order: str = "importance",
        objective: str = "cosine",
        ranking: str = "mask",
        shortlist: int | None = None,
        compat: bool = False,
    ) -> None:
        if shortlist is not None and shortlist < 1:
            raise ValueError(f"Expected `shortlist` >= 1 or None, but got {shortlist}.")
        self.order: Order = check_choice(order, get_args(Order), "order")
        self.objective: Objective = check_choice(objective, get_args(Objective), "objective")
        self.ranking: WordRanking = check_choice(ranking, get_args(WordRanking), "ranking")
        if compat and (order, ranking, shortlist) != ("importance", "mask", None):
            raise ValueError(
                "Expected order='importance', ranking='mask' and shortlist=None with compat=True, which repeats the "
                f"published attack, but got {order!r}, {ranking!r} and {shortlist}."
            )
        self.source = make_source(as_published(source) if compat else source)
        self.shortlist, self.compat = shortlist, compat

    def run(
        self, model: VisionLanguageModel, batch: PairBatch, *, budget: Budgets, seed: int
    ) -> tuple[Float[Tensor, "images 3 height width"], tuple[str, ...]]:
        """Attack the texts under the clean images."""
        return batch.pixels, self.texts(model, batch, batch.pixels, words=budget.words, kinds=budget.kinds)

    def run_towards(
        self, model: VisionLanguageModel, batch: PairBatch, chosen: Chosen, *, budget: Budgets, seed: int
    ) -> tuple[Float[Tensor, "images 3 height width"], tuple[str, ...]]:
        """Raise the likelihood of a chosen image among all."""
        score = ChosenScore(model, chosen, batch.texts)
        texts = self.texts(model, batch, batch.pixels, words=budget.words, score=score, kinds=budget.kinds)
        return batch.pixels, texts

    @torch.no_grad()
    def texts(
        self,
        model: VisionLanguageModel,
        batch: PairBatch,
        pixels: Float[Tensor, "images 3 height width"],
        *,
        words: int,
        score: TextScore | None = None,
        kinds: Sequence[WordEdit] = ("substitution",),
    ) -> tuple[str, ...]:
        """Attack the batch's texts from the originals, under any pixels of its images, or by another `score`."""
        if words == 0:
            return batch.texts
        if score is None:
            score = text_score(model, batch, pixels, objective=self.objective)
        return swap_words(
            model,
            batch.texts,
            None,
            batch.positives,
            words=words,
            source=self.source,
            order=self.order,
            score=score,
            kinds=kinds,
            ranking=self.ranking,
            shortlist=self.shortlist,
            importance=DivergenceScore(model, batch.texts) if self.compat else None,
        )


def as_published(source: SourceLike) -> SourceLike:
    """Let "masked-lm", given by its name and options, be read as published, unless it says `compat` itself."""
    if isinstance(source, Mapping) and source.get("name") == "masked-lm":
        return {"compat": True, **source}
    return source
