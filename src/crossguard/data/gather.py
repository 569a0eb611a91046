"""`Gathering`: rows of images and captions as files have them become pairs, and every row is accounted for."""

import ast
import json
import os
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import zip_longest
from operator import itemgetter
from pathlib import Path, PurePosixPath
from typing import cast
from unicodedata import category
from warnings import catch_warnings, simplefilter

import numpy as np
from jaxtyping import Int64

from crossguard.checks import some, visible
from crossguard.data.decode import undecodable
from crossguard.data.files import Located, equal_files, locate
from crossguard.data.pairs import OneToManyPairs, repeated
from crossguard.data.pictures import Picture
from crossguard.data.reading import Reading, same_split, uncollected

_NAMED = 5
_LISTS = frozenset("[{")
_ADDRESS = "://"
_REST = {"restval": "train"}
"""Karpathy and Fei-Fei (2015) train on what COCO's validation images leave over, "restval"."""
_COMPARED = 50_000
"""Up to so many files are compared with each other without being asked to."""


class Gathering:
    """Collects rows of an image and its captions; rows that name the same image become one image with all of them.

    Nothing is refused before the end, so that one error tells everything that is wrong with a file. With `skip_bad`,
    what is wrong is left out and counted: rows kept and rows left out are together the rows of the file.

    Args:
        source: the annotation file, for messages.
        reading: how strictly.
        unit: what a row of this file is called: "row", "line", "annotation", ...
        value: what an image has: a "caption", a "label".
    """

    def __init__(
        self, source: Path | str, reading: Reading | None = None, *, unit: str = "row", value: str = "caption"
    ) -> None:
        self._source, self._unit, self._value = visible(source), unit, value
        self._reading = reading or Reading()
        self._images: dict[str, int] = {}
        self._count = 0
        self._rows, self._texts, self._row_images = array("q"), list[str](), array("q")
        self._bad, self._cut, self._wrong, self._others = _Reasons(), _Reasons(), _Reasons(), Counter[str]()
        self._unread = Counter[str]()
        self._ids: dict[str, str] = {}
        self._splits: Counter[str] = Counter()
        self._asked, self._told, self._untold = "", 0, list[int | str]()

    def add(self, image: object, captions: object, where: int | str, *, image_id: object = None) -> None:
        """Take one row.

        Args:
            image: the image's path as the file has it.
            captions: a caption or a list of captions; blanks around them are dropped.
            where: the row's number, or its name.
            image_id: the field's key of the image; it must always come with the same path.
        """
        image = image.get("path") if isinstance(image, Mapping) else image  # as Hugging Face writes it
        texts = listed(captions) if self._value == "caption" else captions
        texts = (texts,) if isinstance(texts, str) else texts
        if not isinstance(image, str) or not image.strip() or not isinstance(texts, list | tuple) or not texts:
            self.refuse(f"no image path or no {self._value}", where)
            return
        if "\0" in image:
            self.refuse("an image path with a null character", where)
            return
        if ("./" in image or "//" in image) and _ADDRESS not in image:
            image = str(PurePosixPath(image))
        if image_id is not None and self._ids.setdefault(str(image_id), image) != image:
            self.refuse("an `image_id` of another image", where)
            return
        good = [text.strip() for text in texts if isinstance(text, str) and _is_text(text)]
        if len(good) < len(texts):
            (self._cut if good else self._bad).add(f"a {self._value} that is blank or no text", self._at(where))
        if good:
            place = self._images.get(image)
            if place is None:
                place = self._images[image] = self._count
                self._count += 1
            self._row_images.append(place)
            self._rows.extend([place] * len(good))
            self._texts += good

    def add_plain(
        self,
        images: Sequence[object],
        captions: Sequence[object],
        image_ids: Sequence[object] = (None,),
        *,
        all_new: bool = False,
    ) -> bool:
        """Take many rows of one caption each, as `add` would, if nothing is wrong or unusual with any of them.

        Args:
            images: the images' paths.
            captions: one for each.
            image_ids: the field's keys of the images.
            all_new: no two rows of all are of one image; their names need not be remembered then, which `build` gets
                with the pictures.

        Returns:
            Whether they were taken; if not, nothing has changed and each is to be added by itself.
        """
        if set(map(type, images)) != {str} or set(map(type, captions)) != {str}:
            return False
        paths, texts = cast(Sequence[str], images), list(map(str.strip, cast(Sequence[str], captions)))
        kinds = set(map(type, image_ids))
        told = kinds != {type(None)}
        together = dict.fromkeys(zip(image_ids, paths, strict=True)) if told and kinds <= {int, str} else {}
        names = paths if all_new else list(dict.fromkeys([path for _, path in together] if together else paths))
        joined = "\n".join(names)
        if any(odd in joined for odd in ("\0", "./", "//")) or not all(map(str.strip, names)) or not all(texts):
            return False
        told_texts = " ".join(texts)
        if not (told_texts.isascii() or told_texts.isprintable()) or _LISTS & set(map(itemgetter(0), texts)):
            return False
        if told and not (together and self._agree(together)):
            return False
        new = paths if all_new else [name for name in names if name not in self._images]
        numbers = range(self._count, self._count + len(new))
        self._count += len(new)
        if not all_new:
            self._images.update(zip(new, numbers, strict=True))
        places = array("q", numbers if all_new else map(self._images.__getitem__, paths))
        self._row_images.extend(places)
        self._rows.extend(places)
        self._texts += texts
        return True

    def _agree(self, named: Iterable[tuple[object, str]]) -> bool:
        """Whether every key of an image comes with the path that it came with before."""
        return all(self._ids.setdefault(str(key), path) == path for key, path in named)

    def refuse(self, reason: str, where: int | str) -> None:
        """Note a row that is bad for a reason that only the reader of the file can see."""
        self._bad.add(reason, self._at(where))

    def complain(self, reason: str, where: str) -> None:
        """Note something wrong with the file that is no row of its own."""
        self._wrong.add(reason, where)

    def leave_unread(self, names: Sequence[str]) -> None:
        """Count keys or columns of a row that hold what might be meant, too."""
        self._unread.update(names)

    def pass_over(self, reason: str) -> None:
        """Count a row that was not asked for."""
        self._others[reason] += 1

    def is_of(self, split: object, wanted: str, where: int | str) -> bool:
        """Return whether a row that tells its split is of the one wanted, and count or refuse it if it is not.

        Args:
            split: what the row says.
            wanted: the split asked for.
            where: the row.
        """
        self._told += 1
        if not isinstance(split, str) or not split.strip():
            self.refuse("no split", where)
            return False
        self._asked = wanted
        said = split.strip()
        self._splits[said] += 1
        if said == wanted or same_split(_REST.get(said, said)) == same_split(wanted):
            return True
        self.pass_over("of other splits")
        return False

    def without_split(self, where: int | str) -> None:
        """Note a row that has no split; the others may have none either."""
        if len(self._untold) <= _NAMED:
            self._untold.append(where)

    def split(self, asked: str | None) -> str:
        """Return the split that was read: the one asked for, else the only one that the rows tell, or "test".

        Raises:
            ValueError: none was asked for, and there are several.
        """
        told = sorted({same_split(split) for split in self._splits})
        if asked is None and len(told) > 1:
            raise ValueError(f"Expected rows of one split, but got {told}: choose one with split=.")
        return asked or (told[0] if told else "test")

    @property
    def tell_splits(self) -> bool:
        """Whether rows tell their split."""
        return self._told > 0

    @property
    def refused(self) -> int:
        """How many rows were bad."""
        return self._bad.count

    def __len__(self) -> int:
        """How many images there are."""
        return self._count

    @property
    def images(self) -> Sequence[str]:
        """The images' paths as the file has them, in its order."""
        return tuple(self._images)

    @uncollected()
    def build(
        self, *, name: str, split: str, root: Path, pictures: Sequence[Picture | str] | None = None
    ) -> OneToManyPairs:
        """Check the image files and make the pairs.

        Args:
            name: of the data set.
            split: of the data set.
            root: folder that the images' paths start from.
            pictures: every image, in the order of `images`, or the path of its file; default: in a file of its name.

        Raises:
            ValueError: bad rows, missing files or images that do not decode, counted and named; or no row is left.
        """
        self._check_split()
        given: Sequence[Picture | str] = list(self._images) if pictures is None else pictures
        files = [place for place, picture in enumerate(given) if isinstance(picture, str)]
        found = locate([str(given[place]) for place in files], root, files, self._reading.outside_root)
        whole = [
            Picture(key, found.paths.get(place, picture)) if isinstance(picture, str) else picture
            for place, (key, picture) in enumerate(zip_longest(self._images, given, fillvalue=""))
        ]
        self._images, self._ids = {}, {}  # a large file's names take much room, and are in the pictures
        broken = self._broken(whole, found.missing | found.outside)
        problems = self._problems(whole, root, found, broken)
        if problems and not self._reading.skip_bad:
            raise ValueError(f"{'; '.join(problems)}. Mend them, or leave them out with skip_bad=True (--skip-bad).")
        out = np.zeros(len(whole), dtype=bool)
        out[[*found.missing, *found.outside, *broken]] = True
        texts, columns = _different_texts(self._texts)
        rows, self._texts = np.frombuffer(self._rows, dtype=np.int64), []
        there = ~out[rows]
        if not there.any():
            fault = f"none is whole: {'; '.join(problems)}" if problems else "there are none"
            raise ValueError(f"Expected images with {self._value}s in {self._source}, but {fault}.")
        if not there.all():
            rows, columns = rows[there], columns[there]
        notes = self._account(whole, out, found, broken)
        return self._pairs(name, split, whole, texts, _one_each(whole, found), rows, columns, notes)

    def _at(self, where: int | str) -> str:
        return where if isinstance(where, str) else f"{self._unit} {where}"

    def _check_split(self) -> None:
        if self._told and self._untold:
            raise ValueError(
                f"Expected a `split` in every {self._unit} of {self._source} or in none, but {self._told} have one and "
                f"others do not ({some([self._at(where) for where in self._untold])})."
            )
        if self._splits and not len(self) and not self._bad.count:
            raise ValueError(
                f"Expected {self._unit}s of split {self._asked!r} in {self._source}, but its splits are "
                f"{sorted(self._splits)}."
            )

    def _broken(self, pictures: Sequence[Picture], gone: set[int]) -> dict[int, str]:
        if not self._reading.verify and not self._reading.skip_bad:
            return {}
        there = [i for i in range(len(pictures)) if i not in gone]
        reasons = undecodable(
            [pictures[i] for i in there], workers=self._reading.workers, progress=self._reading.progress
        )
        return {there[place]: reason for place, reason in reasons.items()}

    def _problems(
        self, pictures: Sequence[Picture], root: Path, found: Located, broken: Mapping[int, str]
    ) -> list[str]:
        problems = []
        faults = [*self._bad.told(), *self._cut.told(), *self._wrong.told()]
        if faults:
            problems.append(f"Expected whole rows in {self._source}, but got {', '.join(faults)}")
        missing = [pictures[i].key for i in sorted(found.missing)]
        if missing:
            problems.append(
                f"Expected {len(pictures)} image files below {visible(root)}, but {len(missing)} are missing: "
                f"{some(missing)}"
                + (" (addresses of the web are not fetched)" if any(_ADDRESS in name for name in missing) else "")
            )
        outside = [pictures[i].key for i in sorted(found.outside)]
        if outside:
            problems.append(
                f"Expected image files inside {visible(root)}, but {len(outside)} paths lead out of it: "
                f"{some(outside)} (outside_root=True takes them all the same)"
            )
        if broken:
            told = [f"{pictures[i].key} ({reason})" for i, reason in sorted(broken.items())]
            problems.append(f"Expected {len(pictures)} images that decode, but {len(told)} do not: {some(told)}")
        return problems

    def _account(
        self, pictures: Sequence[Picture], out: np.ndarray, found: Located, broken: Mapping[int, str]
    ) -> list[str]:
        """Say how many rows of the file were kept, and of all others why they were left out."""
        per_image = np.bincount(np.frombuffer(self._row_images, dtype=np.int64), minlength=len(pictures))
        kept = int(per_image[~out].sum())
        lost = [f"{count:,} {reason}" for reason, count in self._others.items()]
        lost += [f"{count:,} with {reason} ({named})" for reason, count, named in self._bad.counted()]
        for places, reason in (
            (found.missing, "whose image file is missing"),
            (found.outside, "whose image is outside `root`"),
            (broken, "whose image does not decode"),
        ):
            if places:
                keys = [f"{pictures[i].key} ({broken[i]})" if i in broken else pictures[i].key for i in sorted(places)]
                lost.append(f"{int(per_image[[*places]].sum()):,} {reason} ({some(keys)})")
        rows = kept + sum(self._others.values()) + self._bad.count + int(per_image[out].sum())
        notes = [f"{kept:,} of {rows:,} rows of {self._source} are kept; left out: {', '.join(lost)}"] if lost else []
        notes += [f"left out of kept rows: {told}" for told in self._cut.told()]
        notes += [
            f"{count:,} {self._unit}s of {self._source} have something under {visible(name)!r}, too, which is not read"
            for name, count in self._unread.items()
        ]
        return notes + [f"{self._source}: {told}" for told in self._wrong.told()]

    def _pairs(
        self,
        name: str,
        split: str,
        pictures: Sequence[Picture],
        texts: Sequence[str],
        first: Int64[np.ndarray, " images"],
        rows: Int64[np.ndarray, " links"],
        columns: Int64[np.ndarray, " links"],
        notes: list[str],
    ) -> OneToManyPairs:
        """Keep the images and texts that have a link, each once; `first` is the first image of the same file."""
        own = first[rows]
        merged = _different(rows, len(pictures)) - _different(own, len(pictures))
        if merged:
            notes.append(f"{merged} paths are another spelling of an image's path, or a link to it: one image each")
        width = len(texts)
        links = own
        links *= width
        links += columns
        links.sort()
        again = links[1:] == links[:-1]
        if again.any():
            links = np.concatenate([links[:1], links[1:][~again]])
            notes.append(f"{len(rows) - len(links)} {self._value}s of {self._source} repeat one of the same image")
        images, rows, _ = _numbered_anew(links // width, len(pictures))
        captions, columns, owners = _numbered_anew(links % width, width)
        del links, own, again  # of a large file they take much room
        chosen = tuple(pictures if len(images) == len(pictures) else (pictures[i] for i in images))
        shared = int((owners > 1).sum())
        if shared and self._value == "caption":
            notes.append(f"{shared} captions are those of several images: one text each, linked to all of them")
        if len(chosen) <= _COMPARED or self._reading.verify or self._reading.skip_bad:
            notes += note_equal(chosen)
        return OneToManyPairs(
            name=name,
            split=split,
            images=chosen,
            texts=texts if len(captions) == len(texts) else tuple(texts[j] for j in captions),
            links=np.stack([rows, columns], axis=1),
            text_kinds=(self._value,) * len(captions),
            notes=notes,
        )


def listed(captions: object) -> object:
    """Return captions as a list, or one as a text: cells may hold a list or an object as JSON or Python writes it, and
    Karpathy's are objects with the text as "raw"."""
    if isinstance(captions, str) and captions.lstrip()[:1] in _LISTS:
        for parse in (json.loads, ast.literal_eval):
            with suppress(ValueError, SyntaxError, MemoryError, RecursionError), catch_warnings():
                simplefilter("ignore")  # of escapes in what is no list
                return listed(parse(captions.strip()))
    if isinstance(captions, Mapping):
        return captions.get("raw")
    if isinstance(captions, list | tuple):
        return [text.get("raw") if isinstance(text, Mapping) else text for text in captions]
    return captions


def _different_texts(texts: list[str]) -> tuple[list[str], Int64[np.ndarray, " texts"]]:
    """Return the different texts, and the number of each text among them."""
    if not repeated(texts):
        return texts, np.arange(len(texts))
    numbers = dict.fromkeys(texts, 0)
    numbers.update(zip(numbers, range(len(numbers)), strict=True))
    return list(numbers), np.fromiter(map(numbers.__getitem__, texts), np.int64, len(texts))


def _one_each(pictures: Sequence[Picture], found: Located) -> Int64[np.ndarray, " images"]:
    """Return for every image the first one of the same file."""
    first: dict[str, int] = {}
    same = np.arange(len(pictures))
    for place, path in found.paths.items():
        same[place] = first.setdefault(path, place)
    return same


class _Reasons:
    """Counts what is wrong by reason, and keeps the names of the first few."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._first: dict[str, list[str]] = {}

    def add(self, reason: str, where: str) -> None:
        self._counts[reason] += 1
        first = self._first.setdefault(reason, [])
        if len(first) <= _NAMED:
            first.append(where)

    @property
    def count(self) -> int:
        return sum(self._counts.values())

    def counted(self) -> list[tuple[str, int, str]]:
        return [(reason, count, some(self._first[reason])) for reason, count in self._counts.items()]

    def told(self) -> list[str]:
        return [f"{count} with {reason} ({named})" for reason, count, named in self.counted()]


def note_equal(pictures: Sequence[Picture]) -> list[str]:
    """Return a note on pictures that are equal byte for byte, which stay different images; none if there are none."""
    equal = equal_files([(os.fspath(p.file), p.offset or 0, p.size) for p in pictures])
    if not equal:
        return []
    told = some([f"{pictures[place].key} = {pictures[first].key}" for place, first in equal])
    return [f"{len(equal)} image files are equal byte for byte to another, and yet images of their own: {told}"]


def _different(indices: Int64[np.ndarray, " some"], size: int) -> int:
    return int(np.count_nonzero(np.bincount(indices, minlength=size)))


def _numbered_anew(
    indices: Int64[np.ndarray, " some"], size: int
) -> tuple[Int64[np.ndarray, " used"], Int64[np.ndarray, " some"], Int64[np.ndarray, " used"]]:
    """Return the different indices in order, every index by its place among them, and how often each comes.

    As `numpy.unique`, without sorting: there are not many more numbers than indices.
    """
    counts = np.bincount(indices, minlength=size)
    if counts.all():
        return np.arange(size), indices, counts
    used = np.flatnonzero(counts)
    places = np.cumsum(counts > 0) - 1
    return used, places[indices], counts[used]


def _is_text(text: str) -> bool:
    """Whether there is something to read, in any script; halves of a character are not, nor signs that only join,
    part or turn others."""
    if text.isascii():
        return bool(text.strip())
    if not any(not sign.isspace() and category(sign) != "Cf" for sign in text):
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
