"""`Table`: the rows of a kind of part (attacks, models, ...) by name, the package's own and a user's."""

from collections.abc import Iterable
from typing import Protocol, TypeVar, runtime_checkable

from crossguard.checks import nearest


@runtime_checkable
class Named(Protocol):
    """A row of a table."""

    @property
    def name(self) -> str:
        """What it is called in recipes."""
        ...


Row = TypeVar("Row", bound=Named)

OWN_PARTS = "Parts of your own come in by `--import FILE.py`."


class Table(dict[str, Row]):
    """Rows by name; a `register_...` function adds rows of one's own.

    Args:
        what: what a row is, in words ("attack").
        rows: the package's own.
    """

    def __init__(self, what: str, rows: Iterable[Row]) -> None:
        super().__init__((row.name, row) for row in rows)
        self.what = what
        self.built_in = frozenset(self)

    def find(self, name: str) -> Row:
        """Return the row of a name.

        Raises:
            ValueError: there is none; the nearest name is given.
        """
        if name not in self:
            raise ValueError(f"Unknown {self.what} {name!r}: {nearest(name, self)}. {OWN_PARTS}")
        return self[name]

    def register(self, row: Row) -> None:
        """Add a row of one's own; one that was registered before under the same name is replaced.

        Raises:
            ValueError: the name is one of the package's.
        """
        if row.name in self.built_in:
            raise ValueError(
                f"Expected another name for your {self.what}, but {row.name!r} is one of crossguard's own."
            )
        self[row.name] = row
