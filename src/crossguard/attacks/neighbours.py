"""Nearest whole words in the victim's own token embedding."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from crossguard.attacks.candidates import Candidates, attackable
from crossguard.attacks.meaning import keeps_meaning
from crossguard.attacks.text_gradients import embedding_layer
from crossguard.attacks.words import split_words
from crossguard.models import VisionLanguageModel


class EmbeddingNeighbours:
    """Words whose token embeddings have the highest cosine with the word's own, in the model under attack.

    Works for models with a Hugging Face `tokenizer` and a Transformers `network` (all adapters here). Only words that
    are one whole token are known, as sources and as candidates. Neighbours share use, which opposites and colours do
    too: those pass through `keeps_meaning`.

    Args:
        limit: the most candidates per word.
        min_cosine: candidates below are dropped.

    Raises:
        ValueError: an option out of range; at the call, a model without token embeddings to look into.
    """

    name = "embedding"

    def __init__(self, *, limit: int = 10, min_cosine: float = 0.0) -> None:
        if limit < 1:
            raise ValueError(f"Expected `limit` >= 1, but got {limit}.")
        if not -1 <= min_cosine <= 1:
            raise ValueError(f"Expected `min_cosine` in [-1, 1], but got {min_cosine}.")
        self.limit, self.min_cosine = limit, min_cosine
        self._vocabularies: WeakKeyDictionary[Any, _Vocabulary] = WeakKeyDictionary()

    def candidates(self, texts: Sequence[str], *, model: VisionLanguageModel) -> list[Candidates]:
        """Return neighbours for every word that is one token of the model."""
        weight = token_embedding(model)
        if model not in self._vocabularies:
            self._vocabularies[model] = _Vocabulary.of(model.tokenizer)  # type: ignore[attr-defined]
        vocabulary = self._vocabularies[model]
        vocabulary.forget_unless(weight)
        pieces = [[word.core.lower() for word in split_words(text)] for text in texts]
        wanted = {core for cores in pieces for core in cores if attackable(core)}
        self._learn(vocabulary, weight, sorted(wanted & vocabulary.tokens.keys() - vocabulary.known.keys()))
        return [tuple(vocabulary.known.get(core, ()) for core in cores) for cores in pieces]

    @torch.no_grad()
    def _learn(self, vocabulary: "_Vocabulary", weight: Float[Tensor, "tokens dim"], words: list[str]) -> None:
        if not words:
            return
        names = list(vocabulary.tokens)
        table = normalize(weight[torch.tensor(list(vocabulary.tokens.values()), device=weight.device)].float(), dim=-1)
        rows = normalize(
            weight[torch.tensor([vocabulary.tokens[w] for w in words], device=weight.device)].float(), dim=-1
        )
        # Twice the limit and more: some are refused for their meaning.
        cosines, nearest = (rows @ table.T).topk(min(len(names), 2 * self.limit + 16), dim=1)
        for word, values, indices in zip(words, cosines.tolist(), nearest.tolist(), strict=True):
            near = [names[i] for value, i in zip(values, indices, strict=True) if value >= self.min_cosine]
            vocabulary.known[word] = tuple(w for w in near if keeps_meaning(word, w))[: self.limit]


def token_embedding(model: VisionLanguageModel) -> Float[Tensor, "tokens dim"]:
    """Return the weight of a model's token embedding.

    Raises:
        ValueError: the model has no `tokenizer`, or no `network` with token embeddings.
    """
    try:
        weight: Tensor = embedding_layer(model).weight  # type: ignore[assignment]
    except ValueError as error:
        raise ValueError(f"{error} Use the 'thesaurus' source.") from error
    return weight


@dataclass
class _Vocabulary:
    """The whole words of one tokenizer by token id, and the neighbours found so far for one state of the weights."""

    tokens: dict[str, int]
    known: dict[str, tuple[str, ...]] = field(default_factory=dict)
    state: tuple[int, int] = (0, 0)

    @classmethod
    def of(cls, tokenizer: Any) -> "_Vocabulary":
        pieces = {tokenizer.convert_tokens_to_string([piece]).strip(): i for piece, i in tokenizer.get_vocab().items()}
        words = [word for word in pieces if word.isalpha() and word.islower()]
        if not words:
            return cls({})
        encoded = tokenizer(words, add_special_tokens=False)["input_ids"]
        return cls(
            {
                word: ids[0]
                for word, ids in zip(words, encoded, strict=True)
                if len(ids) == 1 and ids[0] not in tokenizer.all_special_ids
            }
        )

    def forget_unless(self, weight: Tensor) -> None:
        """Forget neighbours when the weights have been trained on since (their version counter moved)."""
        state = (weight.data_ptr(), weight._version)
        if state != self.state:
            self.state = state
            self.known.clear()
