"""The table of candidate sources."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from crossguard.attacks.candidates import CandidateSource
from crossguard.attacks.characters import Characters
from crossguard.attacks.masked_lm import MaskedLM
from crossguard.attacks.neighbours import EmbeddingNeighbours
from crossguard.attacks.thesaurus import Thesaurus
from crossguard.checks import check_options
from crossguard.table import Table

SourceLike: TypeAlias = str | Mapping[str, Any] | CandidateSource


@dataclass(frozen=True)
class SourceRow:
    """One candidate source: its name, one line about it, and how to build it."""

    name: str
    summary: str
    build: Callable[..., CandidateSource]


SOURCES = Table[SourceRow](
    "candidate source",
    (
        SourceRow("thesaurus", "WordNet synonyms and broader words, shipped with the package", Thesaurus),
        SourceRow("embedding", "nearest whole words in the victim's own token embedding", EmbeddingNeighbours),
        SourceRow("masked-lm", "guesses of a masked language model (`model`: a folder or hub id)", MaskedLM),
        SourceRow("characters", "one letter inserted, deleted or replaced (LEAF)", Characters),
    ),
)


def make_source(source: SourceLike) -> CandidateSource:
    """Build a candidate source.

    Args:
        source: a name of the table, its options beside a "name" (as in `{"name": "masked-lm", "model": FOLDER}`), or a
            source already built, which is returned as it is.

    Raises:
        ValueError: an unknown name or option (the nearest known one is named).
    """
    if isinstance(source, str):
        source = {"name": source}
    if not isinstance(source, Mapping):
        return source
    options = {key: value for key, value in source.items() if key != "name"}
    row = SOURCES.find(str(source.get("name")))
    check_options(row.build, options, what=f"candidate source {row.name!r}")
    return row.build(**options)
