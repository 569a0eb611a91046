"""Train `RoadNet` on ablated images and print its road IoU, whole and ablated.

python benchmarks/road_net.py --steps 800                                  # the drawn roads
python benchmarks/road_net.py --data pothole --root FOLDER --size 112 192 --shares 0.05 0.05 --rare 4   # real
"""

import argparse
import time

import numpy as np
import torch

import crossguard as cg
from crossguard.models.road_net import RoadNet
from crossguard.progress import Lines
from crossguard.training.ablated_loop import random_masks
from crossguard.training.ablated_segmenter import flip_and_tint, train_ablated_segmenter


def iou(truth: np.ndarray, answer: np.ndarray, label: int = 1) -> float:
    judged = truth >= 0
    both = (truth == label) & (answer == label)
    either = ((truth == label) | (answer == label)) & judged
    return 100 * float(both.sum() / max(1, either.sum()))


@torch.no_grad()
def answers(model, samples, keep, *, draws=3, seed=1) -> list[np.ndarray]:
    generator = torch.Generator().manual_seed(seed)
    height, width = samples.labels.shape[1:]
    found = []
    for _ in range(draws if keep else 1):
        parts = []
        for start in range(0, len(samples), 16):
            images = {m: torch.from_numpy(samples.modalities[m][start : start + 16]) for m in model.modalities}
            count = len(next(iter(images.values())))
            kept = keep and {
                m: random_masks(count, height * width, k, generator=generator).unflatten(1, (height, width))
                for m, k in keep.items()
            }
            parts.append(model(images, kept).argmax(dim=1).numpy())
        found.append(np.concatenate(parts))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="roads")
    parser.add_argument("--root", help="folder of a data set that is not built in")
    parser.add_argument("--size", type=int, nargs=2, help="height and width; default: the data set's own")
    parser.add_argument("--encoder", default="tiny")
    parser.add_argument("--geometry", default="depth", help="of roads and kitti-road: depth or normals")
    parser.add_argument("--shares", type=float, nargs=2, default=(0.0193, 0.00214), help="k / n of either modality")
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--whole", type=float, default=0.1)
    parser.add_argument("--rare", type=float, default=1.0, help="weight of label 1 in the loss")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", help="folder for the model")
    given = parser.parse_args()
    options = {"geometry": given.geometry} if given.data in ("roads", "kitti-road") else {}
    if given.size:
        options["size"] = given.size
    if given.root:
        options["root"] = given.root
    train, test = (cg.load_samples(given.data, split=split, **options) for split in ("train", "test"))
    n = int(np.prod(train.labels.shape[1:]))
    keep = {m: max(1, round(share * n)) for m, share in zip(train.modalities, given.shares, strict=True)}
    model = RoadNet.for_samples(train, encoder=given.encoder, seed=given.seed)
    print(
        f"{len(train)} training and {len(test)} test images, n = {n}, keep {keep}, "
        f"{sum(p.numel() for p in model.parameters())} weights"
    )
    started = time.perf_counter()
    model = train_ablated_segmenter(
        model,
        train,
        keep=keep,
        steps=given.steps,
        batch_size=given.batch_size,
        lr=given.lr,
        whole=given.whole,
        class_weights=(1.0, given.rare),
        augment=flip_and_tint,
        seed=given.seed,
        progress=Lines(),
    )
    print(f"trained in {time.perf_counter() - started:.0f} s")
    share = (train.labels == 1).mean(axis=0)
    best = max(iou(train.labels, np.broadcast_to(share > t, train.labels.shape)) for t in (0.2, 0.3, 0.4, 0.5))
    level = next(
        t for t in (0.2, 0.3, 0.4, 0.5) if iou(train.labels, np.broadcast_to(share > t, train.labels.shape)) == best
    )
    print(f"IoU of the mean training mask: {iou(test.labels, np.broadcast_to(share > level, test.labels.shape)):.1f}")
    print(f"IoU whole:   {iou(test.labels, answers(model, test, None)[0]):.1f}")
    drawn = answers(model, test, keep, draws=15)
    print(f"IoU ablated: {np.mean([iou(test.labels, answer) for answer in drawn[:3]]):.1f}")
    vote = (np.mean(drawn, axis=0) > 0.5).astype(int)
    print(f"IoU of the vote of 15 ablated: {iou(test.labels, vote):.1f}")
    if given.save:
        model.save_pretrained(given.save)


if __name__ == "__main__":
    main()
