"""Train `EmotionNet` on ablated clip-level features, held out by actor, and print its accuracy, whole and ablated.

python benchmarks/emotion_net.py FILE --steps 600
"""

import time

import numpy as np

from ablated_answers import answers, training_options, vote
from crossguard.data import MultiModalSamples
from crossguard.data.ravdess import load_ravdess_features
from crossguard.models.emotion_net import EmotionNet
from crossguard.training.ablated import train_ablated


def main() -> None:
    parser = training_options(__doc__, steps=600, batch_size=128, lr=2e-3)
    parser.add_argument("file")
    parser.add_argument("--folds", type=int, default=3, help="actors are held out in so many turns")
    parser.add_argument("--weight-decay", type=float, default=0.05)
    parser.add_argument("--width", type=int, default=96)
    parser.add_argument("--keep", type=int, nargs=2, default=(10, 40), help="features kept of either modality")
    parser.add_argument("--modality", help="use this one alone")
    given = parser.parse_args()
    every = load_ravdess_features(file=given.file, split="all")
    keep = dict(zip(every.modalities, given.keep, strict=True))
    if given.modality:
        every = MultiModalSamples(
            every.name,
            every.split,
            {given.modality: every.modalities[given.modality]},
            every.labels,
            every.classes,
            every.groups,
        )
        keep = {given.modality: keep[given.modality]}
    rows = []
    started = time.perf_counter()
    for fold in range(given.folds):
        held = (every.groups - 1) // 2 % given.folds == fold
        train, test = every.select(np.flatnonzero(~held)), every.select(np.flatnonzero(held))
        model = EmotionNet.for_samples(train, width=given.width, seed=given.seed)
        model = train_ablated(
            model,
            train,
            keep=keep,
            steps=given.steps,
            batch_size=given.batch_size,
            lr=given.lr,
            weight_decay=given.weight_decay,
            seed=given.seed,
        )
        drawn = answers(model, test, keep, draws=50, batch_size=len(test))
        shown = (*answers(model, test, None, batch_size=len(test)), vote(drawn, len(model.classes)))
        whole, voted = ((answer == test.labels).mean() for answer in shown)
        rows.append([whole, np.mean([(answer == test.labels).mean() for answer in drawn]), voted])
        print(
            f"fold {fold}: whole {rows[-1][0]:.3f}, ablated {rows[-1][1]:.3f}, vote of 50 {rows[-1][2]:.3f}, "
            f"{time.perf_counter() - started:.0f} s",
            flush=True,
        )
    whole, ablated, voted = np.mean(rows, axis=0)
    print(f"keep {keep}: whole {whole:.3f}, ablated {ablated:.3f}, vote of 50 {voted:.3f}")


if __name__ == "__main__":
    main()
