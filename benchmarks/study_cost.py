"""What the studies of the paper cost on GPUs: passes counted, operations counted, time from a measured rate.

    python benchmarks/study_cost.py [--tflops 325] [--share 0.5] [--gpus 1 8 64]

Passes per pair are counted by taking a step of the defence, and by running the attacks on a few photos, with a model
whose passes cost next to nothing (`host_time.py`): they do not depend on the model. Operations of a pass are counted by
PyTorch on shapes alone. `--tflops` is what the bare passes reach (CLIP ViT-B/16 in bfloat16 on an H200: 3,081 images a
second there and back, 105 GFLOP each), `--share` the share of the time that they have (`gpu.py` measures both).
"""

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPVisionConfig

from crossguard.attacks import make_attack
from crossguard.evaluate.batches import in_order, pair_batch
from crossguard.progress import Silent
from crossguard.training import train
from gpu import Record, recorded
from host_time import THREAT, build_model, draw_pairs

STUDIES = {
    "Flickr30k": {"images": 29_000, "test": 1_000, "epochs": 10},
    "COCO": {"images": 113_287, "test": 5_000, "epochs": 5},
}
"""The sizes of the field's splits (Karpathy), and the epochs of the shipped recipes."""
ARMS = ("clean", "tecoa", "mat", "mat+")
ATTACKS = ("pgd", "sga", "adaptive")
STEP, PHOTOS, SEEDS = 32, 16, 3


def flop_per_pass() -> tuple[float, float]:
    """Operations of one picture and of one caption of 16 tokens through CLIP ViT-L/14 at 224 pixels."""
    vision = CLIPVisionConfig(
        hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16, patch_size=14
    )
    text = CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12)
    config = CLIPConfig(
        text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=768, attn_implementation="eager"
    )
    with torch.device("meta"):
        model = CLIPModel(config)
        pixels, ids = torch.empty(1, 3, 224, 224), torch.empty(1, 16, dtype=torch.int64)
    found = []
    for work in (lambda: model.vision_model(pixel_values=pixels), lambda: model.text_model(input_ids=ids)):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            work()
        found.append(float(counter.get_total_flops()))
    return found[0], found[1]


def flop_of(record: Record, per: tuple[float, float]) -> float:
    """Operations of passes: a gradient costs two more passes."""
    rows = [(0, one.rows[0]) if one.tower == "image" else (1, len(one.rows)) for one in record.passes]
    return sum(n * per[t] * (3 if one.gradient else 1) for (t, n), one in zip(rows, record.passes, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tflops", type=float, default=325.0)
    parser.add_argument("--share", type=float, default=0.5)
    parser.add_argument("--gpus", type=int, nargs="+", default=[1, 8, 64])
    options = parser.parse_args()
    rate, cpu, per = options.tflops * 1e12 * options.share, torch.device("cpu"), flop_per_pass()
    print(f"CLIP ViT-L/14: {per[0] / 1e9:.0f} GFLOP a picture, {per[1] / 1e9:.1f} a caption")
    with TemporaryDirectory() as folder:
        pairs = draw_pairs(Path(folder), 2 * STEP)
        trained, judged = {}, {}
        for arm in ARMS:
            model = build_model(pairs)
            more: dict[str, Any] = {"threat": None if arm == "clean" else THREAT, "progress": Silent(), "log_every": 0}
            with recorded(model, cpu) as record:
                train(model, pairs, defence=arm, steps=1, batch_size=STEP, **more)
            trained[arm] = flop_of(record, per) / STEP
        for name in ATTACKS:
            model = build_model(pairs)
            threat = THREAT.only("image") if name == "pgd" else THREAT
            with recorded(model, cpu) as record:
                for ids in in_order(PHOTOS, batch_size=PHOTOS):
                    make_attack(name)(model, pair_batch(model, pairs, ids), threat=threat, seed=0)
            judged[name] = flop_of(record, per) / PHOTOS
    for name, flop in trained.items():
        print(f"training {name:<10}{flop / 1e12:>8.2f} TFLOP a pair")
    for name, flop in judged.items():
        print(f"attack {name:<12}{flop / 1e12:>8.2f} TFLOP a photo with five captions")
    print(
        f"{'GPU hours':<14}{'training':>10}{'judging':>10}{'together':>10}   hours on "
        + ", ".join(map(str, options.gpus))
    )
    for study, size in STUDIES.items():
        training = SEEDS * size["images"] * size["epochs"] * sum(trained.values()) / rate / 3600
        judging = (1 + SEEDS * len(ARMS)) * size["test"] * sum(judged.values()) / rate / 3600
        clock = ", ".join(f"{(training + judging) / gpus:.1f}" for gpus in options.gpus)
        print(f"{study:<14}{training:>10.1f}{judging:>10.1f}{training + judging:>10.1f}   {clock}")


if __name__ == "__main__":
    main()
