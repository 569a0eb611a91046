"""What a model cannot see of texts: what lies beyond its context, and differences that its tokenizer drops."""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
from jaxtyping import Int64

from crossguard.checks import shown
from crossguard.data import OneToManyPairs
from crossguard.data.pairs import Links
from crossguard.models.base import VisionLanguageModel

_AT_ONCE = 4096
Pairs = TypeVar("Pairs", bound=OneToManyPairs)


def cut_texts(model: VisionLanguageModel, texts: Sequence[str]) -> list[int]:
    """Return the indices of the texts that `model.tokenize` cuts.

    A text is cut if it gives fewer tokens than its words do one by one, and either fills the context or stays the same
    without its last word (families that cut after a number of words).

    Args:
        model: its tokenizer and context are asked.
        texts: whole texts.
    """
    lengths = _lengths(model, texts)
    words = list(dict.fromkeys(word for text in texts for word in text.split()))
    frame = int(2 * _lengths(model, ["a"])[0] - _lengths(model, ["a a"])[0])
    alone = dict(zip(words, (_lengths(model, words) - frame).tolist(), strict=True))
    whole = np.array([frame + sum(alone[word] for word in text.split()) for text in texts])
    short = [int(i) for i in np.flatnonzero(lengths < whole)]
    without_last = _lengths(model, [" ".join(texts[i].split()[:-1]) or texts[i] for i in short])
    full = (lengths[short] >= model.context_length) | (without_last == lengths[short])
    return [i for i, cut in zip(short, full, strict=True) if cut]


def report_cut_texts(model: VisionLanguageModel, texts: Sequence[str]) -> int:
    """Count the texts that are cut, and warn if there are any.

    Returns:
        How many.
    """
    found = cut_texts(model, texts)
    if found:
        warnings.warn(
            f"{len(found)} of {len(texts)} texts are longer than the {model.context_length} tokens that {model.name!r} "
            f"reads and are cut, the first: {texts[found[0]][:80]!r}",
            stacklevel=2,
        )
    return len(found)


def same_tokens(model: VisionLanguageModel, texts: Sequence[str]) -> Int64[np.ndarray, " texts"]:
    """Return for every text the index of the first one that gives the model the same tokens; its own, if none does.

    Args:
        model: its tokenizer is asked: capitals, punctuation and what lies beyond the context may make no difference.
        texts: the texts.
    """
    first: dict[bytes, int] = {}
    same = np.arange(len(texts))
    for start in range(0, len(texts), _AT_ONCE):
        tokens = model.tokenize(texts[start : start + _AT_ONCE])
        for row, (ids, mask) in enumerate(zip(tokens.ids.numpy(), tokens.mask.numpy(), strict=True), start=start):
            same[row] = first.setdefault(ids[mask].tobytes(), row)
    return same


def linked_as_read(model: VisionLanguageModel, pairs: Pairs) -> Pairs:
    """Return the pairs with texts that the model cannot tell apart linked to the same images, and a note on them.

    Whatever pushed such a text away from a picture of another would push a true pair apart; whatever ranks them sees a
    tie. Pairs without such texts are returned as they are.
    """
    same = same_tokens(model, pairs.texts)
    links = _linked_alike(pairs.links, same)
    if len(links) == len(pairs.links):
        return pairs
    before, after = (np.bincount(given[:, 1], minlength=len(same)) for given in (pairs.links, links))
    changed = np.flatnonzero(after > before)
    first = changed[0]
    other = next(j for j in np.flatnonzero(same == same[first]).tolist() if j != first)
    note = (
        f"{len(changed)} of {len(same)} texts differ from another in what {model.name!r} does not read "
        f"({shown(pairs.texts[first], most=80)}, {shown(pairs.texts[other], most=80)}): linked to the same images"
    )
    own = None if pairs.own_links is None else _linked_alike(pairs.own_links, same)
    return replace(pairs, links=links, own_links=own, notes=(*pairs.notes, note))


def _linked_alike(links: Links, same: Int64[np.ndarray, " texts"]) -> Int64[np.ndarray, "more 2"]:
    """Return links of every text with all images of the texts that are the same."""
    owned = np.unique(np.stack([links[:, 0], same[links[:, 1]]], axis=1), axis=0)
    members = np.argsort(same, kind="stable")
    first, counts = (np.searchsorted(same[members], owned[:, 1], side=side) for side in ("left", "right"))
    counts = counts - first
    steps = np.arange(counts.sum()) - np.repeat(counts.cumsum() - counts, counts)
    texts = members[np.repeat(first, counts) + steps]
    return np.stack([np.repeat(owned[:, 0], counts), texts], axis=1)


def _lengths(model: VisionLanguageModel, texts: Sequence[str]) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    parts = [
        model.tokenize(texts[start : start + _AT_ONCE]).mask.sum(dim=1).numpy()
        for start in range(0, len(texts), _AT_ONCE)
    ]
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)
