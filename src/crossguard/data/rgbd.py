"""Any folder of colour, depth and label pictures with the same names."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from crossguard.checks import some, visible
from crossguard.data.depth import read_pixels
from crossguard.data.files import suffix_of
from crossguard.data.json_stream import read_json
from crossguard.data.kitti_road import split_of
from crossguard.data.pictures import SUFFIXES, UNREADABLE, open_image
from crossguard.data.reading import one_of_each, same_split, split_said
from crossguard.data.samples import MultiModalSamples

_SPLITS = ("train", "val", "test")


def load_rgbd(
    *,
    root: Path | str,
    split: str = "test",
    size: Sequence[int] | None = None,
    rgb: str = "rgb",
    depth: str = "depth",
    label: str = "label",
    scale: float = 1.0,
    classes: Sequence[str] | None = None,
    ignore: int | None = None,
    blocks: bool = False,
) -> MultiModalSamples:
    """Load RGB, depth and labels from `ROOT/rgb`, `ROOT/depth` and `ROOT/label`, or from these in `ROOT/SPLIT`.

    Without folders of splits, files whose names all tell a split (`train_001.png`) are of it. Else the files are split
    in the order of their names, which for frames of a drive keeps neighbours together: the last fifth (rounded) is
    "test", the tenth before it "val", the rest "train"; "all" takes all of them.

    Args:
        root: the folder; a `classes.json` in it names the classes: a list, or an object of name and number.
        split: "train", "val", "test" or "all".
        size: (height, width) to resize to (RGB by area, the others to the nearest pixel); None keeps the files' own.
        rgb: folder of the colour pictures.
        depth: folder of the depth pictures: one channel of 8 or 16 bits, 0 where it is not known.
        label: folder of the labels: one channel of 8 bits, class numbers, or 0 and 255 for two classes.
        scale: what a depth value is multiplied by, such as 0.001 for millimetres; statistics of the depth are the
            model's business.
        classes: names of the classes, where there is no `classes.json`.
        ignore: the number of pixels that are not judged.
        blocks: split in the order of the names, whatever split these tell.

    Returns:
        Modalities "rgb", float32 [samples, 3, height, width] in [0, 1], and "depth", float32 [samples, 1, height,
        width], 0 where it is not known; labels int64 [samples, height, width], -1 where not judged; `groups` numbers
        the files.

    Raises:
        ValueError: no such folders, an unknown split, none of it, files missing (counted and named), pictures that do
            not decode, of other sizes or modes, labels of no class.
    """
    home, by_folder = _home(Path(root), split, rgb)
    folders = [_files(home / name) for name in (rgb, depth, label)]
    stems = sorted(folders[0], key=lambda stem: (len(stem), stem))
    missing = [
        f"{name}/{stem}"
        for name, found in zip((depth, label), folders[1:], strict=True)
        for stem in stems
        if stem not in found
    ]
    if missing or not stems:
        raise ValueError(
            f"Expected depth and label for each of {len(stems)} pictures in {visible(home / rgb)}, but "
            f"{len(missing)} are missing: {some(missing)}"
        )
    parts = _splits(stems, blocks=blocks)
    wanted_split = same_split(split)
    chosen = [s for s, part in zip(stems, parts, strict=True) if by_folder or wanted_split in (part, "all")]
    if not chosen:
        raise ValueError(
            f"Expected pictures of split {split!r} in {visible(home)}, but all are of {sorted(set(parts))}: take "
            "these, or blocks=True."
        )
    names = _classes(Path(root), classes)
    wanted = None if size is None else (size[0], size[1])
    rows = [_read(*[found[stem] for found in folders], size=wanted, scale=scale) for stem in chosen]
    shapes = {row[0].shape[1:] for row in rows}
    if len(shapes) > 1:
        raise ValueError(
            f"Expected pictures of one size in {visible(home)}, but got {some(sorted(shapes))}: give `size`."
        )
    labels, called = _labels(np.stack([row[2] for row in rows]), names, ignore, home)
    return MultiModalSamples(
        name=Path(root).absolute().name or "rgbd",
        split=wanted_split,
        modalities={"rgb": np.stack([row[0] for row in rows]), "depth": np.stack([row[1] for row in rows])},
        labels=labels,
        classes=called,
        groups=np.array([stems.index(stem) for stem in chosen], dtype=np.int64),
    )


def _home(root: Path, split: str, rgb: str) -> tuple[Path, bool]:
    if same_split(split) not in (*_SPLITS, "all"):
        raise ValueError(f"Expected split {', '.join(_SPLITS)} or all, but got {split!r}.")
    if (root / rgb).is_dir():
        return root, False
    folders = sorted(path.name for path in root.iterdir() if (path / rgb).is_dir()) if root.is_dir() else []
    found = one_of_each(root, folders)
    if same_split(split) in found:
        return root / found[same_split(split)], True
    raise ValueError(
        f"Expected a folder {rgb!r} in {visible(root)} or in its folder of split {split!r}, but there is none."
    )


def _files(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise ValueError(f"Expected pictures in {visible(folder)}, but there is no such folder.")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if suffix_of(path.name) in SUFFIXES and not path.name.startswith("."):
            if path.stem in found:
                raise ValueError(
                    f"Expected one picture called {visible(path.stem)} in {visible(folder)}, but got several."
                )
            found[path.stem] = path
    return found


def _splits(stems: Sequence[str], *, blocks: bool) -> list[str]:
    told = [split_said(stem) for stem in stems]
    if all(told) and not blocks:
        return [str(part) for part in told]
    return [split_of(position, len(stems)) for position in range(len(stems))]


def _read(
    colour: Path, depth: Path, label: Path, *, size: tuple[int, int] | None, scale: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    pixels, values, mask = (
        read_pixels(colour),
        _channel(depth, ("L", "I;16", "I;16B", "I")),
        _channel(label, ("L", "P", "1")),
    )
    if not pixels.shape[:2] == values.shape == mask.shape:
        raise ValueError(
            f"Expected RGB, depth and label of {visible(colour.stem)} of one size, but got {pixels.shape[:2]}, "
            f"{values.shape} and {mask.shape}."
        )
    if size is not None and size != mask.shape:
        height, width = size
        pixels = np.array(Image.fromarray(pixels).resize((width, height), Image.Resampling.BOX))
        nearest = tuple(((np.arange(to) + 0.5) * of / to).astype(int) for to, of in zip(size, mask.shape, strict=True))
        values, mask = values[np.ix_(*nearest)], mask[np.ix_(*nearest)]
    return pixels.transpose(2, 0, 1) / np.float32(255), values[None].astype(np.float32) * np.float32(scale), mask


def _channel(path: Path, modes: Sequence[str]) -> np.ndarray:
    try:
        with open_image(path) as image:
            mode, values = image.mode, np.array(image)
    except UNREADABLE as error:
        raise ValueError(f"Expected a picture at {visible(path)}, but it could not be read: {error}") from error
    if mode not in modes or (mode == "I" and (values.min() < 0 or values.max() > 2**16 - 1)):
        raise ValueError(f"Expected one channel ({', '.join(modes)}) in {visible(path)}, but got mode {mode!r}.")
    return values.astype(np.int64)


def _classes(root: Path, given: Sequence[str] | None) -> list[str] | None:
    path = root / "classes.json"
    if given is not None or not path.is_file():
        return None if given is None else list(given)
    try:
        told: Any = read_json(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"Expected names of classes as JSON in {visible(path)}, but got: {error}") from error
    if isinstance(told, dict) and sorted(map(str, told.values())) == sorted(map(str, range(len(told)))):
        return sorted(told, key=lambda name: int(told[name]))
    if isinstance(told, list) and told and all(isinstance(name, str) for name in told):
        return told
    raise ValueError(f"Expected a list of names, or names with the numbers from 0, in {visible(path)}.")


def _labels(
    found: np.ndarray, names: Sequence[str] | None, ignore: int | None, home: Path
) -> tuple[np.ndarray, tuple[str, ...]]:
    judged = found != ignore if ignore is not None else np.ones(found.shape, dtype=bool)
    values = np.unique(found[judged]).tolist()
    if values and set(values) <= {0, 255} and 255 in values:
        found = found // 255
        values = sorted({value // 255 for value in values})
    if names is None:
        names = [str(number) for number in range(max(values, default=0) + 1)]
    wrong = [value for value in values if value >= len(names)]
    if wrong:
        raise ValueError(
            f"Expected labels of {len(names)} classes (0..{len(names) - 1}) in {visible(home)}, but got {some(wrong)}. "
            "Give the one that is not judged with `ignore`."
        )
    return np.where(judged, found, -1), tuple(names)
