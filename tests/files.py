"""Files in the layouts of the real data sets, written small."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def real(name: str) -> Path:
    """Where real data of this name lie; the test is skipped where there are none."""
    home = os.environ.get("CROSSGUARD_DATA")
    if not home or not (Path(home) / name).exists():
        pytest.skip("CROSSGUARD_DATA does not say where the real data lie")
    return Path(home) / name


def write_clip(path: Path, *, pitch=440.0, seconds=1.0, sound=True, brightness=(20, 220)):
    """A clip at 25 frames a second that grows brighter from first to last, with a tone; needs PyAV."""
    import av

    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=25)
        video.width, video.height, video.pix_fmt = 48, 32, "yuv420p"
        stream = container.add_stream("aac", rate=48_000, layout="mono") if sound else None
        for number in range(round(25 * seconds)):
            level = brightness[0] + (brightness[1] - brightness[0]) * number / (25 * seconds)
            picture = np.full((32, 48, 3), level, dtype=np.uint8)
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(video.encode(None))
        if stream is not None:
            time = np.arange(round(48_000 * seconds)) / 48_000
            tone = (0.4 * np.sin(2 * np.pi * pitch * time)).astype(np.float32)
            for start in range(0, len(tone), 1024):
                frame = av.AudioFrame.from_ndarray(tone[None, start : start + 1024], format="fltp", layout="mono")
                frame.sample_rate, frame.pts = 48_000, start
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))


def write_ravdess(root: Path) -> Path:
    """Four training clips and two for testing, of two emotions that brightness and pitch tell apart."""
    for actor in (1, 2, 7):
        folder = root / f"Actor_{actor:02d}"
        folder.mkdir(parents=True)
        for emotion, pitch, brightness in ((3, 300.0, (20, 90)), (5, 2500.0, (150, 220))):
            name = f"01-01-{emotion:02d}-01-01-01-{actor:02d}.mp4"
            write_clip(folder / name, pitch=pitch, seconds=0.6, brightness=brightness)
    return root


def write_potholes(root: Path, stems=("1_01", "1_02", "2_01", "3_01"), *, size=(12, 20)) -> Path:
    """Photographs of even road with one pothole, a pixel deeper in disparity, and three pixels without any."""
    generator = np.random.default_rng(0)
    height, width = size
    for part in ("rgb", "disp", "label"):
        (root / part).mkdir(parents=True)
    for stem in stems:
        pixels = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"rgb/{stem}.jpg")
        disparity = np.full((height, width), 5000, dtype=np.uint16)
        disparity[0, :3], disparity[5, 5] = 0, 5000 - 256
        Image.fromarray(disparity).save(root / f"disp/{stem}.png")
        label = np.zeros((height, width), dtype=np.uint8)
        label[5, 5] = 255
        Image.fromarray(label).save(root / f"label/{stem}.png")
    return root


def write_features(path: Path, **changes) -> Path:
    """The archive of clip-level features: three clips, one of each split."""
    stems = ["01-01-01-01-01-01-01", "01-01-08-01-01-01-07", "01-01-05-01-01-01-05"]
    values = {
        "video_au": np.arange(12.0, dtype=np.float32).reshape(3, 4),
        "audio_mfcc": np.ones((3, 5), dtype=np.float32),
        "emotion": np.array([0, 7, 4]),
        "actor": np.array([1, 7, 5]),
        "clip": np.array(stems),
    }
    np.savez(path, **{**values, **changes})
    return path
