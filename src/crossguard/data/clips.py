"""Frames and sound of a video file, through PyAV and librosa."""

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32
from PIL import Image

from crossguard.extras import install

_RATE = 16_000  # samples per second that the sound is brought to
_WINDOW = 512  # samples per window of the MFCC: 32 ms
_COMPLETE = 0.95  # share of the announced length below which a file counts as truncated


@dataclass(frozen=True)
class Clip:
    """A clip as two sequences of elements.

    Args:
        video: float32 [frames, 3 * size * size] in [0, 1].
        audio: float32 [steps, coefficients], MFCC.
    """

    video: Float32[np.ndarray, "frames values"]
    audio: Float32[np.ndarray, "steps coefficients"]


def read_clip(path: Path, *, frames: int, size: int, steps: int, coefficients: int, sound: Path | None = None) -> Clip:
    """Decode a clip; frames and windows of sound are taken at equal distances over all of it.

    Args:
        path: a video file.
        frames: how many frames.
        size: rows and columns of a frame, cut from its middle.
        steps: how many windows of sound.
        coefficients: MFCC per window.
        sound: the file with the sound, for a video without any.

    Raises:
        ModuleNotFoundError: PyAV or librosa is not installed.
        ValueError: the file does not decode, has no video or no sound, or is shorter than it says: truncated.
    """
    av, librosa = _need("av"), _need("librosa")
    try:
        with av.open(str(path)) as container:
            own = bool(container.streams.audio)
            if not container.streams.video or not (own or sound):
                raise ValueError("Expected video and sound, but one of them is missing.")
            announced = container.duration / av.time_base if container.duration else 0.0
            expected = container.streams.video[0].frames
            pictures, samples = _decode(av, container)
        if not own:
            with av.open(str(sound)) as container:
                if not container.streams.audio:
                    raise ValueError(f"Expected sound in {sound}, but there is none.")
                announced = container.duration / av.time_base if container.duration else 0.0
                _, samples = _decode(av, container)
    except (av.error.FFmpegError, EOFError) as error:
        raise ValueError(f"Expected a whole video file, but it does not decode: {error}") from error
    if not pictures or not len(samples):
        raise ValueError(f"Expected frames and sound, but got {len(pictures)} frames and {len(samples)} samples.")
    if len(pictures) < _COMPLETE * expected or len(samples) < _COMPLETE * (announced - 0.2) * _RATE:
        raise ValueError(
            f"Expected {expected} frames and {announced:.2f} s, but the file ends after {len(pictures)} frames and "
            f"{len(samples) / _RATE:.2f} s of sound: it is truncated."
        )
    places = ((np.arange(frames) + 0.5) * len(pictures) / frames).astype(int)
    video = np.stack([_square(pictures[place], size) for place in places])
    audio = mfcc_windows(librosa, samples, steps=steps, coefficients=coefficients)
    return Clip(video=video, audio=audio)


def mfcc_windows(
    librosa: Any, sound: Float32[np.ndarray, " samples"], *, steps: int, coefficients: int
) -> Float32[np.ndarray, "steps coefficients"]:
    """Return the MFCC of windows of 32 ms at equal distances over the whole sound.

    Args:
        librosa: the package.
        sound: one channel at 16 kHz.
        steps: how many windows.
        coefficients: MFCC per window.
    """
    hop = max(1, len(sound) // steps)
    padded = np.pad(sound, (0, max(0, _WINDOW - len(sound))))
    power = librosa.feature.melspectrogram(y=padded, sr=_RATE, n_fft=_WINDOW, hop_length=hop, n_mels=64)
    # No floor below the clip's loudest moment, as librosa sets by default: it would let one window change the others.
    mfcc = librosa.feature.mfcc(S=librosa.power_to_db(power, top_db=None), n_mfcc=coefficients)
    windows = np.minimum(np.arange(steps), mfcc.shape[1] - 1)  # a sound of fewer samples than steps repeats its last
    return np.ascontiguousarray(mfcc.T[windows]).astype(np.float32)


def _decode(av: Any, container: Any) -> tuple[list[np.ndarray], Float32[np.ndarray, " samples"]]:
    """Return the frames as uint8 [height, width, 3] and the sound as one channel at 16 kHz."""
    resampler = av.AudioResampler(format="flt", layout="mono", rate=_RATE)
    pictures, parts = [], []
    chosen = [streams[0] for streams in (container.streams.video, container.streams.audio) if streams]
    for frame in container.decode(chosen):
        if isinstance(frame, av.VideoFrame):
            pictures.append(frame.to_ndarray(format="rgb24"))
        else:
            parts += [part.to_ndarray()[0] for part in resampler.resample(frame)]
    parts += [part.to_ndarray()[0] for part in resampler.resample(None)]
    return pictures, np.concatenate(parts).astype(np.float32) if parts else np.zeros(0, dtype=np.float32)


def _square(picture: np.ndarray, size: int) -> Float32[np.ndarray, " values"]:
    height, width = picture.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    image = Image.fromarray(picture[top : top + side, left : left + side]).resize((size, size), Image.Resampling.BOX)
    return (np.asarray(image).transpose(2, 0, 1).reshape(-1) / np.float32(255)).astype(np.float32)


def _need(module: str) -> Any:
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"Clips need {module}: {install('video')}") from error
