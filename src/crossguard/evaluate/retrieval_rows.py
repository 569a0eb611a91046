"""The rows of a measurement of retrieval, one per query, and what a run keeps of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Int64

from crossguard.data import OneToManyPairs
from crossguard.evaluate.asked import row_facts
from crossguard.evaluate.examples import Examples
from crossguard.evaluate.result import RetrievalResult
from crossguard.evaluate.retrieval import DIRECTIONS, Direction
from crossguard.evaluate.retrieval_job import Job
from crossguard.runs import RunFolder


@dataclass(frozen=True)
class Edits:
    """What an attack changed, by index in the data set.

    Args:
        texts: the texts as it left them.
        words: words edited.
        linf: largest change of a pixel of each image, in [0, 1].
    """

    texts: tuple[str, ...]
    words: Int64[np.ndarray, " texts"]
    linf: Float32[np.ndarray, " images"]

    @classmethod
    def none(cls, pairs: OneToManyPairs) -> "Edits":
        """Return that nothing was changed."""
        return cls(tuple(pairs.texts), np.zeros(len(pairs.texts), np.int64), np.zeros(len(pairs.images), np.float32))


def finished_result(job: Job, settings: Mapping[str, Any]) -> RetrievalResult | None:
    """Return an evaluation that the run already holds, or None."""
    if job.run is None:
        return None
    summary = job.run.summary.get("retrieval", {}).get(job.section)
    rows = _known_rows(job)
    if summary is None or len(rows) != len(job.pairs.images) + len(job.pairs.texts):
        return None
    shown = None
    if summary["examples"] is not None:
        try:
            shown = Examples.load(summary["examples"], _pictures_file(job, job.run))
        except ValueError:
            return None
    return RetrievalResult(_ordered(rows), settings, shown, tuple(summary["warnings"]))


_NEW = {"group", "shared_rank"}
"""What rows of earlier versions lack."""


def _known_rows(job: Job) -> dict[tuple[str, int], Mapping[str, Any]]:
    if job.run is None:
        return {}
    mine = (row for row in job.run.rows if row.get("section") == job.section)
    return {(row["direction"], row["index"]): row for row in mine if row.keys() >= _NEW}


def keep_rows(job: Job, rows: Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    """Append the rows that the run does not hold yet; rows that it holds stay as they are."""
    if job.run is None:
        return tuple(rows)
    known = _known_rows(job)
    new = [row for row in rows if (row["direction"], row["index"]) not in known]
    if new:
        job.run.rows.append(*new)
    return _ordered({**known, **{(row["direction"], row["index"]): row for row in new}})


def _ordered(rows: Mapping[tuple[str, int], Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    return tuple(rows[key] for direction in DIRECTIONS for key in sorted(k for k in rows if k[0] == direction))


def query_rows(
    job: Job,
    settings: Mapping[str, Any],
    clean: Mapping[Direction, torch.Tensor],
    robust: Mapping[Direction, torch.Tensor] | None,
    edits: Edits,
    shared: Mapping[Direction, torch.Tensor] | None = None,
) -> list[dict[str, Any]]:
    """Return one row per query, both directions.

    Args:
        job: what was measured.
        settings: its settings.
        clean: ranks [queries] by direction.
        robust: the same under attack; None without.
        edits: what the attack changed of the queries.
        shared: ranks under one set for both directions, where `robust` has each under its own; None: they are the same.
    """
    common = row_facts(settings)
    attacked = robust is not None
    groups = dict(zip(DIRECTIONS, job.pairs.groups, strict=True))
    rows = []
    for direction in DIRECTIONS:
        before = clean[direction].tolist()
        after = robust[direction].tolist() if robust is not None else [None] * len(before)
        one_set = after if shared is None else shared[direction].tolist()
        for index, (clean_rank, robust_rank, shared_rank) in enumerate(zip(before, after, one_set, strict=True)):
            asks_image = direction == "tr"
            rows.append(
                {
                    "section": job.section,
                    "direction": direction,
                    "index": index,
                    "query": job.pairs.images[index].key if asks_image else job.pairs.texts[index],
                    "group": int(groups[direction][index]),
                    "clean_rank": clean_rank,
                    "robust_rank": robust_rank,
                    "shared_rank": shared_rank,
                    **common,
                    "linf": float(edits.linf[index]) if asks_image and attacked else None,
                    "words": int(edits.words[index]) if not asks_image and attacked else None,
                    "adversarial_text": edits.texts[index] if not asks_image and attacked else None,
                }
            )
    return rows


def summarised(job: Job, result: RetrievalResult) -> RetrievalResult:
    """Put a result's summary and the pictures of its examples into the run, if there is one, and return it."""
    if job.run is not None:
        if result.examples is not None:
            result.examples.save_pictures(_pictures_file(job, job.run))
        job.run.summarise("retrieval", job.section, result.summary())
    return result


def _pictures_file(job: Job, run: RunFolder) -> Path:
    return run.file("examples", job.name, f"{job.part}.npz")
