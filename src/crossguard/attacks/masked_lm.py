"""Guesses of a masked language model for every word of the unchanged text (BERT-Attack; Li et al., EMNLP 2020)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from transformers import AutoModelForMaskedLM, AutoTokenizer

from crossguard.attacks.candidates import Candidates, attackable
from crossguard.attacks.meaning import keeps_meaning
from crossguard.attacks.words import split_words
from crossguard.models import VisionLanguageModel


class MaskedLM:
    """The words a masked language model finds likeliest at each word's own tokens; the text is not masked.

    A word of one token gets the top `limit` tokens with a logit of at least `min_logit`. A word of several tokens gets
    the `limit` likeliest combinations of its tokens' guesses, found by a beam, so that their number stays bounded; the
    first guess begins a word and the others continue it. What does not spell one word of letters is dropped.

    Args:
        model: folder or hub id of a Transformers masked language model, "bert-base-uncased" in the papers.
        limit: the most guesses per token, and candidates per word.
        min_logit: guesses below are dropped (0.3 in BERT-Attack).
        max_pieces: words of more tokens get no candidates.
        compat: read the logits one token to the left, as all published Co-Attack descendants do ([CLS] is at index 0
            of the logits but not of their word spans), let any token stand anywhere, and skip `keeps_meaning`, to
            repeat published tables.
        offline: look only at local files.
        texts_per_forward: batch size of the language model.

    Raises:
        ValueError: an option out of range, or a model that cannot be loaded.
    """

    name = "masked-lm"

    def __init__(
        self,
        *,
        model: Path | str,
        limit: int = 10,
        min_logit: float = 0.3,
        max_pieces: int = 4,
        compat: bool = False,
        offline: bool = False,
        texts_per_forward: int = 64,
    ) -> None:
        for option, value in (
            ("limit", limit),
            ("max_pieces", max_pieces),
            ("texts_per_forward", texts_per_forward),
        ):
            if value < 1:
                raise ValueError(f"Expected `{option}` >= 1, but got {value}.")
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(str(model), local_files_only=offline)
            self.network: Any = AutoModelForMaskedLM.from_pretrained(
                str(model), local_files_only=offline, use_safetensors=True
            ).eval()
        except (OSError, ValueError) as error:
            raise ValueError(f"Expected a masked language model in {model}, but got: {error}") from error
        if not self.tokenizer.is_fast:
            raise ValueError(f"Expected a fast tokenizer (with word positions) in {model}, but got a slow one.")
        self.network.requires_grad_(False)
        self.limit, self.min_logit, self.max_pieces = limit, min_logit, max_pieces
        self.compat, self.texts_per_forward = compat, texts_per_forward
        self._begins = _begins_word(self.tokenizer, self.network.config.vocab_size)
        self._special = torch.zeros(self.network.config.vocab_size, dtype=torch.bool)
        self._special[self.tokenizer.all_special_ids] = True
        self._known: dict[str, Candidates] = {}

    def candidates(self, texts: Sequence[str], *, model: VisionLanguageModel) -> list[Candidates]:
        """Return the language model's guesses; every text is asked once and remembered."""
        device = next(model.parameters()).device  # type: ignore[attr-defined]
        self.network.to(device)
        self._begins, self._special = self._begins.to(device), self._special.to(device)
        new = sorted({text for text in texts if text not in self._known}, key=len)
        for at in range(0, len(new), self.texts_per_forward):
            chunk = new[at : at + self.texts_per_forward]
            self._known.update(zip(chunk, self._guess(chunk), strict=True))
        return [self._known[text] for text in texts]

    @torch.no_grad()
    def _guess(self, texts: list[str]) -> list[Candidates]:
        cores = [[word.core.lower() for word in split_words(text)] for text in texts]
        encoded = self.tokenizer(
            cores,
            is_split_into_words=True,
            padding=True,
            truncation=True,
            max_length=min(self.tokenizer.model_max_length, self.network.config.max_position_embeddings),
            return_tensors="pt",
        ).to(self._begins.device)
        logits = self.network(**encoded).logits.float()
        places = [_places(encoded.word_ids(row)) for row in range(len(texts))]
        if not self.compat:
            logits = logits.masked_fill(~self._fits(places, logits.shape[1]), -torch.inf)
        raw, indices = logits.topk(min(self.limit, logits.shape[-1]), dim=-1)
        values = raw - logits.logsumexp(dim=-1, keepdim=True)
        shift = -1 if self.compat else 0
        results = []
        for row, words in enumerate(cores):
            answers: list[tuple[str, ...]] = []
            for i, core in enumerate(words):
                at = [position + shift for position in places[row].get(i, [])]
                asked = attackable(core) and 1 <= len(at) <= self.max_pieces
                answers.append(self._words(core, values[row, at], indices[row, at], raw[row, at]) if asked else ())
            results.append(tuple(answers))
        return results

    def _fits(self, places: list[dict[int, list[int]]], length: int) -> Bool[Tensor, "texts length tokens"]:
        """Which tokens may stand where: one that begins a word for a word's first piece, a continuation for others."""
        first = torch.zeros(len(places), length, 1, dtype=torch.bool)
        for row, words in enumerate(places):
            first[row, [positions[0] for positions in words.values()]] = True
        first = first.to(self._begins.device)
        return ~self._special & (first == self._begins)

    def _words(
        self,
        core: str,
        values: Float[Tensor, "pieces guesses"],
        indices: Int64[Tensor, "pieces guesses"],
        raw: Float[Tensor, "pieces guesses"],
    ) -> tuple[str, ...]:
        combinations = best_combinations(
            values.tolist(), indices.tolist(), (raw >= self.min_logit).tolist(), limit=self.limit
        )
        spelled = dict.fromkeys(self._spell(ids) for ids in combinations)
        if self.compat:
            return tuple(w for w in spelled if w != core and w.isalpha() and attackable(w))
        return tuple(w for w in spelled if keeps_meaning(core, w))

    def _spell(self, ids: tuple[int, ...]) -> str:
        tokens = self.tokenizer.convert_ids_to_tokens(list(ids))
        if any(i in self.tokenizer.all_special_ids for i in ids) or (len(ids) == 1 and tokens[0].startswith("##")):
            return ""
        return str(self.tokenizer.convert_tokens_to_string(tokens)).strip().lower()


def _places(word_ids: list[int | None]) -> dict[int, list[int]]:
    """Return the token positions of every word."""
    places: dict[int, list[int]] = {}
    for position, word in enumerate(word_ids):
        if word is not None:
            places.setdefault(word, []).append(position)
    return places


def _begins_word(tokenizer: Any, size: int) -> Bool[Tensor, " tokens"]:
    """Tell tokens that begin a word from continuations, by WordPiece's, byte-level BPE's or SentencePiece's mark."""
    tokens = tokenizer.convert_ids_to_tokens(list(range(min(size, len(tokenizer)))))
    marks = ("\u0120", "\u2581")
    if any(token.startswith(marks) for token in tokens):
        begins = [token.startswith(marks) for token in tokens]
    else:
        begins = [not token.startswith("##") for token in tokens]
    return torch.tensor(begins + [False] * (size - len(begins)))


def best_combinations(
    values: list[list[float]], ids: list[list[int]], allowed: list[list[bool]], *, limit: int
) -> list[tuple[int, ...]]:
    """Return the `limit` combinations of one guess per piece with the highest sum of values, best first.

    A beam as wide as `limit` is exact here, since the sum's parts are independent. At most limit * guesses sums are
    looked at per piece, however many pieces there are.

    Example:
        >>> best_combinations([[0.0, -1.0], [-0.5, -0.6]], [[1, 2], [3, 4]], [[True, True]] * 2, limit=3)
        [(1, 3), (1, 4), (2, 3)]
    """
    beam: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    for piece_values, piece_ids, piece_allowed in zip(values, ids, allowed, strict=True):
        longer = [
            (total + value, (*chosen, token))
            for total, chosen in beam
            for value, token, ok in zip(piece_values, piece_ids, piece_allowed, strict=True)
            if ok
        ]
        beam = sorted(longer, key=lambda entry: (-entry[0], entry[1]))[:limit]
    return [chosen for _, chosen in beam]
