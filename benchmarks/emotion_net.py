"""Train `EmotionNet` on ablated clip-level features, held out by actor, and print its accuracy, whole and ablated.

python benchmarks/emotion_net.py FILE --steps 600
"""

import argparse
import time

import numpy as np
import torch

from crossguard.data import MultiModalSamples
from crossguard.data.ravdess import load_ravdess_features
from crossguard.models.emotion_net import EmotionNet
from crossguard.training.ablated import train_ablated
from crossguard.training.ablated_loop import random_masks


@torch.no_grad()
def right(model: EmotionNet, samples: MultiModalSamples, keep: dict[str, int] | None, *, draws: int = 1) -> list[float]:
    """Return the share of right samples: mean over the draws, and of the vote of all draws."""
    generator = torch.Generator().manual_seed(1)
    inputs = {m: torch.from_numpy(samples.modalities[m]) for m in model.modalities}
    votes = np.zeros((len(samples), len(model.classes)))
    single = []
    for _ in range(draws):
        kept = keep and {
            m: random_masks(len(samples), inputs[m].shape[1], k, generator=generator) for m, k in keep.items()
        }
        answer = model(inputs, kept).argmax(dim=1).numpy()
        single.append((answer == samples.labels).mean())
        votes[np.arange(len(samples)), answer] += 1
    return [float(np.mean(single)), float((votes.argmax(axis=1) == samples.labels).mean())]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("--folds", type=int, default=3, help="actors are held out in so many turns")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--weight-decay", type=float, default=0.05)
    parser.add_argument("--width", type=int, default=96)
    parser.add_argument("--keep", type=int, nargs=2, default=(10, 40), help="features kept of either modality")
    parser.add_argument("--modality", help="use this one alone")
    parser.add_argument("--seed", type=int, default=0)
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
        rows.append([right(model, test, None)[0], *right(model, test, keep, draws=50)])
        print(
            f"fold {fold}: whole {rows[-1][0]:.3f}, ablated {rows[-1][1]:.3f}, vote of 50 {rows[-1][2]:.3f}, "
            f"{time.perf_counter() - started:.0f} s",
            flush=True,
        )
    whole, ablated, vote = np.mean(rows, axis=0)
    print(f"keep {keep}: whole {whole:.3f}, ablated {ablated:.3f}, vote of 50 {vote:.3f}")


if __name__ == "__main__":
    main()
