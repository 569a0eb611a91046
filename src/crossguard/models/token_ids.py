"""From texts to token ids: each text is tokenised once, by its words where the tokenizer reads one word at a time."""

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from crossguard.models.base import Tokens

_MOST = 2**17
"""Texts, or words, of which ids are kept (some 30 MB); when there are more, all are forgotten."""
_BYTES = 4
_BY_CHARACTER = {"BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "StripAccents"}
_REPLACED = ((r"\s+", " "), ("['’]", ""), ("[^a-z]+", " "))
"""None of these joins two words."""
_SPLIT = {"Whitespace", "WhitespaceSplit", "BertPreTokenizer"}
_SPLIT_OF_CLIP = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def token_ids(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], *, most: int, padding_side: str | None = None
) -> Tokens:
    """Return what a tokenizer makes of texts, padded to the longest and cut at `most` tokens, on the CPU.

    Attacks ask for many texts that differ in one word, again and again: what was read before is put together from what
    is kept. The ids are those that the tokenizer itself gives.

    Args:
        tokenizer: in Transformers' format, with a padding token.
        texts: at least one.
        most: tokens of a text, special ones included.
        padding_side: "right" or "left"; None: the tokenizer's own.
    """
    rows = _reader(tokenizer, most)(tokenizer, texts)
    lengths = np.fromiter(map(len, rows), np.int64, len(rows)) // _BYTES
    places, longest = np.arange(lengths.max()), lengths.max()
    right = (padding_side or tokenizer.padding_side) == "right"
    mask = places < lengths[:, None] if right else places >= longest - lengths[:, None]
    ids = np.full(mask.shape, tokenizer.pad_token_id, np.int64)
    ids[mask] = np.frombuffer(b"".join(rows), np.int32)
    return Tokens(torch.from_numpy(ids), torch.from_numpy(mask))


class _Kept:
    """Remembers what is made of strings."""

    def __init__(self) -> None:
        self.known: dict[str, bytes] = {}

    def with_all(self, asked: Sequence[str], make: Callable[[list[str]], Iterable[bytes]]) -> dict[str, bytes]:
        """Return a dictionary that has at least what was asked for."""
        new = [text for text in dict.fromkeys(asked) if text not in self.known]
        if len(self.known) + len(new) > _MOST:
            self.known, new = {}, list(dict.fromkeys(asked))
        if new:
            self.known.update(zip(new, make(new), strict=True))
        return self.known


class _Reader:
    """The ids of texts, cut but not padded, as 32-bit numbers in bytes. It does not hold the tokenizer.

    Args:
        tokenizer: any.
        most: tokens of a text.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, most: int) -> None:
        self.settings, self.most = _settings(tokenizer, most), most
        self.texts, self.words = _Kept(), _Kept()
        words = isinstance(tokenizer, PreTrainedTokenizerFast) and _reads_words(tokenizer)
        self.frame = _frame(tokenizer) if words else None

    def __call__(self, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[bytes]:
        if self.frame is None or not all(map(_plain, texts)):
            known = self.texts.with_all(texts, lambda new: _of_texts(tokenizer, new, self.most))
            return [known[text] for text in texts]
        before, after = self.frame
        room = max(0, _BYTES * self.most - len(before) - len(after))
        split = [text.split() for text in texts]
        ids = self.words.with_all([word for words in split for word in words], lambda new: _of_words(tokenizer, new))
        return [before + b"".join([ids[word] for word in words])[:room] + after for words in split]


def _of_texts(tokenizer: PreTrainedTokenizerBase, texts: list[str], most: int) -> list[bytes]:
    return [_packed(ids) for ids in tokenizer(texts, truncation=True, max_length=most)["input_ids"]]


def _of_words(tokenizer: PreTrainedTokenizerBase, words: list[str]) -> list[bytes]:
    return [_packed(ids) for ids in tokenizer(words, add_special_tokens=False)["input_ids"]]


_READERS: "WeakKeyDictionary[PreTrainedTokenizerBase, _Reader]" = WeakKeyDictionary()


def _reader(tokenizer: PreTrainedTokenizerBase, most: int) -> _Reader:
    """Return the reader of a tokenizer as it stands: with other tokens or settings it reads anew."""
    reader = _READERS.get(tokenizer)
    if reader is None or reader.settings != _settings(tokenizer, most):
        reader = _READERS[tokenizer] = _Reader(tokenizer, most)
    return reader


def _settings(tokenizer: PreTrainedTokenizerBase, most: int) -> tuple[object, ...]:
    return most, len(tokenizer), tokenizer.truncation_side, getattr(tokenizer, "split_special_tokens", False)


def _packed(ids: Sequence[int]) -> bytes:
    return np.array(ids, np.int32).tobytes()


def _plain(text: str) -> bool:
    """Whether Python and every tokenizer agree on where words end."""
    return text.isascii() and text.isprintable()


def _reads_words(tokenizer: PreTrainedTokenizerFast) -> bool:
    """Whether plain texts are read one white-space word at a time, as those of CLIP, BERT and word lists are."""
    backend, plain = tokenizer.backend_tokenizer, PreTrainedTokenizerFast
    ways = ("__call__", "_encode_plus")
    return (
        all(getattr(type(tokenizer), way) is getattr(plain, way) for way in ways)
        and tokenizer.truncation_side == "right"
        and type(backend.model).__name__ in ("WordLevel", "WordPiece", "BPE")
        and not getattr(backend.model, "dropout", None)
        and all(token.content.split() == [token.content] for token in backend.get_added_tokens_decoder().values())
        and all(map(_keeps_words, _parts(backend.normalizer, "normalizers")))
        and _splits(_parts(backend.pre_tokenizer, "pretokenizers"))
    )


def _parts(part: Any, name: str) -> list[dict[str, Any]]:
    """Return what a part of a tokenizer is made of."""
    if part is None:
        return []
    state: dict[str, Any] = json.loads(part.__getstate__())
    found: list[dict[str, Any]] = state[name] if state["type"] == "Sequence" else [state]
    return found


def _keeps_words(normalizer: dict[str, Any]) -> bool:
    if normalizer["type"] == "Replace":
        return (normalizer["pattern"].get("Regex"), normalizer["content"]) in _REPLACED
    return normalizer["type"] in _BY_CHARACTER


def _splits(parts: list[dict[str, Any]]) -> bool:
    if len(parts) == 1:
        return parts[0]["type"] in _SPLIT
    if len(parts) != 2:
        return False
    first, second = parts
    return (
        first["type"] == "Split"
        and first["pattern"].get("Regex") == _SPLIT_OF_CLIP
        and (first["behavior"], first["invert"]) == ("Removed", True)
        and second["type"] == "ByteLevel"
        and not second["add_prefix_space"]
    )


def _frame(tokenizer: PreTrainedTokenizerBase) -> tuple[bytes, bytes] | None:
    """Return the ids before and after those of a text; None where a short text does not tell."""
    inner, whole = (tokenizer(["a"], add_special_tokens=added)["input_ids"][0] for added in (False, True))
    places = [at for at in range(len(whole) - len(inner) + 1) if whole[at : at + len(inner)] == inner]
    if not inner or len(places) != 1:
        return None
    return _packed(whole[: places[0]]), _packed(whole[places[0] + len(inner) :])
