"""`Gathering`: rows of images and captions as files have them become pairs, and every bad row is named at once."""

from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from crossguard.data.decode import undecodable
from crossguard.data.files import FileFinder
from crossguard.data.pairs import OneToManyPairs
from crossguard.data.pictures import Picture
from crossguard.progress import Reporter

_NAMED = 5


class Gathering:
    """Collects (image, captions) rows; rows that name the same image become one image with all their captions.

    Nothing is refused before the end, so that one error tells everything that is wrong with a file.

    Args:
        source: the annotation file, for messages.
        skip_bad: leave bad rows, missing files and images that do not decode out, and say so in the pairs' notes.
    """

    def __init__(self, source: Path | str, *, skip_bad: bool = False) -> None:
        self._source, self._skip_bad = source, skip_bad
        self._images: dict[str, int] = {}
        self._texts: dict[str, int] = {}
        self._rows, self._columns = array("q"), array("q")
        self._bad: dict[str, list[str]] = {}
        self._ids: dict[str, str] = {}

    def add(self, image: object, captions: object, *, where: str, image_id: object = None) -> None:
        """Take one row.

        Args:
            image: the image's path as the file has it.
            captions: a caption or a list of captions; blanks around them are dropped.
            where: how to find the row, such as "row 7".
            image_id: the field's key of the image; it must always come with the same path.
        """
        texts = [captions] if isinstance(captions, str) else captions
        if not isinstance(image, str) or not image.strip() or not isinstance(texts, list | tuple) or not texts:
            self.refuse("no image path or no caption", where)
            return
        if image_id is not None and self._ids.setdefault(str(image_id), image) != image:
            self.refuse("an `image_id` of another image", where)
            return
        good = [text.strip() for text in texts if isinstance(text, str) and _is_text(text)]
        if len(good) < len(texts):
            self.refuse("a caption that is blank or no text", where)
        for text in good:
            self._rows.append(self._images.setdefault(image, len(self._images)))
            self._columns.append(self._texts.setdefault(text, len(self._texts)))

    def refuse(self, kind: str, where: str) -> None:
        """Note a row that is bad for a reason that only the reader of the file can see."""
        self._bad.setdefault(kind, []).append(where)

    def __len__(self) -> int:
        """How many images there are."""
        return len(self._images)

    @property
    def images(self) -> Sequence[str]:
        """The images' paths as the file has them, in its order."""
        return tuple(self._images)

    def build(
        self,
        *,
        name: str,
        split: str,
        root: Path,
        pictures: Sequence[Picture] | None = None,
        verify: bool = False,
        workers: int | None = None,
        progress: Reporter | None = None,
    ) -> OneToManyPairs:
        """Check the image files and make the pairs.

        Args:
            name: of the data set.
            split: of the data set.
            root: folder that the images' paths start from.
            pictures: where every image lies, in the order of `images`; None: a file each, below `root`.
            verify: decode every image once; with `skip_bad` that is always done.
            workers: threads that decode; default: one per core.
            progress: where the check is shown.

        Raises:
            ValueError: bad rows, missing files or images that do not decode, counted and named; or no row is left.
        """
        if pictures is None:
            pictures = tuple(Picture(key=image, path=root / image) for image in self._images)
        finder = FileFinder()
        missing = {i for i, picture in enumerate(pictures) if not finder.has(picture.path)}
        broken: dict[int, str] = {}
        if verify or self._skip_bad:
            there = [i for i in range(len(pictures)) if i not in missing]
            reasons = undecodable([pictures[i] for i in there], workers=workers, progress=progress)
            broken = {there[place]: reason for place, reason in reasons.items()}
        problems = self._problems(pictures, root, missing, broken)
        if problems and not self._skip_bad:
            raise ValueError(f"{'; '.join(problems)}. Mend them, or leave them out with skip_bad=True (--skip-bad).")
        links = np.stack([np.array(side, dtype=np.int64) for side in (self._rows, self._columns)], axis=1)
        links = links[~np.isin(links[:, 0], [*missing, *broken])]
        if not len(links):
            raise ValueError(f"Expected images with captions in {self._source}, but none is whole: {problems}.")
        notes = [f"left out: {problem}" for problem in problems]
        different = np.unique(links, axis=0)
        if len(different) < len(links):
            notes.append(f"{len(links) - len(different)} captions of {self._source} repeat one of the same image")
        return _pairs(name, split, pictures, tuple(self._texts), different, notes)

    def _problems(
        self, found: Sequence[Picture], root: Path, missing: Iterable[int], broken: dict[int, str]
    ) -> list[str]:
        problems = []
        if self._bad:
            kinds = [f"{len(rows)} with {kind} ({_some(rows)})" for kind, rows in self._bad.items()]
            problems.append(f"Expected whole rows in {self._source}, but got {', '.join(kinds)}")
        names = [found[i].key for i in sorted(missing)]
        if names:
            problems.append(
                f"Expected {len(found)} image files below {root}, but {len(names)} are missing: {_some(names)}"
            )
        if broken:
            told = [f"{found[i].key} ({reason})" for i, reason in sorted(broken.items())]
            problems.append(f"Expected {len(found)} images that decode, but {len(told)} do not: {_some(told)}")
        return problems


def _pairs(
    name: str, split: str, pictures: Sequence[Picture], texts: Sequence[str], links: np.ndarray, notes: Sequence[str]
) -> OneToManyPairs:
    """Keep the images and texts that have a link; most often that is all of them."""
    images, rows = np.unique(links[:, 0], return_inverse=True)
    captions, columns = np.unique(links[:, 1], return_inverse=True)
    return OneToManyPairs(
        name=name,
        split=split,
        images=tuple(pictures[i] for i in images),
        texts=tuple(texts[j] for j in captions),
        links=np.stack([rows, columns], axis=1),
        text_kinds=("caption",) * len(captions),
        notes=notes,
    )


def _is_text(text: str) -> bool:
    """Whether there is something to read, in any script; halves of a character are not."""
    return bool(text.strip()) and not any("\ud800" <= sign <= "\udfff" for sign in text)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
