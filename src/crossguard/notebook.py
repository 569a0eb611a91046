"""How values show themselves: one line where they are printed, tables and plots in notebooks."""

from importlib import import_module


class Shown:
    """A value with a `repr` of one line, which notebooks show as HTML."""

    def told(self) -> str:
        """Return what it is, in one line."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.told()})"

    def _repr_html_(self) -> str:
        html: str = import_module("crossguard.report.notebook").as_html(self)  # a higher room, looked up when asked
        return html
