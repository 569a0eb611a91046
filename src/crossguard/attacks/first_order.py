"""First-order estimates of what a change of a word does to a score: one forward and backward for a whole batch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import normalize

from crossguard.attacks.candidates import Candidates
from crossguard.attacks.text_gradients import embedding_layer, token_gradients
from crossguard.attacks.text_score import EmbeddingScore, TextScore
from crossguard.attacks.words import split_words
from crossguard.models import VisionLanguageModel


@dataclass(frozen=True)
class FirstOrder:
    """The slope of the score at every word of some texts (HotFlip; Ebrahimi et al., ACL 2018).

    A word of several tokens stands for the sum of their gradients and for the mean of a replacement's embeddings.

    Args:
        starts: int64 [texts + 1], where the words of a text begin among all words.
        slope: float [words, width], gradient of the score to the embedding of a word.
        height: float [words], inner product of that gradient with the word's own embedding.
        mask: float [width], mean embedding of the mask token.
        embed: gives the mean token embedding of words, float [words, width].
    """

    starts: Int64[Tensor, " bounds"]
    slope: Float[Tensor, "words width"]
    height: Float[Tensor, " words"]
    mask: Float[Tensor, " width"]
    embed: Any

    @classmethod
    def of(cls, model: VisionLanguageModel, texts: Sequence[str], score: TextScore) -> "FirstOrder":
        """Differentiate a score at some texts.

        Raises:
            ValueError: a score that is not of embeddings, or a model whose tokens cannot be matched with words.
        """
        if not isinstance(score, EmbeddingScore):
            raise ValueError(
                "Expected a score of text embeddings (objective 'cosine' or 'contrastive', on two towers) for "
                f"gradients, but got {type(score).__name__}: rank words by 'mask', without a shortlist."
            )
        embedding: Any = embedding_layer(model)
        weight = embedding.weight.detach()
        owners = list(range(len(texts)))
        found = token_gradients(model, texts, lambda e: score.of_embeddings(normalize(e, dim=-1), owners))
        ids, mask = found.tokens.ids, found.tokens.mask
        counts = [len(split_words(text)) for text in texts]
        starts = torch.tensor([0, *counts]).cumsum(0)
        word = _word_of_token(model, texts, ids, mask, starts)
        kept = word >= 0
        gradient = found.gradient[kept]
        place = word[kept]
        slope = torch.zeros(int(starts[-1]), gradient.shape[1], device=gradient.device)
        slope.index_add_(0, place, gradient)
        height = torch.zeros(len(slope), device=gradient.device)
        height.index_add_(0, place, (gradient * weight[ids[kept]].float()).sum(dim=-1))
        embed = _Embedder(model, weight)
        return cls(starts, slope, height, embed([model.mask_token])[0], embed)

    def of_mask(self, text: int) -> list[float]:
        """Estimate, per word of a text, how the score changes when the word is hidden; lower is worse."""
        here = slice(int(self.starts[text]), int(self.starts[text + 1]))
        return [float(value) for value in self.slope[here] @ self.mask - self.height[here]]

    def shortened(self, proposals: Sequence[Candidates], *, limit: int) -> list[Candidates]:
        """Keep the candidates of every word whose estimated score is lowest, in their old order."""
        places = [
            (int(self.starts[j]) + i, c)
            for j, words in enumerate(proposals)
            for i, candidates in enumerate(words)
            for c in (candidates if len(candidates) > limit else ())
        ]
        if not places:
            return list(proposals)
        names = list(dict.fromkeys(candidate for _, candidate in places))
        number = {name: k for k, name in enumerate(names)}
        vectors = self.embed(names)
        which = torch.tensor([[place, number[candidate]] for place, candidate in places], device=vectors.device)
        estimates = iter((self.slope[which[:, 0]] * vectors[which[:, 1]]).sum(dim=-1).tolist())
        return [
            tuple(
                _lowest(candidates, estimates, limit) if len(candidates) > limit else candidates for candidates in words
            )
            for words in proposals
        ]


def _lowest(candidates: tuple[str, ...], estimates: Any, limit: int) -> tuple[str, ...]:
    values = [next(estimates) for _ in candidates]
    kept = sorted(sorted(range(len(candidates)), key=values.__getitem__)[:limit])
    return tuple(candidates[i] for i in kept)


class _Embedder:
    """The mean token embedding of words."""

    def __init__(self, model: Any, weight: Float[Tensor, "tokens width"]) -> None:
        self.tokenizer, self.weight = model.tokenizer, weight.float()

    def __call__(self, words: Sequence[str]) -> Float[Tensor, "words width"]:
        ids = self.tokenizer(list(words), add_special_tokens=False)["input_ids"]
        return torch.stack(
            [
                self.weight[torch.tensor(row, device=self.weight.device)].mean(dim=0) if row else 0 * self.weight[0]
                for row in ids
            ]
        )


def _word_of_token(
    model: Any,
    texts: Sequence[str],
    ids: Int64[Tensor, "texts length"],
    mask: Tensor,
    starts: Int64[Tensor, " bounds"],
) -> Int64[Tensor, "texts length"]:
    """Return which of all words each token is a part of; -1 for special tokens and padding."""
    if not getattr(model.tokenizer, "is_fast", False):
        raise ValueError(f"Expected a fast tokenizer (with positions in the text) for gradients of {model.name!r}.")
    encoded = model.tokenizer(
        list(texts), truncation=True, max_length=model.context_length, return_offsets_mapping=True
    )
    place = torch.full(ids.shape, -1, dtype=torch.int64)
    for row, (text, tokens, offsets) in enumerate(
        zip(texts, encoded["input_ids"], encoded["offset_mapping"], strict=True)
    ):
        if tokens != ids[row][mask[row]].tolist():
            raise ValueError(
                f"Expected {model.name!r} to read a text as its tokenizer does, so that tokens can be matched with "
                f"words, but it reads {text!r} differently."
            )
        words = split_words(text)
        at = mask[row].nonzero().squeeze(1).tolist()
        for position, (start, end) in zip(at, offsets, strict=True):
            owner = [i for i, word in enumerate(words) if start < word.end and end > word.start]
            if end > start and owner:
                place[row, position] = int(starts[row]) + owner[0]
    return place.to(ids.device)
