"""RAVDESS: acted emotions as video clips with speech, read from the files, or as clip-level features.

File names are seven two-digit codes, such as 01-01-06-01-02-01-12: modality (01 video and sound, 02 video, 03 sound),
channel (01 speech, 02 song), emotion (01..08), intensity, statement, repetition (01, 02 each), actor (01..24,
odd numbers men). Livingstone and Russo, PLoS ONE 13(5), 2018.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crossguard.checks import check_whole, lookup
from crossguard.data.clips import Clip, read_clip
from crossguard.data.files import files_below
from crossguard.data.samples import MultiModalSamples
from crossguard.progress import Reporter, shown
from crossguard.runs import DAMAGED, read_npz

EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
MODALITIES = {1: "video and sound", 2: "video", 3: "sound"}
CHANNELS = {1: "speech", 2: "song"}
ACTORS = 24

_FIELDS = ("modality", "channel", "emotion", "intensity", "statement", "repetition", "actor")
_LIMITS = (3, 2, 8, 2, 2, 2, ACTORS)
_NAME = re.compile(r"\d{2}(-\d{2}){6}")


@dataclass(frozen=True)
class ClipCode:
    """What a file's name says of it.

    Args:
        modality: 1 video and sound, 2 video, 3 sound.
        channel: 1 speech, 2 song.
        emotion: 1..8, in the order of `EMOTIONS`.
        intensity: 1 normal, 2 strong.
        statement: 1 "Kids are talking by the door", 2 "Dogs are sitting by the door".
        repetition: 1 or 2.
        actor: 1..24.
    """

    modality: int
    channel: int
    emotion: int
    intensity: int
    statement: int
    repetition: int
    actor: int

    @property
    def label(self) -> int:
        """Index of the emotion in `EMOTIONS`."""
        return self.emotion - 1


def parse_name(stem: str) -> ClipCode:
    """Read a file's name, without its ending.

    Raises:
        ValueError: not seven two-digit codes, or a code out of its range.

    Example:
        >>> parse_name("01-01-06-01-02-01-12").actor
        12
    """
    if not _NAME.fullmatch(stem):
        raise ValueError(f"Expected seven two-digit codes such as 01-01-06-01-02-01-12, but got {stem!r}.")
    codes = [int(part) for part in stem.split("-")]
    wrong = [
        f"{field} {code} (1..{limit})"
        for field, code, limit in zip(_FIELDS, codes, _LIMITS, strict=True)
        if not 1 <= code <= limit
    ]
    if wrong:
        raise ValueError(f"Expected codes in range in {stem!r}, but got {', '.join(wrong)}.")
    return ClipCode(*codes)


def split_of(actor: int) -> str:
    """Return the split of an actor; a man and a woman, as numbered, stay together.

    Test: 7, 8, 15, 16, 23, 24; validation: 5, 6, 13, 14, 21, 22; training: the other twelve.
    """
    return ("train", "train", "val", "test")[(actor - 1) // 2 % 4]


def load_ravdess(
    *,
    root: Path | str,
    split: str = "test",
    frames: int = 16,
    frame_size: int = 64,
    steps: int = 64,
    coefficients: int = 20,
    channel: str = "speech",
    progress: Reporter | None = None,
) -> MultiModalSamples:
    """Read the clips with video and sound below a folder.

    Frames are taken at equal distances over the whole clip, cut to a centred square, resized by area. The sound becomes
    MFCC of `steps` windows at equal distances over the whole clip. The clips of other modalities (video or sound alone)
    are left out.

    Args:
        root: folder that holds the clips (.mp4), directly or in folders such as `Actor_01`.
        split: "train", "val", "test" (by actor, see `split_of`), or "all".
        frames: frames per clip; they are the elements of "video".
        frame_size: rows and columns of a frame.
        steps: windows of sound per clip; they are the elements of "audio".
        coefficients: MFCC per window.
        channel: "speech" or "song".
        progress: where the clips read are shown.

    Returns:
        Modalities "video", float32 [samples, frames, 3 * frame_size * frame_size] in [0, 1] (a frame's pixels as one
        element, by channel, row, column), and "audio", float32 [samples, steps, coefficients]; labels in the order of
        `EMOTIONS`; `groups` is the actor.

    Raises:
        ModuleNotFoundError: PyAV or librosa is not installed.
        ValueError: an unknown split, no clips, a name that is no such code, a clip that is truncated or has no video or
            sound: all such files are counted, the first few named.
    """
    lookup(dict.fromkeys(("train", "val", "test", "all")), split, what="split")
    wanted = {name: number for number, name in CHANNELS.items()}
    number = lookup(wanted, channel, what="channel")
    frames, frame_size = check_whole(frames, "frames", least=1), check_whole(frame_size, "frame_size", least=1)
    steps, coefficients = check_whole(steps, "steps", least=1), check_whole(coefficients, "coefficients", least=1)
    chosen = [
        (path, code)
        for path, code in _clips(Path(root))
        if code.channel == number and code.modality == 1 and split in (split_of(code.actor), "all")
    ]
    if not chosen:
        raise ValueError(f"Expected clips of {channel} with video and sound of the split {split!r} below {root}: none.")
    clips: list[Clip] = []
    broken = []
    with shown(progress).task("read clips", total=len(chosen)) as task:
        for path, _ in chosen:
            try:
                clips.append(read_clip(path, frames=frames, size=frame_size, steps=steps, coefficients=coefficients))
            except ValueError as error:
                broken.append(f"{path.name}: {error}")
            task.advance(note=path.stem)
    if broken:
        raise ValueError(f"Expected {len(chosen)} whole clips, but {len(broken)} could not be read. {_named(broken)}")
    return _samples(
        "ravdess",
        split,
        {"video": np.stack([clip.video for clip in clips]), "audio": np.stack([clip.audio for clip in clips])},
        [code.label for _, code in chosen],
        [code.actor for _, code in chosen],
    )


def load_ravdess_features(*, file: Path | str, split: str = "test") -> MultiModalSamples:
    """Read clip-level features: facial action units of the video and MFCC statistics of the sound.

    Args:
        file: NumPy archive with `video_au` float [clips, units], `audio_mfcc` float [clips, coefficients], `emotion`
            [clips] in 0..7, `actor` [clips] and `clip` [clips], the file names' codes.
        split: "train", "val", "test" (by actor, see `split_of`), or "all".

    Returns:
        Modalities "video_au" and "audio_mfcc", float32 [samples, features, 1]: features are the elements; labels in the
        order of `EMOTIONS`; `groups` is the actor.

    Raises:
        ValueError: an unknown split, not such a file, arrays of different lengths, codes that contradict the arrays.
    """
    lookup(dict.fromkeys(("train", "val", "test", "all")), split, what="split")
    names = ("video_au", "audio_mfcc", "emotion", "actor", "clip")
    try:
        archive = read_npz(file)
        arrays = {name: archive[name] for name in names}
    except DAMAGED as error:
        raise ValueError(f"Expected a NumPy archive with {', '.join(names)} in {file}, but got: {error}") from error
    if len({len(array) for array in arrays.values()}) > 1:
        lengths = {name: len(array) for name, array in arrays.items()}
        raise ValueError(f"Expected arrays of one length in {file}, but got {lengths}.")
    codes = [parse_name(str(stem)) for stem in arrays["clip"]]
    told = list(zip(arrays["emotion"].tolist(), arrays["actor"].tolist(), strict=True))
    other = [i for i, code in enumerate(codes) if (code.label, code.actor) != told[i]]
    if other:
        raise ValueError(
            f"Expected emotion and actor as the clips' names say, but {len(other)} differ, such as "
            f"{arrays['clip'][other[0]]}: {told[other[0]]}."
        )
    rows = np.array([i for i, code in enumerate(codes) if split in (split_of(code.actor), "all")], dtype=np.int64)
    if not len(rows):
        raise ValueError(f"Expected clips of the split {split!r} in {file}, but got none.")
    return _samples(
        "ravdess-features",
        split,
        {m: arrays[m][rows].astype(np.float32)[..., None] for m in ("video_au", "audio_mfcc")},
        [codes[i].label for i in rows],
        [codes[i].actor for i in rows],
    )


def _samples(
    name: str, split: str, modalities: dict[str, np.ndarray], labels: Sequence[int], actors: Sequence[int]
) -> MultiModalSamples:
    return MultiModalSamples(
        name=name,
        split=split,
        modalities=modalities,
        labels=np.array(labels, dtype=np.int64),
        classes=EMOTIONS,
        groups=np.array(actors, dtype=np.int64),
    )


def _clips(root: Path) -> list[tuple[Path, ClipCode]]:
    """Return the clips below a folder, by name."""
    found, wrong = [], []
    for path in sorted(files_below(root, {"mp4"}), key=lambda path: path.name):
        try:
            found.append((path, parse_name(path.stem)))
        except ValueError as error:
            wrong.append(str(error))
    if wrong:
        raise ValueError(f"Expected names of RAVDESS below {root}, but {len(wrong)} are not. {_named(wrong)}")
    return found


def _named(problems: Sequence[str]) -> str:
    return " | ".join(problems[:5]) + (" | ..." if len(problems) > 5 else "")
