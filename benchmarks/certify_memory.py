"""Peak memory of certification at N = 100 and N = 10,000: it must not grow with N.

    python benchmarks/certify_memory.py [--draws 100 10000] [--size 48 160]

Each figure is the largest resident size of a process of its own (`ru_maxrss`). Two tasks: the road network on an image
of the given size, and the watch classifier on windows of 128 steps. Weights are random: they do not change the memory.
"""

import argparse
import json
import resource
import subprocess
import sys

import numpy as np
import torch

from crossguard.certify import certify, certify_segmentation
from crossguard.data import MultiModalSamples
from crossguard.models import WatchNet
from crossguard.models.road_net import RoadNet

WINDOWS = 20


def road(draws: int, size: tuple[int, int]) -> int:
    """Certify one image; return the bytes that its votes would take if each were kept as one byte."""
    rng = np.random.default_rng(0)
    images = {"rgb": rng.random((1, 3, *size), dtype=np.float32), "depth": rng.random((1, 1, *size), dtype=np.float32)}
    mask = np.zeros((1, *size), dtype=np.int64)
    samples = MultiModalSamples("noise", "test", images, mask, ("other", "road"), np.arange(1))
    keep = {"rgb": size[0] * size[1] // 50, "depth": size[0] * size[1] // 500}
    certify_segmentation(RoadNet.for_samples(samples), samples, keep=keep, draws=draws, batch_size=10)
    return draws * mask.size


def watch(draws: int, _: tuple[int, int]) -> int:
    """Certify some windows; return the bytes that their votes would take if each were kept as one byte."""
    rng = np.random.default_rng(0)
    sensors = ("accelerometer", "gyroscope")
    windows = {m: rng.normal(size=(WINDOWS, 128, 3)).astype(np.float32) for m in sensors}
    classes = tuple("abcdefg")
    samples = MultiModalSamples(
        "noise", "test", windows, np.zeros(WINDOWS, dtype=np.int64), classes, np.arange(WINDOWS)
    )
    model = WatchNet.for_samples(samples)
    certify(model, samples, keep=dict.fromkeys(sensors, 5), draws=draws, batch_size=2000)
    return draws * WINDOWS


TASKS = {"road": road, "watch": watch}


def main() -> None:
    """Measure every task at every N in a process of its own, and print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, nargs="+", default=[100, 10_000])
    parser.add_argument("--size", type=int, nargs=2, default=[48, 160], metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--only", choices=TASKS, help="measure this process itself, for one N (used by the others)")
    options = parser.parse_args()
    if options.only:
        torch.set_num_threads(1)
        stored = TASKS[options.only](options.draws[0], tuple(options.size))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(json.dumps({"peak_mib": round(peak / 1024, 1), "votes_stored_one_by_one_mib": round(stored / 2**20, 1)}))
        return
    report: dict[str, object] = {"road_size": options.size, "watch_windows": WINDOWS}
    for task in TASKS:
        for draws in options.draws:
            size = [str(number) for number in options.size]
            command = [sys.executable, __file__, "--only", task, "--draws", str(draws), "--size", *size]
            found = subprocess.run(command, capture_output=True, text=True, check=True)
            report[f"{task}, N = {draws}"] = json.loads(found.stdout)
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
