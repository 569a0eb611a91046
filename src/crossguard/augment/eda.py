"""EDA, easy data augmentation of texts (Wei & Zou, EMNLP 2019), with the shipped thesaurus."""

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from crossguard.attacks import Thesaurus
from crossguard.augment.base import Made, MadeText, Request, Side, dice
from crossguard.augment.word_edits import EDITS, Edit
from crossguard.checks import lookup
from crossguard.data import OneToManyPairs

_TRIES = 4


class EDA:
    """Synonym replacement, random insertion of synonyms, random swap, random deletion.

    Each text gets one kind of edit; the samples of a text take the kinds in turn, in an order of its own. An edit that
    leaves the text as it was, or gives an earlier sample of it again, is drawn anew, then the next kind is tried; very
    short texts can have fewer samples than asked for.

    Args:
        alpha: share of a text's words that are edited, at least one word; the paper recommends 0.1 and less than 0.3.
        edits: the kinds of edit in use.
        broader: whether broader words ("cat" -> "feline") stand in for synonyms: "never", "fallback" (for words
            without synonyms) or "always".

    Raises:
        ValueError: `alpha` not in (0, 1], no or unknown edits, an unknown `broader`.
    """

    name = "eda"
    per: Side = "texts"
    block = 2048

    def __init__(
        self, *, alpha: float | int = 0.1, edits: Sequence[Edit | str] = get_args(Edit), broader: str = "never"
    ) -> None:
        if not 0 < alpha <= 1:
            raise ValueError(f"Expected `alpha` in (0, 1], but got {alpha}.")
        if not edits:
            raise ValueError("Expected at least one of `edits`, but got none.")
        known = {str(edit): editor for edit, editor in EDITS.items()}
        self._editors = [lookup(known, edit, what="edit") for edit in edits]
        self._thesaurus = Thesaurus(broader=broader)
        self.alpha = alpha
        self.options: Mapping[str, Any] = {"alpha": alpha, "edits": list(edits), "broader": broader}

    def make_texts(self, pairs: OneToManyPairs, items: Sequence[int], request: Request) -> list[list[MadeText]]:
        """Return, per text, different texts that mean the same."""
        return [
            [Made(text, texts=(item,)) for text in self.variants(pairs.texts[item], request.count, seed=request.seed)]
            for item in items
        ]

    def variants(self, text: str, count: int, *, seed: int) -> list[str]:
        """Return at most `count` edits of a text, all different from it and from each other.

        Example:
            >>> EDA(edits=["swap"]).variants("red sofa", 4, seed=0)
            ['sofa red']
        """
        words = max(1, round(self.alpha * len(text.split())))
        editors = dice(seed, self.name, text).sample(self._editors, len(self._editors))
        found: dict[str, None] = {}
        for draw in range(count):
            chance = dice(seed, self.name, text, draw)
            turn = draw % len(editors)
            for editor in (editors[turn:] + editors[:turn]) * _TRIES:
                new = editor(text, words, chance, self._thesaurus)
                if new != text and new not in found:
                    found[new] = None
                    break
        return list(found)
