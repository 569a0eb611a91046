"""What a sub-sample costs when ablated elements are dropped, against overwriting them and against a whole input.

    python benchmarks/certify_drop.py [--kept 0.05 0.1 0.25 0.5 1.0] [--layers 4] [--width 384]

A vision transformer in CLIP's layout (224 x 224 pixels, patches of 16, 196 elements) and the watch classifier (2 x 128
time steps). Processor seconds, the ways in turns, medians; weights are random: they do not change the cost.
"""

import argparse
import json
import statistics
import time
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from crossguard.certify.design import Design
from crossguard.certify.sampling import Asked, class_logits
from crossguard.data import MultiModalSamples
from crossguard.models import CLIP, Packed, WatchNet, load_model
from crossguard.models.patches import encode_patches, from_patches, to_patches


class PatchClassifier(nn.Module):
    """A linear head on an image tower that can leave out patches."""

    name, modalities, packs, classes = "patches", ("image",), ("image",), ("a", "b")

    def __init__(self, tower: CLIP) -> None:
        super().__init__()
        self.tower = tower
        self.head = nn.Linear(64, 2)

    def forward(self, inputs: Mapping[str, Tensor], kept: Mapping[str, Tensor] | None = None) -> Tensor:
        """Read every patch, grey ones included, as a model that takes whole images does."""
        return self.head(self.tower.encode_image(from_patches(inputs["image"], self.tower.patch_grid)))

    def classify_kept(self, inputs: Mapping[str, Packed], kept: Mapping[str, Tensor]) -> Tensor:
        """Read what was kept alone."""
        return self.head(encode_patches(self.tower, inputs["image"]))


def vision(layers: int, width: int) -> tuple[nn.Module, MultiModalSamples]:
    """A transformer with a head, and two images cut into patches."""
    tower = CLIP.from_sizes(
        load_model("emoji-clip").tokenizer,
        image_size=224,
        patch_size=16,
        vision_width=width,
        vision_layers=layers,
        text_width=32,
        text_layers=1,
        context_length=16,
        embed_dim=64,
        seed=0,
    )
    pixels = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    patches = {"image": to_patches(pixels, tower.patch_grid).contiguous().numpy()}
    labels, classes = np.zeros(2, dtype=np.int64), ("a", "b")
    return PatchClassifier(tower), MultiModalSamples("noise", "test", patches, labels, classes, np.arange(2))


def watch() -> tuple[nn.Module, MultiModalSamples]:
    """The watch classifier, and windows."""
    rng = np.random.default_rng(0)
    windows = {m: rng.normal(size=(2, 128, 3)).astype(np.float32) for m in ("accelerometer", "gyroscope")}
    samples = MultiModalSamples("noise", "test", windows, np.zeros(2, dtype=np.int64), tuple("abcdefg"), np.arange(2))
    return WatchNet.for_samples(samples), samples


@torch.no_grad()
def costs(model: nn.Module, samples: MultiModalSamples, *, share: float, rows: int, turns: int) -> dict[str, float]:
    """Return the cost of a sub-sample, drawing included, over that of a whole input, dropped and overwritten."""
    values = dict(samples.modalities)
    sizes = {m: array.shape[1] for m, array in values.items()}
    keep = {m: max(1, round(share * size)) for m, size in sizes.items()}
    draw = torch.arange(rows)
    position = torch.zeros_like(draw)
    whole = {m: torch.from_numpy(array[:1]).expand(rows, *array.shape[1:]).contiguous() for m, array in values.items()}
    dropped, overwritten = (Asked(model, values, Design(keep, sizes, packs=packs)) for packs in (tuple(sizes), ()))
    ways = {
        "whole": lambda: model(whole),
        "dropped": lambda: class_logits(model, *dropped.sub_samples(np.arange(1), position, draw)),
        "overwritten": lambda: class_logits(model, *overwritten.sub_samples(np.arange(1), position, draw)),
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(turns + 1):
        for way, run in ways.items():
            start = time.process_time()
            run()
            if turn:  # the first warms up
                seconds[way].append(time.process_time() - start)
    median = {way: statistics.median(values) for way, values in seconds.items()}
    shares = {way: round(median[way] / median["whole"], 3) for way in ("dropped", "overwritten")}
    return {"k/n": round(sum(keep.values()) / sum(sizes.values()), 3), **shares}


def main() -> None:
    """Measure and print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kept", type=float, nargs="+", default=[0.05, 0.1, 0.25, 0.5, 1.0])
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    report = {}
    for name, (model, samples), rows in (
        ("vision transformer", vision(options.layers, options.width), 8),
        ("watch", watch(), 512),
    ):
        model.eval()
        report[name] = [costs(model, samples, share=share, rows=rows, turns=options.turns) for share in options.kept]
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
