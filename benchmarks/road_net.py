"""Train `RoadNet` on ablated images and print its road IoU, whole and ablated.

python benchmarks/road_net.py --steps 800                                  # the drawn roads
python benchmarks/road_net.py --data pothole --root FOLDER --size 112 192 --shares 0.05 0.05 --rare 4   # real
"""

import time

import numpy as np

import crossguard as cg
from ablated_answers import answers, training_options, vote
from crossguard.models.road_net import RoadNet
from crossguard.progress import Lines
from crossguard.training.ablated_segmenter import flip_and_tint, train_ablated_segmenter


def iou(truth: np.ndarray, answer: np.ndarray, label: int = 1) -> float:
    judged = truth >= 0
    both = (truth == label) & (answer == label)
    either = ((truth == label) | (answer == label)) & judged
    return 100 * float(both.sum() / max(1, either.sum()))


def main() -> None:
    parser = training_options(__doc__, steps=800, batch_size=8, lr=2e-3)
    parser.add_argument("--data", default="roads")
    parser.add_argument("--root", help="folder of a data set that is not built in")
    parser.add_argument("--size", type=int, nargs=2, help="height and width; default: the data set's own")
    parser.add_argument("--encoder", default="tiny")
    parser.add_argument("--geometry", default="depth", help="of roads and kitti-road: depth or normals")
    parser.add_argument("--shares", type=float, nargs=2, default=(0.0193, 0.00214), help="k / n of either modality")
    parser.add_argument("--whole", type=float, default=0.1)
    parser.add_argument("--rare", type=float, default=1.0, help="weight of label 1 in the loss")
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
    print(f"IoU of the vote of 15 ablated: {iou(test.labels, vote(drawn, 2)):.1f}")
    if given.save:
        model.save_pretrained(given.save)


if __name__ == "__main__":
    main()
