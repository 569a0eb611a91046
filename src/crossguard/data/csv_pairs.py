"""A folder of images and a table of captions: CSV of any column names, Flickr8k's and Flickr30k's own files."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crossguard.checks import nearest, some, visible
from crossguard.data.gather import Gathering
from crossguard.data.pairs import OneToManyPairs
from crossguard.data.reading import Reading, data_name, split_of_file, split_said
from crossguard.data.rows_of import CAPTION, FILE, FOLDER, IMAGE, in_folder

_LONGEST = 20
"""Lines of the longest caption in quotation marks; beyond that its mark has no end."""


def load_csv(
    *,
    captions: Path | str,
    root: Path | str,
    split: str | None = None,
    only: Path | str | None = None,
    image_column: str | None = None,
    caption_column: str | None = None,
    delimiter: str | None = None,
    reading: Reading | None = None,
) -> OneToManyPairs:
    """Load an image folder with a table of captions.

    Read without options: `captions.txt` of Flickr8k (`image,caption`), `results.csv` of Flickr30k
    (`image_name| comment_number| comment`), the `.token` files of both (`1000.jpg#0<tab>caption`, no header), the hub's
    `flickr_annotations_30k.csv` (lists of captions), and any CSV or TSV whose header names an image and a caption
    column. A caption in the last column may hold the delimiter. In files with `,`, `;` or tabs a cell may stand in
    quotation marks; a mark that does not begin and end a cell is a part of the text, and one without end costs its own
    row alone.

    Args:
        captions: the table, UTF-8.
        root: folder that the image paths start from.
        split: which rows, where the table has a column `split`; else the name of the split. Default: what the file's
            name tells, else "test".
        only: a text file that lists the images of the split, one per line, such as `Flickr_8k.testImages.txt`; None
            takes every image of the table.
        image_column: name of the image column, where the header has another than the usual ones.
        caption_column: the same for the caption.
        delimiter: between the columns; default: by the header, one of `|`, tab, `;` and `,`.
        reading: how strictly, and where images may lie.

    Raises:
        ValueError: no such table or column; lines without image or caption, missing files, images that do not decode,
            each counted and named in one message; a listed image without caption; a file of another split.
    """
    path = Path(captions)
    rows, found = gather_csv(
        path,
        split=split or (None if only is None else split_said(Path(only).name)),
        reading=reading or Reading(),
        only=None if only is None else Path(only),
        image_column=image_column,
        caption_column=caption_column,
        delimiter=delimiter,
    )
    return rows.build(name=data_name(path), split=found, root=Path(root))


def gather_csv(
    path: Path,
    *,
    split: str | None,
    reading: Reading,
    only: Path | None = None,
    image_column: str | None = None,
    caption_column: str | None = None,
    delimiter: str | None = None,
) -> tuple[Gathering, str]:
    """Read a table of captions, and say which split it is; arguments and errors are those of `load_csv`."""
    rows = Gathering(path, reading, unit="line")
    wanted = None if only is None else dict.fromkeys(_listed(only), False)
    asked = split or split_said(path.name) or "test"
    try:
        with path.open(encoding="utf-8-sig") as file:
            lines = _Lines(file)
            read = _reader(lines, path, image_column, caption_column, delimiter)
            for number, row in read.rows(lines, rows):
                if read.split is not None and not rows.is_of(row.split, asked, number):
                    continue
                if wanted is not None and row.image is not None:
                    if row.image not in wanted:
                        rows.pass_over(f"of images that {visible(only)} does not list")
                        continue
                    wanted[row.image] = True
                rows.leave_unread(read.unread)
                rows.add(row.image, row.caption, number)
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"Expected a table of captions in UTF-8 at {visible(path)}, but got: {error}") from error
    for image in [image for image, seen in (wanted or {}).items() if not seen]:
        rows.complain(f"no caption, although {visible(only)} lists it", image)
    return rows, asked if read.split is not None else split_of_file(path, split)


@dataclass
class _Row:
    image: str | None = None
    caption: str | None = None
    split: str | None = None


class _Lines:
    """The lines of a file with their numbers; some may be looked at before they are taken."""

    def __init__(self, file: Any) -> None:
        self._file, self._ahead, self.number = file, list[str](), 0

    def take(self) -> str | None:
        self.number += 1
        if self._ahead:
            return self._ahead.pop(0)
        line = self._file.readline()
        return line.rstrip("\n") if line else None

    def look(self, ahead: int) -> str | None:
        """Return the line that comes `ahead` lines after the one that `take` would give; None at the end."""
        while len(self._ahead) <= ahead:
            line = self._file.readline()
            if not line:
                return None
            self._ahead.append(line.rstrip("\n"))
        return self._ahead[ahead]


@dataclass
class _Table:
    """A table with a header."""

    mark: str
    columns: int
    image: int
    caption: int
    split: int | None
    file: int | None = None
    unread: Sequence[str] = ()
    quoted: re.Pattern[str] | None = field(init=False)

    def __post_init__(self) -> None:
        # In files with other marks a quotation mark is always a part of the text.
        end = re.escape(self.mark)
        quotes = self.mark in (",", ";", "\t")
        self.quoted = re.compile(rf'"([^"]*(?:""[^"]*)*)"(?={end}|$)') if quotes else None

    def rows(self, lines: _Lines, rows: Gathering) -> Iterator[tuple[int, _Row]]:
        while (line := lines.take()) is not None:
            number = lines.number
            if not line.strip():
                continue
            cells = self.cells(line)
            if cells is None:
                cells = self._continued(line, lines)
            if cells is None:
                rows.refuse("a quotation mark without its end", number)
            elif len(cells) != self.columns:
                yield number, _Row(split=self._split(cells))
            else:
                image = cells[self.image].strip()
                image = image if self.file is None else in_folder(image, cells[self.file].strip())
                yield number, _Row(image, cells[self.caption], self._split(cells))

    def cells(self, line: str) -> list[str] | None:
        """Return the cells of a line; None where a quotation mark has no end.

        The last cell, if it is the caption, may hold the delimiter.
        """
        most = self.columns - 1 if self.caption == self.columns - 1 else -1
        if self.quoted is None or '"' not in line:
            return line.split(self.mark, most)
        cells: list[str] = []
        at = 0
        while True:
            whole = self.quoted.match(line, at)
            if whole:
                cells.append(whole[1].replace('""', '"'))
                end = whole.end()
            else:
                last = len(cells) == most
                end = -1 if last else line.find(self.mark, at)
                end = len(line) if end < 0 else end
                if line.startswith('"', at) and line.count('"', at, end) % 2:
                    return None
                cells.append(line[at:end])
            if end == len(line):
                return cells
            at = end + len(self.mark)

    def _continued(self, line: str, lines: _Lines) -> list[str] | None:
        """Return the cells of a row whose caption goes on in the next lines, none of which is a row of its own."""
        for ahead in range(_LONGEST):
            following = lines.look(ahead)
            if following is None:
                return None
            own = self.cells(following)
            if own is not None and len(own) == self.columns:
                return None
            line += " " + following.strip()
            cells = self.cells(line)
            if cells is not None:
                for _ in range(ahead + 1):
                    lines.take()
                return cells
        return None

    def _split(self, cells: Sequence[str]) -> str | None:
        return cells[self.split] if self.split is not None and self.split < len(cells) else None


class _Tokens:
    """The `.token` files of Flickr8k and Flickr30k."""

    split = None
    unread = ()

    def rows(self, lines: _Lines, rows: Gathering) -> Iterator[tuple[int, _Row]]:
        while (line := lines.take()) is not None:
            if line.strip():
                name, tab, caption = line.partition("\t")
                image = name.rpartition("#")[0]
                yield lines.number, _Row(image if tab and image else None, caption)


def _reader(
    lines: _Lines, path: Path, image_column: str | None, caption_column: str | None, delimiter: str | None
) -> _Table | _Tokens:
    first = (lines.look(0) or "").strip()
    if not first:
        raise ValueError(f"Expected a header or a first row in {visible(path)}, but its first line is empty.")
    if "#" in first and "\t" in first and image_column is None and caption_column is None:
        return _Tokens()
    mark = delimiter or next((mark for mark in ("|", "\t", ";", ",") if mark in first), ",")
    names = _Table(mark, 0, 0, 1, None).cells(lines.take() or "") or []
    header = [name.strip().lower() for name in names]
    again = sorted({name for name in header if name and header.count(name) > 1})
    if again:
        raise ValueError(f"Expected different columns in {visible(path)}, but some come twice: {some(again)}.")
    image = _column(header, image_column, IMAGE, "image_column", path)
    caption = _column(header, caption_column, CAPTION, "caption_column", path)
    return _Table(
        mark,
        len(header),
        image,
        caption,
        header.index("split") if "split" in header else None,
        header.index(FILE) if header[image] == FOLDER and FILE in header else None,
        [name for name in CAPTION if name in header and name != header[caption]] if caption_column is None else (),
    )


def _listed(path: Path) -> list[str]:
    try:
        names = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"Expected a list of images in UTF-8 at {visible(path)}, but got: {error}") from error
    if not names:
        raise ValueError(f"Expected a list of images in {visible(path)}, but it is empty.")
    return names


def _column(header: Sequence[str], given: str | None, known: Sequence[str], option: str, path: Path) -> int:
    if given is not None:
        if given.lower() not in header:
            raise ValueError(
                f"Expected column {given!r} in {visible(path)}, but there is none: {nearest(given, header)}."
            )
        return header.index(given.lower())
    for name in known:
        if name in header:
            return header.index(name)
    raise ValueError(
        f"Expected one of the columns {', '.join(known)} in {visible(path)}, but got {header}: name it with {option}=."
    )
