"""Hugging Face's image folders (`metadata.jsonl`, `.csv` or `.parquet`) and parquet files, as pairs."""

import os
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from crossguard.checks import some, visible
from crossguard.data.annotations import gather_json
from crossguard.data.csv_pairs import gather_csv
from crossguard.data.files import files_below
from crossguard.data.in_memory import as_pairs
from crossguard.data.pairs import OneToManyPairs
from crossguard.data.reading import Reading, data_name, one_of_each, same_split, split_of_file, split_said
from crossguard.data.rows_of import FILE, Columns, columns_of, splits_of
from crossguard.data.shards import expand
from crossguard.extras import install

METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
_BATCH = 64


def load_folder(
    *,
    root: Path | str,
    split: str | None = None,
    caption_key: str | None = None,
    reading: Reading | None = None,
) -> OneToManyPairs:
    """Load pictures with a `metadata.jsonl`, `.csv` or `.parquet`, as Hugging Face's "imagefolder" reads them.

    Args:
        root: the folder, or one with a folder for each split.
        split: the split; default: "test" where there are folders of splits.
        caption_key: the key or column of the captions, where it is none of the usual ones.
        reading: how strictly, and where images may lie.

    Raises:
        ValueError: no such file, several of them, no such split, or as `load_json`.
    """
    root = Path(root)
    if not root.is_dir():
        raise ValueError(f"Expected a folder of images at `root`, but {visible(root)} is none.")
    folders = [path.name for path in sorted(root.iterdir()) if path.is_dir() and _metadata(path)]
    homes = {part: root / name for part, name in one_of_each(root, folders).items()}
    if _metadata(root):
        home, part = root, split
    elif same_split(split or "test") in homes:
        part = same_split(split or "test")
        home = homes[part]
    else:
        raise ValueError(
            f"Expected {some(METADATA)} in {visible(root)} or its folder of split {split or 'test'!r}, but got "
            f"{some(list(homes)) or 'none'}."
        )
    files = _metadata(home)
    if len(files) > 1:
        raise ValueError(
            f"Expected one of {some([path.name for path in files])} in {visible(home)}, but got all of them."
        )
    reading, name = reading or Reading(), root.absolute().name or "folder"
    if files[0].suffix == ".parquet":
        given = _parquet_rows(files, columns_of("image", caption_key or "caption"))
        text = caption_key or "caption"
        return as_pairs(given, text=text, root=home, name=name, split=part, reading=reading)
    if files[0].suffix == ".csv":
        rows, found = gather_csv(files[0], split=part, reading=reading, caption_column=caption_key)
    else:
        rows, found = gather_json(files[0], split=part, reading=reading, caption_key=caption_key)
    return rows.build(name=name, split=found, root=home)


def load_parquet(
    *,
    files: str | Path | Sequence[str | Path],
    split: str | None = None,
    image: str = "image",
    text: str = "caption",
    id: str | None = None,  # noqa: A002
    root: Path | str | None = None,
    reading: Reading | None = None,
) -> OneToManyPairs:
    """Load parquet files with pictures inside, as the hub has them, or with paths of pictures.

    Pictures inside of the files are copied into one file of the cache, undecoded (see `as_pairs`).

    Args:
        files: a path, a list of them, a pattern (`data/test-*.parquet`), or a folder; files whose names tell a split
            (`test-00000-of-00001.parquet`) are taken if it is the one asked for.
        split: the split, where rows have a column `split` or files tell one by their names; else its name.
        image: column of the pictures; default: "image", or another usual name.
        text: the same for the captions, texts or lists of texts.
        id: a column that says which rows have the same picture.
        root: folder that paths start from; default: that of the first file.
        reading: how strictly, and where images may lie.

    Raises:
        ModuleNotFoundError: pyarrow is not installed.
        ValueError: no such files or columns, files of another split, or as `as_pairs`.
    """
    paths, part = _of_split(_parquet_files(files), split)
    rows = _parquet_rows(paths, columns_of(image, text, id=id))
    home = paths[0].parent
    name = data_name(paths[0].with_name(paths[0].name.split("-0")[0] + ".parquet"))
    return as_pairs(rows, image=image, text=text, id=id, root=root or home, name=name, split=part, reading=reading)


def _metadata(folder: Path) -> list[Path]:
    return [folder / name for name in METADATA if (folder / name).is_file()]


def _parquet_files(files: str | Path | Sequence[str | Path]) -> list[Path]:
    if isinstance(files, str | Path) and Path(files).is_dir():
        found = files_below(files, {"parquet"})
        if not found:
            raise ValueError(f"Expected parquet files in {visible(files)}, but there are none.")
        return found
    return expand(files)


def _of_split(paths: Sequence[Path], split: str | None) -> tuple[list[Path], str | None]:
    """Return the files of a split, and the split for the rows to tell; None where all may be of any."""
    told = {path: split_said(path.name) for path in paths}
    known = {part for part in told.values() if part}
    if not known:
        return list(paths), split
    wanted = same_split(split or ("test" if "test" in known or len(known) > 1 else known.copy().pop()))
    chosen = [path for path in paths if told[path] == wanted]
    if not chosen:
        raise ValueError(f"Expected parquet files of split {wanted!r}, but got those of {sorted(known)}.")
    return chosen, split_of_file(chosen[0], wanted)


def _parquet_rows(paths: Sequence[Path], columns: Columns) -> Iterator[dict[str, Any]]:
    try:
        pyarrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"Parquet files need pyarrow: {install('datasets')}") from error
    for path in paths:
        try:
            with parquet.ParquetFile(os.fspath(path)) as file:
                there = file.schema_arrow.names
                found = columns.find(there)
                wanted = {*found, *columns.beside(there, found[1]), FILE, columns.id, *splits_of(there)}
                for batch in file.iter_batches(batch_size=_BATCH, columns=[n for n in there if n in wanted]):
                    yield from batch.to_pylist()
        except (OSError, ValueError, pyarrow.ArrowException) as error:
            raise ValueError(f"Expected a parquet file of pictures at {visible(path)}, but got: {error}") from error
