"""Remembering the worst variants of texts while a text attack scores them."""

from collections.abc import Sequence

from crossguard.attacks.text_score import Scores, TextScore


class Remember:
    """A text score that keeps what it has seen; what comes out of it is within the budget of who asked.

    Args:
        score: what is asked.
        originals: the unchanged texts.
        hidden: the mask token; variants with a hidden word are no texts to keep.
    """

    def __init__(self, score: TextScore, originals: Sequence[str], *, hidden: str) -> None:
        self.score, self.originals, self.hidden = score, originals, hidden
        self.seen: list[dict[str, float]] = [{} for _ in originals]

    def __call__(self, texts: Sequence[str], owners: Sequence[int]) -> Scores:
        """Score variants, see `TextScore`."""
        scores = self.score(texts, owners)
        for text, owner, value in zip(texts, owners, scores.tolist(), strict=True):
            if self.hidden not in text or self.hidden in self.originals[owner]:
                self.seen[owner][text] = value
        return scores

    def worst(self, first: Sequence[str], *, size: int) -> list[tuple[str, ...]]:
        """Return `size` sets of texts: the given ones, then the worst variants seen of each text, worst first.

        Where fewer were seen, the given text stands in.
        """
        ranked = [
            [text, *sorted((t for t in seen if t != text), key=seen.__getitem__)[: size - 1]]
            for text, seen in zip(first, self.seen, strict=True)
        ]
        return [tuple(row[rank if rank < len(row) else 0] for row in ranked) for rank in range(size)]
