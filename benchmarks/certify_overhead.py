"""What drawing and counting cost beside the bare forward passes, for the road model at the size of KITTI Road.

    python benchmarks/certify_overhead.py [--draws 8] [--encoder tiny]
    python benchmarks/certify_overhead.py --device cuda --encoder resnet-152 --size 384 1248 --batch-size 8 --draws 160

On a CPU in processor seconds of this process, so that other work on the machine does not count; elsewhere in wall time.
Both are measured in turns, and the medians compared. Weights are random: they do not change the cost.
"""

import argparse
import json
import resource
import statistics
import time
from functools import partial

import numpy as np
import torch

from crossguard.certify.design import Design
from crossguard.certify.sampling import Asked, pixel_votes
from crossguard.models.road_net import RoadNet
from crossguard.progress import Silent

SHARE = {"rgb": 0.0193, "depth": 0.00214}  # of the pixels kept, the published setting for KITTI Road


def main() -> None:
    """Time both and print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=8)
    parser.add_argument("--encoder", default="tiny")
    parser.add_argument("--size", type=int, nargs=2, default=(375, 1242), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(1)
    height, width = options.size
    rng = np.random.default_rng(0)
    values = {
        "rgb": rng.random((1, 3, height, width), dtype=np.float32),
        "depth": rng.random((1, 1, height, width), dtype=np.float32),
    }
    model = RoadNet({"rgb": 3, "depth": 1}, ("other", "road"), encoder=options.encoder).eval().to(options.device)
    keep = {m: round(share * height * width) for m, share in SHARE.items()}
    sizes = dict.fromkeys(keep, height * width)
    how = {"batch_size": options.batch_size, "device": options.device, "mask_size": (height, width)}
    asked = Asked(model, values, Design(keep, sizes, **how))
    draw = torch.arange(options.batch_size, device=options.device)
    inputs, kept = asked.sub_samples(np.array([0]), torch.zeros_like(draw), draw)
    shaped = {name: mask.reshape(-1, height, width) for name, mask in kept.items()}
    batches = options.draws // options.batch_size
    clock = time.process_time if options.device == "cpu" else time.perf_counter

    @torch.no_grad()
    def forward(count: int) -> None:
        for _ in range(count):
            model(inputs, shaped)

    def seconds(work: partial[object]) -> float:
        if options.device != "cpu":
            torch.cuda.synchronize(options.device)
        start = clock()
        work()
        if options.device != "cpu":
            torch.cuda.synchronize(options.device)
        return (clock() - start) / (batches * options.batch_size)

    with Silent().task("", total=1) as task:
        span = (0, batches * options.batch_size)
        votes = partial(pixel_votes, span, asked=asked, image=0, task=task)
        forward(1)  # warms up
        bare, whole = [], []
        for _ in range(options.turns):
            bare.append(seconds(partial(forward, batches)))
            whole.append(seconds(votes))
    one, both = statistics.median(bare), statistics.median(whole)
    report = {
        "device": torch.cuda.get_device_name(options.device) if options.device != "cpu" else "cpu",
        "encoder": options.encoder,
        "weights": sum(parameter.numel() for parameter in model.parameters()),
        "size": [height, width],
        "kept": keep,
        "draws": batches * options.batch_size,
        "batch_size": options.batch_size,
        "forward_seconds_per_draw": round(one, 5),
        "certify_seconds_per_draw": round(both, 5),
        "draws_per_second": round(1 / both, 2),
        "overhead_percent": round(100 * (both / one - 1), 1),
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    if options.device != "cpu":
        report["peak_device_memory_mib"] = torch.cuda.max_memory_allocated(options.device) // 2**20
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
