"""`Edits`: how many elements of one modality an attacker substituted, inserted and deleted."""

from dataclasses import dataclass

from crossguard.certify.arguments import whole_number


@dataclass(frozen=True)
class Edits:
    """An exact number of edits of each kind to the elements of one modality.

    Insertions and deletions are meaningful where an element's content does not depend on its position (packed
    sub-sequences); substitutions always are.

    Args:
        substitutions: elements whose content is replaced.
        insertions: elements that are added.
        deletions: elements that are taken away.

    Raises:
        ValueError: a number is not a whole number >= 0.

    Example:
        >>> edits = Edits(insertions=2, deletions=1)
        >>> edits.size_after(10), edits.common(10)
        (11, 9)
    """

    substitutions: int = 0
    insertions: int = 0
    deletions: int = 0

    def __post_init__(self) -> None:
        for name in ("substitutions", "insertions", "deletions"):
            object.__setattr__(self, name, whole_number(getattr(self, name), name))

    def size_after(self, n: int) -> int:
        """Return n' = n + insertions - deletions, the number of elements after the edits."""
        return n + self.insertions - self.deletions

    def common(self, n: int) -> int:
        """Return e = n - deletions - substitutions, the number of elements the edits left alone."""
        return n - self.deletions - self.substitutions
