"""Defences and their options at equal training time: robust accuracy against cost, on held-out pairs.

    python benchmarks/training_strategies.py [--seconds 100] [--images 200] [--learning-rate 3e-4] [--threads 2]

Every row gets the same processor seconds of training (steps follow from a few timed ones), from the same start, and is
judged by sga on pictures of the validation split: alone on pictures, alone on captions, and on both.
"""

import argparse
import time
from typing import Any

import numpy as np
import torch

import crossguard as cg
from crossguard.training import Pictures, train

STRATEGIES: dict[str, dict[str, Any]] = {
    "clean": {"defence": "clean"},
    "tecoa": {"defence": "tecoa"},
    "mmcoa": {"defence": "mmcoa"},
    "mat": {"defence": "mat"},
    "mat, 1 pgd step": {"defence": "mat", "pgd_steps": 1},
    "mat, 4 pgd steps": {"defence": "mat", "pgd_steps": 4},
    "mat, image first": {"defence": "mat", "order": "image-first"},
    "mat, 32 text tries": {"defence": "mat", "text_tries": 32},
    "mat, half clean": {"defence": "mat", "clean_weight": 0.5},
    "mat+ (1 image, 1 text)": {"defence": "mat+", "images_per_text": 1, "texts_per_image": 1},
    "mat+ (1 image, 2 texts)": {"defence": "mat+", "images_per_text": 1, "texts_per_image": 2},
    "mat+ (2 images, 2 texts)": {"defence": "mat+", "images_per_text": 2, "texts_per_image": 2},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="emoji-clip", help="a name of the table or a folder")
    parser.add_argument("--seconds", type=float, default=100.0, help="of processor time per training")
    parser.add_argument("--images", type=int, default=200, help="of the validation split")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=3e-4)
    parser.add_argument("--eps", type=float, default=2.0, help="grey levels")
    parser.add_argument("--only", nargs="+", default=list(STRATEGIES), choices=list(STRATEGIES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model, pairs = cg.load_model(options.model), cg.load_pairs("emoji", split="train")
    held_out = cg.load_pairs("emoji", split="val")
    chosen = np.random.default_rng(0).choice(len(held_out.images), min(options.images, len(held_out.images)), False)
    held_out = held_out.select(images=np.sort(chosen).tolist())
    pictures = Pictures(model, pairs)
    threat = cg.ThreatModel(image=cg.LInf(eps=options.eps / 255), text=cg.WordEdits(words=1))
    common = {
        "threat": threat,
        "batch_size": options.batch_size,
        "learning_rate": options.learning_rate,
        "seed": options.seed,
        "pictures": pictures,
        "log_every": 10**9,
    }
    print(f"{model.name}, {threat}, {len(held_out.images)} images, {len(held_out.texts)} texts; IR@1 / TR@1")
    print(f"{'':<26}{'steps':>6}{'clean':>14}{'images':>14}{'texts':>14}{'both':>14}")
    print(row("undefended", 0, model, held_out, threat), flush=True)
    for name in options.only:
        each = seconds_of(lambda steps, name=name: train(model, pairs, steps=steps, **common, **STRATEGIES[name]))
        steps = max(1, round(options.seconds / each))
        trained = train(model, pairs, steps=steps, **common, **STRATEGIES[name])
        print(row(name, steps, trained, held_out, threat), flush=True)


def seconds_of(run: Any) -> float:
    """Processor seconds of one step."""
    taken = []
    for steps in (2, 8):
        start = time.process_time()
        run(steps)
        taken.append(time.process_time() - start)
    return (taken[1] - taken[0]) / 6


def row(name: str, steps: int, model: Any, pairs: cg.OneToManyPairs, threat: cg.ThreatModel) -> str:
    cells = []
    for part in (threat.only("image"), threat.only("text"), threat):
        result = cg.evaluate(model, pairs, attack="sga", threat=part, seed=0)
        if not cells:
            cells.append(f"{result.clean['ir@1']:.1f} / {result.clean['tr@1']:.1f}")
        cells.append(f"{result.robust['ir@1']:.1f} / {result.robust['tr@1']:.1f}")
    return f"{name:<26}{steps:>6}" + "".join(f"{cell:>14}" for cell in cells)


if __name__ == "__main__":
    main()
