"""Labelled images on the disk: class folders, and clip_benchmark's tar shards."""

from collections.abc import Sequence
from pathlib import Path

from crossguard.checks import nearest, some, visible
from crossguard.data.files import files_below
from crossguard.data.gather import Gathering
from crossguard.data.labelled import TEMPLATES, LabelledImages, labelled
from crossguard.data.pictures import SUFFIXES, Picture
from crossguard.data.reading import Reading, one_of_each, same_split
from crossguard.data.shards import read_shard
from crossguard.progress import shown

CLASSES_FILE, TEMPLATES_FILE = "classnames.txt", "zeroshot_classification_templates.txt"
"""Names of the classes and prompts, one a line, as clip_benchmark has them."""
_USUAL = {"train", "val", "test"}


def load_image_folder(
    *,
    root: Path | str,
    split: str | None = None,
    classes: Sequence[str] | None = None,
    templates: Sequence[str] | None = None,
    reading: Reading | None = None,
) -> LabelledImages:
    """Load class folders: `ROOT/SPLIT/CLASS/any.jpg`, or `ROOT/CLASS/any.jpg`.

    Classes are the folders in the order of their names, with all pictures below them.

    Args:
        root: the folder; a `classnames.txt` in it names the classes in the order of their folders, and a
            `zeroshot_classification_templates.txt` the prompts.
        split: the folder of the split ("val" finds "validation", too); default: "test" where there are split folders.
        classes: names of the classes in the order of their folders, where these are codes.
        templates: prompts with `{c}` in the place of a class name.
        reading: how strictly, and whether links may lead out of `root`.

    Raises:
        ValueError: no such folder or split, no pictures, other numbers of names than of folders, broken pictures.
    """
    root = Path(root)
    home, split = _split_folder(root, split)
    folders = _folders(home)
    names = _names(root, classes) or folders
    if len(names) != len(folders):
        raise ValueError(
            f"Expected {len(folders)} names of classes, as folders in {visible(home)}, but got {len(names)}."
        )
    rows = Gathering(home, reading, unit="file", value="label")
    for number, folder in enumerate(folders):
        for path in files_below(home / folder, SUFFIXES):
            rows.add(path.relative_to(home).as_posix(), str(number), path.name)
    pairs = rows.build(name=_name(root), split=split, root=home)
    return labelled(pairs, names, _templates(root, templates))


def load_image_shards(
    *,
    root: Path | str,
    split: str = "test",
    classes: Sequence[str] | None = None,
    templates: Sequence[str] | None = None,
    image: str | None = None,
    reading: Reading | None = None,
) -> LabelledImages:
    """Load clip_benchmark's layout: `ROOT/SPLIT/0.tar`, ... of `KEY.webp` (or `.jpg`, `.png`) and `KEY.cls`.

    Args:
        root: the folder, with `classnames.txt` and `zeroshot_classification_templates.txt` beside the splits.
        split: the folder of the split.
        classes: names of the classes, where the file is missing.
        templates: prompts with `{c}`, in the place of the file's.
        image: which member of a sample is the image, where it has several.
        reading: how strictly.

    Raises:
        ValueError: no such folder, fewer shards than `nshards.txt` says, names that are missing, samples without
            picture or class, classes without a name, broken pictures: counted and named.
    """
    root, reading = Path(root), reading or Reading()
    home, split = _split_folder(root, split)
    shards = sorted(home.glob("[!.]*.tar"), key=lambda path: (len(path.name), path.name))
    _check_shards(home, shards)
    names = _names(root, classes)
    if names is None:
        raise ValueError(f"Expected the names of the classes in {visible(root / CLASSES_FILE)}, but there is none.")
    rows = Gathering(f"{len(shards)} shards", reading, unit="sample", value="label")
    pictures: list[Picture | str] = []
    with shown(reading.progress).task("Read shards", total=len(shards)) as task:
        for path in shards:
            samples, cut = read_shard(path, image=image, captions="cls", field="")
            if cut:
                rows.complain(f"an early end ({cut})", path.name)
            for sample in samples:
                key = f"{path.name}/{sample.key}"
                label = sample.captions[0] if len(sample.captions) == 1 else ""
                if sample.problem:
                    rows.refuse(sample.problem, key)
                elif label and not (label.isdecimal() and int(label) < len(names)):
                    rows.refuse(f"a label that is none of {len(names)} classes", key)
                else:
                    before = len(rows)
                    rows.add(key if sample.offset >= 0 else None, label or None, key)
                    if len(rows) > before:
                        pictures.append(Picture(key, path, "", sample.offset, sample.size))
            task.advance()
    pairs = rows.build(name=_name(root), split=split, root=home, pictures=pictures)
    return labelled(pairs, names, _templates(root, templates))


def _split_folder(root: Path, split: str | None) -> tuple[Path, str]:
    """Return the folder of a split and its name; the root itself where it has no folders of splits."""
    folders = _folders(root)
    splits = one_of_each(root, [name for name in folders if same_split(name) in _USUAL])
    wanted = same_split(split or "test")
    if wanted in splits:
        return root / splits[wanted], wanted
    if split is not None and split in folders:
        return root / split, split
    if splits:
        raise ValueError(
            f"Expected a split of {visible(root)}, but got {split or 'test'!r}: {nearest(wanted, splits)}."
        )
    told = same_split(root.absolute().name)
    if split is None or told == wanted:
        return root, told if told in _USUAL else "test"
    raise ValueError(
        f"Expected a folder {split!r} in {visible(root)}, but there is none ({some(folders) or 'no folders'}). Leave "
        "`split` out where the folders are classes."
    )


def _folders(root: Path) -> list[str]:
    try:
        return sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError as error:
        raise ValueError(f"Expected a folder of images at {visible(root)}, but got: {error}") from error


def _check_shards(home: Path, shards: Sequence[Path]) -> None:
    if not shards:
        raise ValueError(f"Expected shards such as 0.tar in {visible(home)}, but there are none.")
    count = home / "nshards.txt"
    told = _lines(count)[0] if count.is_file() else str(len(shards))
    if told != str(len(shards)):
        raise ValueError(
            f"Expected {visible(told)} shards in {visible(home)}, as nshards.txt says, but got {len(shards)}."
        )


def _names(root: Path, given: Sequence[str] | None) -> list[str] | None:
    if given is not None:
        return list(given)
    return _lines(root / CLASSES_FILE) if (root / CLASSES_FILE).is_file() else None


def _templates(root: Path, given: Sequence[str] | None) -> Sequence[str]:
    if given is not None:
        return given
    return _lines(root / TEMPLATES_FILE) if (root / TEMPLATES_FILE).is_file() else TEMPLATES


def _lines(path: Path) -> list[str]:
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"Expected lines of text in {visible(path)}, but got: {error}") from error
    while lines and not lines[-1]:
        lines.pop()
    if not lines:
        raise ValueError(f"Expected lines of text in {visible(path)}, but it is empty.")
    return lines


def _name(root: Path) -> str:
    return root.absolute().name or "images"
