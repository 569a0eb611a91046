"""Watch sensors: accelerometer and gyroscope recordings of 7 shoulder exercises by 10 people, as windows.

Recorded at 50 Hz by a smartwatch on either wrist, 140 recordings of about 20 repetitions each (Burns et al., "Shoulder
physiotherapy exercise recognition", arXiv 1802.01489), packaged with seglearn (BSD-3-Clause).
"""

import hashlib
import io
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from crossguard.checks import check_whole, lookup
from crossguard.data.samples import MultiModalSamples
from crossguard.extras import install

PEOPLE = {"train": (1, 2, 4, 5, 7, 8), "val": (3, 6), "test": (9, 10)}
CLASSES = ("pendulum", "abduction", "forward elevation", "internal rotation", "external rotation", "trapezius", "row")

_CODES = ("PEN", "ABD", "FEL", "IR", "ER", "TRAP", "ROW")
_SHA256 = "eb122f23cdf06ef6bd6c6c5312958ec5cf9d038e2e6d457b8081662c75a42537"


def load_watch(*, split: str = "test", window: int = 128, stride: int | None = None) -> MultiModalSamples:
    """Cut the recordings of a split's people into windows.

    People are split once and for all: train 1, 2, 4, 5, 7, 8; val 3, 6; test 9, 10. No person is in two splits.

    Args:
        split: "train", "val" or "test".
        window: time steps per window, at 50 a second; they are the elements of a certificate.
        stride: time steps from one window to the next; None means `window`, so that no time step is in two windows.

    Returns:
        Modalities "accelerometer" (in units of g) and "gyroscope" (in rad/s), float32 [samples, window, 3] with axes
        x, y, z; labels in the order of `CLASSES`; `groups` is the person. A recording's last, incomplete window is
        dropped.

    Raises:
        ModuleNotFoundError: the package that holds the recordings is not installed.
        ValueError: an unknown split, a file that is not the known one, a window or stride < 1 or too long.
    """
    people = lookup(PEOPLE, split, what="split")
    stride = window if stride is None else stride
    window, stride = check_whole(window, "window", least=1), check_whole(stride, "stride", least=1)
    recordings = [row for row in _recordings() if row[2] in people]
    longest = max(len(signal) for signal, _, _ in recordings)
    if window > longest:
        raise ValueError(f"Expected `window` <= {longest} time steps, the longest recording, but got {window}.")
    cut = [_windows(signal, window, stride) for signal, _, _ in recordings]
    windows = np.concatenate(cut)
    counts = [len(part) for part in cut]
    return MultiModalSamples(
        name="watch",
        split=split,
        modalities={
            "accelerometer": np.ascontiguousarray(windows[..., :3]),
            "gyroscope": np.ascontiguousarray(windows[..., 3:]),
        },
        labels=np.repeat([label for _, label, _ in recordings], counts).astype(np.int64),
        classes=CLASSES,
        groups=np.repeat([person for _, _, person in recordings], counts).astype(np.int64),
    )


def _windows(signal: np.ndarray, window: int, stride: int) -> np.ndarray:
    if len(signal) < window:
        return np.empty((0, window, signal.shape[1]), dtype=np.float32)
    views = np.lib.stride_tricks.sliding_window_view(signal, window, axis=0)[::stride]
    return views.transpose(0, 2, 1).astype(np.float32)


@cache
def _recordings() -> tuple[tuple[np.ndarray, int, int], ...]:
    """Return (signal float64 [time steps, 6], label, person) of every recording, in the file's order."""
    path = _data_file()
    values = _unpickle_known(path)
    assert tuple(values["y_labels"]) == _CODES
    return tuple(
        (signal, int(label), int(person))
        for signal, label, person in zip(values["X"], values["y"], values["subject"], strict=True)
    )


def _data_file() -> Path:
    # Found without importing the package, which would load scikit-learn.
    spec = find_spec("seglearn")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"The watch data come with the seglearn package: {install('demo')}")
    return Path(spec.origin).parent / "data" / "watch_dataset.npy"


def _unpickle_known(path: Path) -> dict[str, Any]:
    """Unpickle the one file whose content is known; any other is refused unread."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"Expected the watch data at {path}, but it could not be read: {error}") from error
    found = hashlib.sha256(content).hexdigest()
    if found != _SHA256:
        raise ValueError(
            f"Expected the watch data of seglearn 1.2.5 (SHA-256 {_SHA256[:12]}...) at {path}, but the file's is "
            f"{found[:12]}...; it is a pickle, so no other file is opened."
        )
    return np.load(io.BytesIO(content), allow_pickle=True).item()
