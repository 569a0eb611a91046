"""Finding images that do not decode, before long work rather than in the midst of it."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

from PIL import UnidentifiedImageError

from crossguard.data.pictures import FORMATS, UNREADABLE, Picture, as_rgb, open_image
from crossguard.progress import Reporter, shown

_CHUNK = 64


def undecodable(
    pictures: Sequence[Picture], *, workers: int | None = None, progress: Reporter | None = None
) -> dict[int, str]:
    """Decode every picture once and return the reasons of those that fail, by position.

    JPEGs are decoded at an eighth of their size, which reads the whole file and costs less than half. Pillow lets go of
    Python's lock while it decodes, so that threads keep all cores busy.

    Args:
        pictures: the pictures; their files are there.
        workers: threads; default: one per core.
        progress: where it is shown.

    Raises:
        ValueError: `workers` below 1.
    """
    if workers is not None and workers < 1:
        raise ValueError(f"Expected `workers` >= 1, but got {workers}.")
    bad: dict[int, str] = {}
    chunks = [pictures[start : start + _CHUNK] for start in range(0, len(pictures), _CHUNK)]
    with (
        shown(progress).task("Check images", total=len(pictures)) as task,
        ThreadPoolExecutor(workers or os.cpu_count()) as pool,
    ):
        for number, reasons in enumerate(pool.map(_check_all, chunks)):
            bad |= {number * _CHUNK + place: reason for place, reason in enumerate(reasons) if reason}
            task.advance(len(reasons), note=f"{len(bad)} bad" if bad else "")
    return bad


def decode_error(content: bytes) -> str:
    """Return why an encoded image does not decode; an empty string when it does."""
    try:
        with open_image(BytesIO(content)) as image:
            image.draft("RGB", (max(1, image.width // 8), max(1, image.height // 8)))
            image.load()
            if image.mode.startswith(("I", "F")):
                as_rgb(image)
    except UnidentifiedImageError:
        return f"no known image format ({', '.join(FORMATS)})" if content else "the file is empty"
    except UNREADABLE as error:
        return str(error)
    return ""


def _check_all(pictures: Sequence[Picture]) -> list[str]:
    return [_check(picture) for picture in pictures]


def _check(picture: Picture) -> str:
    try:
        return decode_error(picture.read())
    except ValueError as error:
        return str(error)
