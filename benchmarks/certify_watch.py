"""Train the watch classifier on ablated inputs, certify it on people it never met, print what it reaches.

python benchmarks/certify_watch.py [--split test] [--keep 5] [--draws 1000] [--steps 1500]
python benchmarks/certify_watch.py --model runs/watch-certify/model      # what that recipe trained

"early" holds early stopping against one look at all draws, at the same alpha: certificates of right labels, and the
share of the draws that it saves.
"""

import argparse
import json
import time
from dataclasses import replace

import torch

from crossguard.certify import certify, certify_early
from crossguard.data import load_samples
from crossguard.models import WatchNet, load_model
from crossguard.training.ablated import train_ablated, turn_sensors

RADII = (0, 1, 3, 5, 8)
EARLY = (1, 3, 5)


def main() -> None:
    """Train, certify, and print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", default="test")
    parser.add_argument("--keep", type=int, default=5)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", help="a folder; nothing is trained then")
    options = parser.parse_args()
    report: dict[str, object] = {"threads": torch.get_num_threads()}
    samples = load_samples("watch", split=options.split)
    keep = dict.fromkeys(samples.modalities, options.keep)
    if options.model:
        model = load_model(options.model)
    else:
        train = load_samples("watch", split="train", stride=26)
        model = WatchNet.for_samples(train, seed=options.seed)
        start = time.perf_counter()
        train_ablated(model, train, keep=keep, steps=options.steps, augment=turn_sensors, seed=options.seed)
        report["training_seconds"] = round(time.perf_counter() - start, 1)
    by_majority = certify(model, samples, keep=keep, draws=options.draws, seed=options.seed, bound="majority")
    for found in (by_majority, replace(by_majority, bound="gap")):
        at = {f"({r}, {r})": round(found.accuracy(dict.fromkeys(keep, r)), 4) for r in RADII}
        report[found.bound] = found.summary() | {"certified_accuracy": at}
    for r in EARLY:
        radii = dict.fromkeys(keep, r)
        early = certify_early(model, samples, keep=keep, radii=radii, draws=options.draws, seed=options.seed)
        right = early.certified & (early.labels == samples.labels)
        report[f"early ({r}, {r})"] = {
            "certified_accuracy": round(float(right.mean()), 4),
            "in one look": round(by_majority.accuracy(radii), 4),
            "saved": round(early.saved, 3),
        }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
