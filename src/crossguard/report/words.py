"""Words of the report: names of columns, metrics and measures, changed words of a text, settings as plain text."""

from collections.abc import Iterable, Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any

from crossguard.evaluate.statistics import Estimate
from crossguard.report.views import COLUMNS, ONE_SET, ResultView, Word

OWN_SETS = (
    "The attack looks at the whole gallery and makes three sets of images and texts. Each direction stands under its "
    "own: TR under the set found against images that ask for texts, IR under the one found against texts that ask for "
    'images. Both stand under the set that is worst for both together in the columns named "one set".'
)
"""What is to be known of a table with such columns."""
SUCCESS = {"conditional": "{}, of those right before", "drop": "{}, drop"}
"""What every attack's success is told by."""


def columns_of(views: Sequence[ResultView]) -> tuple[str, ...]:
    """Return the columns that any of the rows has: clean, single modalities, joint; one set for both beside its own."""
    found = dict.fromkeys(column for view in views for column in view.columns)
    others = dict.fromkeys(column.removesuffix(ONE_SET) for column in found)
    ordered = (*COLUMNS[:-1], *(part for part in others if part not in COLUMNS), COLUMNS[-1])
    return tuple(column for part in ordered for column in (part, part + ONE_SET) if column in found)


def column_name(column: str) -> str:
    """Return a column's heading.

    Example:
        >>> column_name("image"), column_name("joint"), column_name("image, one set")
        ('image only', 'joint', 'image only, one set')
    """
    part = column.removesuffix(ONE_SET)
    end = ONE_SET if column.endswith(ONE_SET) else ""
    return part + end if part in ("clean", "joint") else f"{part} only{end}"


def metric_title(metric: str) -> str:
    """Return a metric as tables have it.

    Example:
        >>> metric_title("tr@1"), metric_title("pixel accuracy")
        ('TR@1', 'pixel accuracy')
    """
    return metric.upper() if "@" in metric else metric


def measure_title(measure: str, metric: str) -> str:
    """Return a measure of an attack's success as tables have it.

    Example:
        >>> measure_title("drop", "tr@1"), measure_title("changed", "captions")
        ('TR@1, drop', 'captions changed')
    """
    return SUCCESS.get(measure, "{} " + measure.replace("{", "{{").replace("}", "}}")).format(metric_title(metric))


def spread(figure: Estimate, *, digits: int = 1) -> str:
    """Return a figure's interval, or else its values by group; "" where there are neither.

    Example:
        >>> spread(Estimate(50.0, 40.04, 60.0, 100, 20)), spread(Estimate(1.0, -2.0, 4.0, 100, 20), digits=0)
        ('40.0–60.0', '-2 to 4')
        >>> spread(Estimate(50.0, None, None, 4, 2, {"ann": 25.0, "bob": 75.0}, "there are 2 groups"), digits=0)
        '25 · 75'
    """
    if figure.interval is None:
        return " · ".join(f"{value:.{digits}f}" for value in (figure.by_group or {}).values())
    low, high = (f"{end:.{digits}f}" for end in figure.interval)
    return f"{low} to {high}" if figure.interval[0] < 0 else f"{low}–{high}"


def rests_on(figures: Iterable[Estimate | None]) -> str:
    """Return how many samples and groups a row's figures rest on: those of the first that is defined.

    Example:
        >>> rests_on([None, Estimate(50.0, 40.0, 60.0, 1000, 20)])
        '1,000 / 20'
    """
    found = next((figure for figure in figures if figure is not None), None)
    return "" if found is None else f"{found.n:,} / {found.groups:,}"


def missing_intervals(figures: Iterable[Estimate | None]) -> list[str]:
    """Return a sentence for each reason why figures have no interval."""
    said: dict[str, None] = {}
    for figure in figures:
        if figure is None or not figure.why:
            continue
        names = "" if not figure.by_group else ", ".join(figure.by_group)
        told = f" The small figures are those of the groups by themselves: {names}." if names else ""
        said[f"No intervals where {figure.why}.{told}"] = None
    return list(said)


def marked_words(clean: str, adversarial: str) -> tuple[tuple[Word, ...], tuple[Word, ...]]:
    """Split two texts into words and mark those that only one of them has, by the longest common run of words.

    Example:
        >>> before, after = marked_words("a red car", "a red bus")
        >>> [word.text for word in after if word.changed]
        ['bus']
    """
    before, after = clean.split(), adversarial.split()
    left: list[Word] = []
    right: list[Word] = []
    for kind, b0, b1, a0, a1 in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        left.extend(Word(word, kind != "equal") for word in before[b0:b1])
        right.extend(Word(word, kind != "equal") for word in after[a0:a1])
    return tuple(left), tuple(right)


def flat(settings: Mapping[str, Any], *, prefix: str = "") -> dict[str, str]:
    """Return nested settings as text by dotted name; empty values are left out.

    Example:
        >>> flat({"attack": {"name": "sga", "scales": [0.5, 1]}, "label": None})
        {'attack.name': 'sga', 'attack.scales': '0.5, 1'}
    """
    found: dict[str, str] = {}
    for key, value in settings.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            found |= flat(value, prefix=f"{name}.")
        elif isinstance(value, list | tuple):
            if value:
                found[name] = ", ".join(str(item) for item in value)
        elif value is not None and value != "":
            found[name] = f"{value:.6g}" if isinstance(value, float) else str(value)
    return found
