"""Word substitution after BERT-Attack (Li et al., EMNLP 2020), for a whole batch of texts at once."""

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from crossguard.attacks.base import Attack, Budgets
from crossguard.attacks.candidates import Candidates, CandidateSource, attackable
from crossguard.attacks.objectives import Objective
from crossguard.attacks.options import check_choice
from crossguard.attacks.sources import SourceLike, make_source
from crossguard.attacks.text_score import EmbeddingScore, TextScore, text_score
from crossguard.attacks.words import replace_word, split_words
from crossguard.data import PairBatch
from crossguard.models import VisionLanguageModel

Order = Literal["importance", "all"]
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
) -> tuple[str, ...]:
    """Substitute up to `words` words of every text, so that its score with its own images falls.

    BERT-Attack's scheme: words are ranked by the fall of the score when each is replaced by the model's mask token,
    and visited in that order; at a word, all candidates and the unchanged text are scored and the best is taken. All
    masked variants of all texts are encoded together, and so are the candidates of each round of visits.

    Args:
        model: the victim, in evaluation mode.
        texts: the originals.
        image_features: embeddings of images (clean or adversarial), constant; not needed with a `score`.
        positives: the links; a text without any stays as it is.
        words: most substitutions per text.
        source: where candidates come from.
        order: "importance" visits words as above; "all" scores every candidate of every word in each round and takes
            the best one (stronger, and dearer by about the number of attackable words).
        score: how variants are scored, see `text_score`; None is the mean cosine with the text's own images.

    Returns:
        One text per original; each substitution keeps the number of white-space words.

    Raises:
        ValueError: neither `image_features` nor a `score`.
    """
    if score is None:
        if image_features is None:
            raise ValueError("Expected `image_features` or a `score`, but got neither.")
        score = EmbeddingScore(model, image_features, positives, among_all=False)
    proposals = source.candidates(texts, model=model) if words else [() for _ in texts]
    states = [_Text(text, c) for text, c in zip(texts, proposals, strict=True)]
    linked = positives.any(dim=0).tolist()
    active = [j for j, state in enumerate(states) if linked[j] and state.open]
    if not active:
        return tuple(texts)
    _rank(score, states, active, mask=model.mask_token if order == "importance" else None)
    changes = np.zeros(len(states), dtype=np.int64)
    while active:
        variants = [states[j].variants(every=order == "all") for j in active]
        chosen = _argmin(score, [[text for _, text in v] for v in variants], active, states)
        still = []
        for j, options, pick in zip(active, variants, chosen, strict=True):
            state = states[j]
            if pick is not None:
                place, state.text = options[pick][0], options[pick][1]
                changes[j] += 1
                state.open.remove(place)
            elif order == "all":
                continue
            else:
                state.open.pop(0)
            if state.open and changes[j] < words:
                still.append(j)
        active = still
    return tuple(state.text for state in states)


class _Text:
    """One text under attack: as it stands, which words are still open to change, and its score."""

    def __init__(self, text: str, proposals: Candidates) -> None:
        self.text = text
        self.proposals = proposals
        cores = [word.core for word in split_words(text)] if proposals else []
        self.open = [i for i, core in enumerate(cores) if proposals[i] and attackable(core)]
        self.score = 0.0

    def masked(self, token: str) -> list[str]:
        """The text with each open word hidden, one at a time."""
        pieces = split_words(self.text)
        return [self.text[: pieces[i].start] + token + self.text[pieces[i].end :] for i in self.open]

    def variants(self, *, every: bool) -> list[tuple[int, str]]:
        """(word, text) for each candidate of the next word, or of every open word."""
        pieces = split_words(self.text)
        return [
            (i, replace_word(self.text, pieces[i], candidate))
            for i in (self.open if every else self.open[:1])
            for candidate in self.proposals[i]
        ]


def _rank(score: TextScore, states: list[_Text], active: list[int], *, mask: str | None) -> None:
    """Score the unchanged texts and, given a mask token, sort the open words of each by importance."""
    hidden = [states[j].masked(mask) if mask is not None else [] for j in active]
    flat = [states[j].text for j in active] + [text for group in hidden for text in group]
    owners = active + [j for j, group in zip(active, hidden, strict=True) for _ in group]
    scores = score(flat, owners)
    at = len(active)
    for position, (j, group) in enumerate(zip(active, hidden, strict=True)):
        states[j].score = float(scores[position])
        if group:
            ranks = np.argsort(scores[at : at + len(group)], kind="stable")
            states[j].open = [states[j].open[i] for i in ranks]
        at += len(group)


def _argmin(score: TextScore, variants: list[list[str]], active: list[int], states: list[_Text]) -> list[int | None]:
    """Return per text the variant of the lowest score, or None where none is below the text as it stands."""
    owners = [j for j, group in zip(active, variants, strict=True) for _ in group]
    scores = score([text for group in variants for text in group], owners)
    chosen: list[int | None] = []
    at = 0
    for j, group in zip(active, variants, strict=True):
        pick = int(np.argmin(scores[at : at + len(group)]))
        better = float(scores[at + pick]) < states[j].score - MARGIN
        if better:
            states[j].score = float(scores[at + pick])
        chosen.append(pick if better else None)
        at += len(group)
    return chosen


class WordSwap(Attack):
    """BERT-Attack on texts alone, against the clean images.

    Args:
        source: a name of the table of candidate sources, a mapping of its name and options, or a source of your own.
        order: "importance" or "all", see `swap_words`.
        objective: "cosine", "contrastive", "ranking", "match" or "distance", see `text_score`.

    Raises:
        ValueError: an unknown source, order or objective.
    """

    name = "word-swap"
    uses = frozenset({"text"})

    def __init__(
        self, *, source: SourceLike = "thesaurus", order: str = "importance", objective: str = "cosine"
    ) -> None:
        self.source = make_source(source)
        self.order: Order = check_choice(order, get_args(Order), "order")
        self.objective: Objective = check_choice(objective, get_args(Objective), "objective")

    def run(
        self, model: VisionLanguageModel, batch: PairBatch, *, budget: Budgets, seed: int
    ) -> tuple[Float[Tensor, "images 3 height width"], tuple[str, ...]]:
        """Attack the texts under the clean images."""
        return batch.pixels, self.texts(model, batch, batch.pixels, words=budget.words)

    @torch.no_grad()
    def texts(
        self,
        model: VisionLanguageModel,
        batch: PairBatch,
        pixels: Float[Tensor, "images 3 height width"],
        *,
        words: int,
        score: TextScore | None = None,
    ) -> tuple[str, ...]:
        """Attack the batch's texts from the originals, under any pixels of its images, or by another `score`."""
        if words == 0:
            return batch.texts
        if score is None:
            score = text_score(model, batch, pixels, objective=self.objective)
        return swap_words(
            model, batch.texts, None, batch.positives, words=words, source=self.source, order=self.order, score=score
        )
