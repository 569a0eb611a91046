"""Links that people judged afterwards: many captions of COCO fit more pictures than the one they were written for.

ECCV Caption (Chun et al., ECCV 2022) and Crisscrossed Captions (CxC; Parekh et al., EACL 2021) say which. Their files
name pictures and captions by COCO's own numbers, which `captions_val2014.json` ties to texts.
"""

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from crossguard.checks import some, visible
from crossguard.data.json_stream import read_json
from crossguard.data.pairs import OneToManyPairs

LEAST = 3.0
"""From which mean rating on (0 to 5) CxC's authors take a caption and a picture for a pair."""
_DIRECTIONS = {"image_to_caption": True, "caption_to_image": False}


def with_judged_links(
    pairs: OneToManyPairs, links: Path | str | Sequence[Path | str], *, captions: Path | str
) -> OneToManyPairs:
    """Return pairs with judged links beside their own, which stay known as `own_links`.

    Args:
        pairs: of COCO.
        links: files of ECCV Caption or its package (`eccv_image_to_caption.json`, `eccv_caption_to_image.json`,
            `cxc_...json`), or CxC's own (`sits_test.csv`, of which ratings from 3 on count).
        captions: COCO's `captions_val2014.json`, which says what the numbered captions are.

    Raises:
        ValueError: a file of another kind, or one whose pictures and captions are none of the pairs'.
    """
    files = [links] if isinstance(links, Path | str) else list(links)
    texts = _texts(Path(captions))
    images = {_number(picture.key): place for place, picture in enumerate(pairs.images)}
    places = {text: place for place, text in enumerate(pairs.texts)}
    found: set[tuple[int, int]] = set()
    told, unknown = 0, 0
    for file in files:
        for image, caption in _read(Path(file)):
            told += 1
            ends = images.get(image), places.get(texts.get(caption, ""))
            if ends[0] is None or ends[1] is None:
                unknown += 1
            else:
                found.add((ends[0], ends[1]))
    if not found:
        raise ValueError(
            f"Expected links of the pictures and captions of {pairs.name} ({pairs.split}), but none of the {told} in "
            f"{some([visible(file) for file in files])} is: pictures are told by the numbers in their names."
        )
    judged = np.unique(np.concatenate([pairs.links, np.array(sorted(found), dtype=np.int64)]), axis=0)
    note = (
        f"{len(judged) - len(pairs.links):,} judged links beside {len(pairs.links):,} of the data's own "
        f"({', '.join(visible(Path(file).name) for file in files)})"
        + (f"; {unknown:,} of other pictures or captions are left out" if unknown else "")
    )
    return replace(pairs, links=judged, own_links=pairs.links, notes=(*pairs.notes, note))


def _number(name: str) -> int:
    """Return the number in a picture's name, as `COCO_val2014_000000391895.jpg` has it; -1 where there is none."""
    digits = re.findall(r"\d+", Path(name).stem)
    return int(digits[-1]) if digits else -1


def _texts(path: Path) -> dict[int, str]:
    try:
        rows = read_json(path)["annotations"]
        texts = {int(row["id"]): " ".join(str(row["caption"]).split()) for row in rows}
        if len(texts) < len(rows):
            raise ValueError(f"{len(rows) - len(texts)} captions whose `id` comes again")
        return texts
    except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise ValueError(
            f"Expected COCO's numbered captions (captions_val2014.json) in {visible(path)}, but got: {error!r}"
        ) from error


def _read(path: Path) -> Iterator[tuple[int, int]]:
    """Give links as (picture's number, caption's number)."""
    first = next((first for kind, first in _DIRECTIONS.items() if kind in path.name), None)
    if path.suffix.lower() != ".csv" and first is None:
        raise ValueError(
            "Expected a file that is named as ECCV Caption's (..._image_to_caption.json, ..._caption_to_image.json), "
            f"or CxC's sits_*.csv, but got {visible(path)}."
        )
    try:
        if first is None:
            with path.open(encoding="utf-8", newline="") as file:
                for row in csv.DictReader(file):
                    if float(row["agg_score"]) >= LEAST:
                        yield _number(row["image"]), int(row["caption"].rpartition(":")[2])
            return
        table: Any = read_json(path)
        for query, partners in table.items():
            for partner in partners:
                yield (int(query), int(partner)) if first else (int(partner), int(query))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, csv.Error) as error:
        raise ValueError(f"Expected judged links in {visible(path)}, but got: {error!r}") from error
