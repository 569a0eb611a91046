"""One text under attack: which words are still open, and every variant that one more edit makes of it."""

from collections.abc import Sequence

from crossguard.attacks.candidates import Candidates, attackable
from crossguard.attacks.stopwords import is_negation
from crossguard.attacks.words import delete_word, insert_word, replace_word, split_words
from crossguard.threat import WordEdit

Variant = tuple[int, WordEdit, str]
"""The original word that an edit is at, the kind of edit, and the text that comes of it."""


class EditedText:
    """A text, edited at most once at each of its own words.

    Each edit is one step of the Levenshtein distance in words: a word is substituted, another is inserted before it,
    or it is deleted. Stop words and negations are never deleted, negations never inserted.

    Args:
        text: the original.
        proposals: per word the candidates to substitute or to insert; empty: nothing is open.
        kinds: the kinds of edit.
    """

    def __init__(self, text: str, proposals: Candidates, kinds: Sequence[WordEdit] = ("substitution",)) -> None:
        self.text = text
        self.proposals = proposals
        self.kinds = tuple(kinds)
        cores = [word.core for word in split_words(text)] if proposals else []
        deletes = "deletion" in self.kinds
        self.open = [i for i, core in enumerate(cores) if (deletes or proposals[i]) and attackable(core)]
        self.score = 0.0
        self._place = list(range(len(cores)))  # of every original word in the text as it stands

    def masked(self, token: str) -> list[str]:
        """The text with each open word hidden, one at a time."""
        pieces = split_words(self.text)
        hidden = [pieces[self._place[i]] for i in self.open]
        return [self.text[: piece.start] + token + self.text[piece.end :] for piece in hidden]

    def variants(self, *, every: bool) -> list[Variant]:
        """Every edit at the next open word, or at all of them."""
        pieces = split_words(self.text)
        found: list[Variant] = []
        for i in self.open if every else self.open[:1]:
            piece = pieces[self._place[i]]
            if "substitution" in self.kinds:
                found += [(i, "substitution", replace_word(self.text, piece, c)) for c in self.proposals[i]]
            if "insertion" in self.kinds:
                inserted = (c for c in self.proposals[i] if not is_negation(c))
                found += [(i, "insertion", insert_word(self.text, piece, c)) for c in inserted]
            if "deletion" in self.kinds and len(pieces) > 1:
                found.append((i, "deletion", delete_word(self.text, piece)))
        return found

    def take(self, variant: Variant, score: float) -> None:
        """Make a variant the text, and close its word."""
        i, kind, self.text = variant
        self.score = score
        self.open.remove(i)
        shift = {"substitution": 0, "insertion": 1, "deletion": -1}[kind]
        at = self._place[i]
        self._place = [place + shift if place >= at else place for place in self._place]
