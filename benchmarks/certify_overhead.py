"""What drawing and counting cost beside the bare forward passes, for the road model at the size of KITTI Road.

    python benchmarks/certify_overhead.py [--draws 8] [--encoder tiny]

Processor seconds of this process, so that other work on the machine does not count.
"""

import argparse
import json
import resource
import time

import numpy as np
import torch

from crossguard.certify.design import Design
from crossguard.certify.sampling import pixel_votes, sub_samples
from crossguard.models.road_net import RoadNet
from crossguard.progress import Silent

HEIGHT, WIDTH = 375, 1242
KEEP = {"rgb": 8988, "depth": 996}


def main() -> None:
    """Time both and print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=8)
    parser.add_argument("--encoder", default="tiny")
    parser.add_argument("--batch-size", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    values = {
        "rgb": rng.random((1, 3, HEIGHT, WIDTH), dtype=np.float32),
        "depth": rng.random((1, 1, HEIGHT, WIDTH), dtype=np.float32),
    }
    model = RoadNet({"rgb": 3, "depth": 1}, ("other", "road"), encoder=options.encoder).eval()
    sizes = dict.fromkeys(KEEP, HEIGHT * WIDTH)
    design = Design(KEEP, sizes, batch_size=options.batch_size)
    draws = torch.arange(options.batch_size)
    inputs, kept = sub_samples(values, np.array([0]), torch.zeros_like(draws), draws, design)
    shaped = {name: mask.reshape(-1, HEIGHT, WIDTH) for name, mask in kept.items()}
    with torch.no_grad():
        model(inputs, shaped)  # warm up
        start = time.process_time()
        for _ in range(options.draws // options.batch_size):
            model(inputs, shaped)
        forward = time.process_time() - start
    with Silent().task("", total=1) as task:
        start = time.process_time()
        pixel_votes(
            (0, options.draws),
            model=model,
            values=values,
            image=0,
            design=design,
            task=task,
        )
        drawing = time.process_time() - start
    report = {
        "draws": options.draws,
        "forward_seconds_per_draw": round(forward / options.draws, 4),
        "counting_seconds_per_draw": round(drawing / options.draws, 4),
        "overhead_percent": round(100 * (drawing / forward - 1), 1),
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
