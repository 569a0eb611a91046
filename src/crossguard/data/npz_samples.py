"""Samples of one's own from an npz file."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from crossguard.checks import nearest, some, visible
from crossguard.data.reading import data_name, same_split, split_of_file
from crossguard.data.rows_of import split_of
from crossguard.data.samples import MultiModalSamples, as_samples
from crossguard.runs import DAMAGED, read_npz


def load_npz(
    *,
    file: Path | str,
    split: str | None = None,
    labels: str = "labels",
    groups: str | None = None,
    modalities: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    max_bytes: int | None = None,
) -> MultiModalSamples:
    """Load arrays by name: modalities, labels, groups.

    Args:
        file: an npz without pickles. An array `split` [samples] of names says which samples are of which split; an
            array `classes` of names is that of the labels.
        split: which samples, where the file has an array `split`; else the name of the split. Default: what the
            file's name tells, else "test".
        labels: name of the array of labels (see `crossguard.data.as_samples` for shapes).
        groups: name of the array of groups; default: "groups", if there is one.
        modalities: which arrays are modalities; default: all others.
        classes: names of the labels; default: the array `classes`, else the labels themselves.
        max_bytes: the most bytes of all arrays together; default: 32 times the file's, or 512 MB if that is more.

    Raises:
        ValueError: not such a file, no arrays of these names, arrays that hold objects or are larger than allowed, no
            samples of the split, or as `as_samples`.
    """
    path = Path(file)
    try:
        arrays = read_npz(path, max_bytes=max_bytes)
    except DAMAGED as error:
        raise ValueError(
            f"Expected arrays by name (npz, without pickles) in {visible(path)}, but got: {error}"
        ) from error
    grouped = groups or ("groups" if "groups" in arrays else None)
    part = split_of(arrays)
    own = {labels, grouped, part, "classes"}
    names = [name for name in arrays if name not in own] if modalities is None else list(modalities)
    for name in [labels, *names, *([] if grouped is None else [grouped])]:
        if name not in arrays:
            raise ValueError(
                f"Expected an array {name!r} in {visible(path)}, but there is none: {nearest(name, arrays)}."
            )
    if not names:
        raise ValueError(f"Expected modalities in {visible(path)} beside {labels!r}, but got {some(list(arrays))}.")
    found = "classes" if classes is None and "classes" in arrays else None
    samples = as_samples(
        {name: arrays[name] for name in names},
        arrays[labels],
        groups=None if grouped is None else arrays[grouped],
        classes=arrays[found].astype(str).tolist() if found else classes,
        name=data_name(path),
        split=split_of_file(path, split) if part is None else split or "test",
    )
    if part is None:
        return samples
    told = [same_split(name) for name in arrays[part].astype(str).reshape(-1).tolist()]
    if arrays[part].shape != (len(samples),):
        raise ValueError(
            f"Expected a split for each of {len(samples)} samples in {visible(path)}, but got "
            f"{list(arrays[part].shape)}."
        )
    chosen = np.flatnonzero(np.array(told) == same_split(samples.split))
    if not len(chosen):
        raise ValueError(
            f"Expected samples of split {samples.split!r} in {visible(path)}, but its splits are {sorted(set(told))}."
        )
    found_in = f"{len(chosen):,} of {len(told):,} samples of {visible(path)} are kept; left out: "
    others = [f"{found_in}{len(told) - len(chosen):,} of other splits"] if len(chosen) < len(told) else []
    return replace(samples.select(chosen), notes=(*others, *samples.notes))
