"""Cut words out of clips of a speaker, frames and sound, as samples that `crossguard certify words-certify` takes.

    python benchmarks/certify_words.py FOLDER words.npz --word 0
    python benchmarks/certify_words.py FOLDER cells.npz --word 4 --elements cells

FOLDER holds, of clips of the GRID corpus (Cooke et al., 2006; six words each), `video/ID.jpg` (frames side by side, 48
pixels wide, 12.5 a second), `audio_logmel.npz` (`logmel` [clips, steps, bands], a step each 20 ms, and `ids`) and
`labels.json` ([{"id", "words": [[start, end, word] x 6]}], seconds). Every fourth clip is for judging, the others are
for training. Elements are 16 frames and 64 steps of sound in the 1.28 seconds round the middle of the word; `cells` are
smaller ones, patches of 4 x 4 pixels (1,536 of them) and single bands of a step (2,560).
"""

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image

FRAMES, STEPS, WIDTH, PATCH = 16, 64, 48, 4
FRAME_RATE, STEP_RATE = 12.5, 50.0


def window(start: float, length: int, rate: float, available: int) -> slice:
    """Return `length` places round a moment, inside what there is."""
    first = min(max(round(start * rate - length / 2), 0), available - length)
    return slice(first, first + length)


def in_patches(frames: np.ndarray) -> np.ndarray:
    """Return frames [frames, height, width] as patches [patches, pixels], frame by frame."""
    count, height, width = frames.shape
    patches = frames.reshape(count, height // PATCH, PATCH, width // PATCH, PATCH).swapaxes(2, 3)
    return patches.reshape(-1, PATCH * PATCH)


def main() -> None:
    """Write the npz."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--word", type=int, default=0, help="place of the word, 0 (command) to 5; 4 is the digit")
    parser.add_argument("--elements", choices=("frames", "cells"), default="frames")
    chosen = parser.parse_args()
    sound = np.load(chosen.folder / "audio_logmel.npz")
    by_id = {str(name): place for place, name in enumerate(sound["ids"])}
    clips = json.loads((chosen.folder / "labels.json").read_text())
    classes = sorted({clip["words"][chosen.word][2] for clip in clips})
    video, audio, labels = [], [], []
    for clip in clips:
        start, end, word = clip["words"][chosen.word]
        middle = (start + end) / 2
        with Image.open(chosen.folder / "video" / f"{clip['id']}.jpg") as picture:
            strip = np.asarray(picture.convert("L"))
        frames = strip.reshape(strip.shape[0], -1, WIDTH).transpose(1, 0, 2)
        seen = frames[window(middle, FRAMES, FRAME_RATE, len(frames))]
        video.append(in_patches(seen) if chosen.elements == "cells" else seen.reshape(FRAMES, -1))
        steps = sound["logmel"][by_id[clip["id"]]]
        heard = steps[window(middle, STEPS, STEP_RATE, len(steps))]
        audio.append(heard.reshape(-1, 1) if chosen.elements == "cells" else heard)
        labels.append(classes.index(word))
    split = np.where(np.arange(len(clips)) % 4 == 3, "test", "train")
    np.savez_compressed(
        chosen.out,
        video=np.stack(video).astype(np.float32) / 255,
        sound=np.stack(audio).astype(np.float32),
        labels=np.array(labels),
        classes=np.array(classes),
        split=split,
    )
    print(f"{len(clips)} words, {(split == 'test').sum()} of them for judging; classes: {', '.join(classes)}")


if __name__ == "__main__":
    main()
