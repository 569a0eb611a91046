"""Cut words out of clips of a speaker, frames and sound, as samples that `crossguard certify words-certify` takes.

    python benchmarks/certify_words.py FOLDER words.npz --word 0

FOLDER holds, of clips of the GRID corpus (Cooke et al., 2006; six words each), `video/ID.jpg` (frames side by side, 48
pixels wide, 12.5 a second), `audio_logmel.npz` (`logmel` [clips, steps, bands], a step each 20 ms, and `ids`) and
`labels.json` ([{"id", "words": [[start, end, word] x 6]}], seconds). Every fourth clip is for judging, the others are
for training. Elements are 16 frames and 64 steps of sound in the 1.28 seconds round the middle of the word.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image

FRAMES, STEPS, WIDTH = 16, 64, 48
FRAME_RATE, STEP_RATE = 12.5, 50.0


def window(start: float, length: int, rate: float, available: int) -> slice:
    """Return `length` places round a moment, inside what there is."""
    first = min(max(round(start * rate - length / 2), 0), available - length)
    return slice(first, first + length)


def main() -> None:
    """Write the npz."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--word", type=int, default=0, help="place of the word, 0 (command) to 5; 4 is the digit")
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
        video.append(frames[window(middle, FRAMES, FRAME_RATE, len(frames))].reshape(FRAMES, -1))
        steps = sound["logmel"][by_id[clip["id"]]]
        audio.append(steps[window(middle, STEPS, STEP_RATE, len(steps))])
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
