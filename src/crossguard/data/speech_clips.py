"""CREMA-D and the GRID corpus: clips of people who speak, as frames and sound."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np

from crossguard.checks import check_choice, check_whole, lookup, some, visible
from crossguard.data.clips import Clip, read_clip
from crossguard.data.files import files_below
from crossguard.data.json_stream import read_json
from crossguard.data.kitti_road import split_of
from crossguard.data.pictures import UNREADABLE, as_rgb, open_image
from crossguard.data.samples import MultiModalSamples
from crossguard.progress import Reporter, shown
from crossguard.runs import DAMAGED, read_npz

VIDEOS = frozenset({"mp4", "flv", "mpg", "mpeg", "avi", "mov", "mkv", "webm"})
SOUNDS = frozenset({"wav", "mp3", "flac"})
CREMA_D = {"ANG": "anger", "DIS": "disgust", "FEA": "fear", "HAP": "happy", "NEU": "neutral", "SAD": "sad"}
_CREMA_D_NAME = re.compile(r"(1\d{3})_[A-Z]{3}_([A-Z]{3})_[A-Z]{1,2}")
GRID = {
    "command": dict(zip("blps", ("bin", "lay", "place", "set"), strict=True)),
    "colour": dict(zip("bgrw", ("blue", "green", "red", "white"), strict=True)),
    "preposition": dict(zip("abiw", ("at", "by", "in", "with"), strict=True)),
    "letter": {letter: letter for letter in "abcdefghijklmnopqrstuvxyz"},
    "digit": {"z": "zero", "1": "one", "2": "two", "3": "three", "4": "four"}
    | {"5": "five", "6": "six", "7": "seven", "8": "eight", "9": "nine"},
    "adverb": dict(zip("anps", ("again", "now", "please", "soon"), strict=True)),
}
"""The words of a GRID sentence by place, each with the letter that a clip's name has for it; no "w" among letters."""
_GRID_NAME = re.compile("".join(f"[{''.join(words)}]" for words in GRID.values()))
_SPLITS = ("train", "val", "test", "all")


@dataclass(frozen=True)
class _Spoken:
    """A clip by its name: what is said or felt, and by whom."""

    label: int
    speaker: int
    split: str


def load_crema_d(
    *,
    root: Path | str,
    split: str = "test",
    frames: int = 16,
    frame_size: int = 64,
    steps: int = 64,
    coefficients: int = 20,
    progress: Reporter | None = None,
) -> MultiModalSamples:
    """Read CREMA-D (Cao et al., IEEE Transactions on Affective Computing 5(4), 2014): six emotions, 91 actors.

    Of every five actors, by number from 1001, three are for training, the fourth for validation, the fifth for testing.

    Args:
        root: folder that holds the clips (`VideoFlash/1001_DFA_ANG_XX.flv`), and their sound as `AudioWAV/*.wav` where
            the clips have none.
        split: "train", "val", "test" or "all".
        frames: as `load_ravdess`.
        frame_size: as `load_ravdess`.
        steps: as `load_ravdess`.
        coefficients: as `load_ravdess`.
        progress: where the clips read are shown.

    Returns:
        As `load_ravdess`, with the emotions of `CREMA_D`.

    Raises:
        ModuleNotFoundError: PyAV or librosa is not installed.
        ValueError: an unknown split, no clips, or clips that are broken or of other names (counted and named).
    """

    def parse(path: Path) -> _Spoken | None:
        found = _CREMA_D_NAME.fullmatch(path.stem)
        if found is None or found[2] not in CREMA_D:
            return None
        actor = int(found[1])
        part = ("train", "train", "train", "val", "test")[(actor - 1001) % 5]
        return _Spoken(list(CREMA_D).index(found[2]), actor, part)

    sizes = _Sizes(frames, frame_size, steps, coefficients)
    return _load("crema-d", Path(root), split, parse, tuple(CREMA_D.values()), sizes, progress)


def load_grid(
    *,
    root: Path | str,
    split: str = "test",
    word: str = "command",
    frames: int = 75,
    frame_size: int = 32,
    steps: int = 150,
    coefficients: int = 20,
    progress: Reporter | None = None,
) -> MultiModalSamples:
    """Read clips of the GRID corpus (Cooke et al., JASA 120(5), 2006): one sentence of six words each.

    Every speaker's clips are split alike, in an order that their names decide like a draw: a fifth for testing, a tenth
    for validation.

    Args:
        root: folder with the speakers' clips, such as `s1/bbaf2n.mpg`, and their sound (`.wav`) anywhere in it where
            the clips have none. Or a folder of what was cut from them: `video/bbaf2n.jpg` (frames of 3 : 2 side by
            side), `audio_logmel.npz` (`logmel` [clips, steps, bands], `ids`) and `labels.json` (`[{"id"}]`).
        split: "train", "val", "test" or "all".
        word: which word is the label: "command", "colour", "preposition", "letter", "digit" or "adverb".
        frames: as `load_ravdess`; of cut clips all frames are taken.
        frame_size: as `load_ravdess`; the same.
        steps: as `load_ravdess`; the same.
        coefficients: as `load_ravdess`; the same.
        progress: where the clips read are shown.

    Returns:
        As `load_ravdess`, with the words; of cut clips "video" is float32 [samples, frames, values of a frame in grey]
        and "audio" float32 [samples, steps, bands]. `groups` is the speaker, 0 where no folder tells it.

    Raises:
        ModuleNotFoundError: PyAV or librosa is not installed.
        ValueError: an unknown split or word, no clips, or clips that are broken or of other names (counted and named).
    """
    words = check_choice(word, GRID, "word") and GRID[word]
    place = list(GRID).index(word)

    def parse(path: Path) -> _Spoken | None:
        if not _GRID_NAME.fullmatch(path.stem):
            return None
        told = re.search(r"s(\d+)", path.parent.as_posix().rpartition("/")[2])
        return _Spoken(list(words).index(path.stem[place]), int(told[1]) if told else 0, "")

    if (Path(root) / "audio_logmel.npz").is_file():
        return _load_cut(Path(root), split, parse, tuple(words.values()), progress)
    sizes = _Sizes(frames, frame_size, steps, coefficients)
    return _load("grid", Path(root), split, parse, tuple(words.values()), sizes, progress)


@dataclass(frozen=True)
class _Sizes:
    frames: int
    frame_size: int
    steps: int
    coefficients: int

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            object.__setattr__(self, name, check_whole(value, name, least=1))


def _load(
    name: str,
    root: Path,
    split: str,
    parse: Callable[[Path], _Spoken | None],
    classes: Sequence[str],
    sizes: _Sizes,
    progress: Reporter | None,
) -> MultiModalSamples:
    lookup(dict.fromkeys(_SPLITS), split, what="split")
    sounds = {_whose(path): path for path in files_below(root, SOUNDS)}
    chosen = _chosen(files_below(root, VIDEOS), parse, split, root)
    clips: list[Clip] = []
    broken = []
    with shown(progress).task("read clips", total=len(chosen)) as task:
        for path, _ in chosen:
            sound = sounds.get(_whose(path)) or sounds.get(("", path.stem))
            try:
                clips.append(
                    read_clip(
                        path,
                        sound=sound,
                        frames=sizes.frames,
                        size=sizes.frame_size,
                        steps=sizes.steps,
                        coefficients=sizes.coefficients,
                    )
                )
            except ValueError as error:
                broken.append(f"{path.name}: {error}")
            task.advance(note=path.stem)
    if broken:
        raise ValueError(f"Expected {len(chosen)} whole clips, but {len(broken)} could not be read: {some(broken)}")
    video, audio = np.stack([clip.video for clip in clips]), np.stack([clip.audio for clip in clips])
    return _samples(name, split, video, audio, chosen, classes)


def _whose(path: Path) -> tuple[str, str]:
    """Return whom a file is of and its name: the same for a clip and for its sound in another folder."""
    told = [part for part in path.parts[:-1] if re.fullmatch(r"s\d+", part)]
    return told[-1] if told else "", path.stem


def _chosen(
    files: Iterable[Path], parse: Callable[[Path], _Spoken | None], split: str, root: Path
) -> list[tuple[Path, _Spoken]]:
    parsed = [(path, parse(path)) for path in files]
    wrong = [path.name for path, spoken in parsed if spoken is None]
    if wrong:
        raise ValueError(
            f"Expected the data set's names of clips below {visible(root)}, but {len(wrong)} are not: {some(wrong)}"
        )
    found = [(path, spoken) for path, spoken in parsed if spoken is not None]
    parts = _by_draw(found)
    chosen = [(path, spoken) for path, spoken in found if split in (spoken.split or parts[path], "all")]
    if not chosen:
        raise ValueError(
            f"Expected clips of the split {split!r} below {visible(root)}, but got {len(found)} of others."
        )
    return chosen


def _by_draw(found: Sequence[tuple[Path, _Spoken]]) -> dict[Path, str]:
    """Split every speaker's clips in an order that has nothing to do with what is said in them."""
    parts: dict[Path, str] = {}
    for speaker in {spoken.speaker for _, spoken in found}:
        own = [path for path, spoken in found if spoken.speaker == speaker]
        own.sort(key=lambda path: blake2b(path.stem.encode(), digest_size=8).digest())
        parts |= {path: split_of(position, len(own)) for position, path in enumerate(own)}
    return parts


def _load_cut(
    root: Path,
    split: str,
    parse: Callable[[Path], _Spoken | None],
    classes: Sequence[str],
    progress: Reporter | None,
) -> MultiModalSamples:
    lookup(dict.fromkeys(_SPLITS), split, what="split")
    try:
        archive = read_npz(root / "audio_logmel.npz")
        heard = dict(zip(map(str, archive["ids"]), archive["logmel"], strict=True))
        ids = [str(row["id"]) for row in read_json(root / "labels.json")]
    except DAMAGED as error:
        raise ValueError(
            f"Expected audio_logmel.npz and labels.json of cut clips in {visible(root)}, but got: {error!r}"
        ) from error
    missing = [name for name in ids if name not in heard or not (root / "video" / f"{name}.jpg").is_file()]
    if missing:
        raise ValueError(
            f"Expected video and sound of {len(ids)} clips, but those of {len(missing)} are missing: {some(missing)}"
        )
    chosen = _chosen([root / "video" / f"{name}.jpg" for name in ids], parse, split, root)
    pictures = []
    with shown(progress).task("read clips", total=len(chosen)) as task:
        for path, _ in chosen:
            try:
                with open_image(path) as image:
                    pictures.append(np.asarray(as_rgb(image).convert("L")))
            except UNREADABLE as error:
                raise ValueError(f"Expected frames side by side at {visible(path)}, but got: {error}") from error
            task.advance(note=path.stem)
    shapes = {picture.shape for picture in pictures}
    if len(shapes) > 1:
        raise ValueError(f"Expected clips of one size, but got {some(sorted(shapes))}.")
    height, width = shapes.pop()
    across = height * 3 // 2  # frames are half as wide again as high
    if width % across:
        raise ValueError(f"Expected frames of {height} x {across} side by side, but the pictures are {width} wide.")
    video = np.stack(pictures).reshape(len(pictures), height, -1, across).transpose(0, 2, 1, 3)
    audio = np.stack([heard[path.stem] for path, _ in chosen]).astype(np.float32)
    seen = video.reshape(len(pictures), video.shape[1], -1) / np.float32(255)
    return _samples("grid", split, seen, audio, chosen, classes)


def _samples(
    name: str,
    split: str,
    video: np.ndarray,
    audio: np.ndarray,
    chosen: Sequence[tuple[Path, _Spoken]],
    classes: Sequence[str],
) -> MultiModalSamples:
    return MultiModalSamples(
        name=name,
        split=split,
        modalities={"video": np.ascontiguousarray(video), "audio": audio},
        labels=np.array([spoken.label for _, spoken in chosen], dtype=np.int64),
        classes=tuple(classes),
        groups=np.array([spoken.speaker for _, spoken in chosen], dtype=np.int64),
    )
