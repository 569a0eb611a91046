"""A folder of images and a table of captions: CSV of any column names, Flickr8k's and Flickr30k's own files."""

import csv
from collections.abc import Iterator, Sequence
from io import StringIO
from pathlib import Path

from crossguard.checks import nearest
from crossguard.data.gather import Gathering
from crossguard.data.pairs import OneToManyPairs
from crossguard.progress import Reporter

_IMAGE = ("image", "image_name", "image_path", "filepath", "filename", "file_name", "file", "path", "img")
_CAPTION = ("caption", "captions", "comment", "text", "title", "description", "sentence", "raw")


def load_csv(
    *,
    captions: Path | str,
    root: Path | str,
    split: str = "test",
    only: Path | str | None = None,
    image_column: str | None = None,
    caption_column: str | None = None,
    delimiter: str | None = None,
    skip_bad: bool = False,
    verify: bool = False,
    workers: int | None = None,
    progress: Reporter | None = None,
) -> OneToManyPairs:
    """Load an image folder with a table of captions, one caption per line.

    Read without options: `captions.txt` of Flickr8k (`image,caption`), `results.csv` of Flickr30k
    (`image_name| comment_number| comment`), the `.token` files of both (`1000.jpg#0<tab>caption`, no header), and any
    CSV or TSV whose header names an image and a caption column. A caption in the last column may hold the delimiter.

    Args:
        captions: the table, UTF-8.
        root: folder that the image paths start from.
        split: name of the split.
        only: a text file that lists the images of the split, one per line, such as `Flickr_8k.testImages.txt`; None
            takes every image of the table.
        image_column: name of the image column, where the header has another than the usual ones.
        caption_column: the same for the caption.
        delimiter: between the columns; default: by the header, one of `|`, tab, `;` and `,`.
        skip_bad: leave out bad lines, missing files and images that do not decode; the pairs' `notes` tell of them.
        verify: decode every image once, now.
        workers: threads that do so; default: one per core.
        progress: where that is shown.

    Raises:
        ValueError: no such table or column; lines without image or caption, missing files, images that do not decode,
            each counted and named in one message; a listed image without caption.
    """
    captions = Path(captions)
    rows = Gathering(captions, skip_bad=skip_bad)
    wanted = None if only is None else dict.fromkeys(_listed(Path(only)), False)
    for where, image, caption in _lines(_text(captions), captions, image_column, caption_column, delimiter):
        if wanted is not None:
            if image not in wanted:
                continue
            wanted[image] = True
        if caption is not None and "\n" in caption:
            rows.refuse("a caption of several lines (a quotation mark without its end?)", where)
        else:
            rows.add(image, caption, where=where)
    for image in [image for image, seen in (wanted or {}).items() if not seen]:
        rows.refuse(f"no caption, although {only} lists it", image)
    return rows.build(
        name=captions.stem, split=split, root=Path(root), verify=verify, workers=workers, progress=progress
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"Expected a table of captions in UTF-8 at {path}, but got: {error}") from error


def _listed(path: Path) -> list[str]:
    names = [line.strip() for line in _text(path).splitlines() if line.strip()]
    if not names:
        raise ValueError(f"Expected a list of images in {path}, but it is empty.")
    return names


def _lines(
    text: str, path: Path, image_column: str | None, caption_column: str | None, delimiter: str | None
) -> Iterator[tuple[str, str | None, str | None]]:
    """Give where a row stands, its image and its caption; None for what it lacks."""
    first = text.split("\n", 1)[0].strip()
    if not first:
        raise ValueError(f"Expected a header or a first row in {path}, but its first line is empty.")
    if "#" in first and "\t" in first and image_column is None and caption_column is None:
        yield from _token_lines(text)
        return
    mark = delimiter or next((mark for mark in ("|", "\t", ";", ",") if mark in first), ",")
    # Only commas call for quotes: in the other files a quotation mark is part of a caption.
    lines = StringIO(text, newline="")
    table = csv.reader(lines) if mark == "," else csv.reader(lines, delimiter=mark, quoting=csv.QUOTE_NONE)
    header = [name.strip().lower() for name in next(table)]
    image = _column(header, image_column, _IMAGE, "image_column", path)
    caption = _column(header, caption_column, _CAPTION, "caption_column", path)
    last = caption == len(header) - 1
    try:
        for cells in table:
            if not cells:
                continue
            where = f"line {table.line_num}"
            if len(cells) < len(header) or (len(cells) > len(header) and not last):
                yield where, None, None
            else:
                yield where, cells[image].strip(), mark.join(cells[caption:]) if last else cells[caption]
    except csv.Error as error:
        raise ValueError(f"Expected a table in {path}, but line {table.line_num} cannot be read: {error}") from error


def _token_lines(text: str) -> Iterator[tuple[str, str | None, str | None]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            name, tab, caption = line.partition("\t")
            image = name.rpartition("#")[0]
            yield f"line {number}", image if tab and image else None, caption


def _column(header: Sequence[str], given: str | None, known: Sequence[str], option: str, path: Path) -> int:
    if given is not None:
        if given.lower() not in header:
            raise ValueError(f"Expected column {given!r} in {path}, but there is none: {nearest(given, header)}.")
        return header.index(given.lower())
    for name in known:
        if name in header:
            return header.index(name)
    raise ValueError(
        f"Expected one of the columns {', '.join(known)} in {path}, but got {header}: name it with {option}=."
    )
