"""Texts that a model cannot read to the end: counted before training, and said."""

import warnings
from collections.abc import Sequence

import numpy as np

from crossguard.models import VisionLanguageModel

_AT_ONCE = 4096


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


def _lengths(model: VisionLanguageModel, texts: Sequence[str]) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    parts = [
        model.tokenize(texts[start : start + _AT_ONCE]).mask.sum(dim=1).numpy()
        for start in range(0, len(texts), _AT_ONCE)
    ]
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)
