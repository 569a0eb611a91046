"""The manifest: what became of every sample; and the measures of every source, counted from it."""

from collections.abc import Mapping, Sequence
from typing import Any

from crossguard.augment.base import Source, gives
from crossguard.augment.look import Look
from crossguard.augment.measures import Measures
from crossguard.augment.samples import Sample
from crossguard.data import OneToManyPairs


def manifest_rows(
    pairs: OneToManyPairs,
    samples: Sequence[Sample],
    index: Mapping[int, int],
    aligned: Sequence[float] | None,
) -> list[dict[str, Any]]:
    """Return one row per sample, in order.

    The outcome is "added" for a new text or picture, "repeat" for one that equals an original or an earlier sample,
    "filtered" for one that was left out.

    Args:
        pairs: the originals.
        samples: all samples.
        index: the text or image index that each kept sample went to; filtered ones are not in it.
        aligned: the samples' alignment, or None when nothing was measured.
    """
    taken = {"images": len(pairs.images), "texts": len(pairs.texts)}
    rows = []
    for n, sample in enumerate(samples):
        outcome = "filtered"
        if n in index:
            # Kept samples are numbered in order, so an index seen before belongs to something earlier.
            outcome = "repeat" if index[n] < taken[sample.gives] else "added"
            taken[sample.gives] = max(taken[sample.gives], index[n] + 1)
        rows.append(
            {
                "source": sample.source,
                "gives": sample.gives,
                "item": sample.item,
                "draw": sample.draw,
                "images": list(sample.images),
                "texts": list(sample.texts),
                **({"text": sample.text} if sample.picture is None else {"key": sample.picture.key}),
                "alignment": None if aligned is None else round(aligned[n], 6),
                "outcome": outcome,
                "index": index.get(n),
            }
        )
    return rows


def source_measures(sources: Sequence[Source], rows: Sequence[Mapping[str, Any]], seen: Look | None) -> list[Measures]:
    """Return the measures of the originals, if a model looked at them, and of every source."""
    measures = list(seen.originals) if seen is not None else []
    for source in sources:
        mine = [row for row in rows if row["source"] == source.name]
        spread, gap = (None, None) if seen is None else seen.sources.get(source.name, (None, None))
        measures.append(
            Measures(
                source=source.name,
                gives=gives(source),
                made=len(mine),
                repeats=sum(row["outcome"] == "repeat" for row in mine),
                filtered=sum(row["outcome"] == "filtered" for row in mine),
                alignment=sum(row["alignment"] for row in mine) / len(mine) if seen is not None and mine else None,
                diversity=spread,
                gap=gap,
            )
        )
    return measures
