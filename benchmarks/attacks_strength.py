"""How strong each attack of the table is on a model, at equal budget: retrieval, clean and attacked.

    python benchmarks/attacks_strength.py [--model emoji-clip] [--images 64] [--eps 2] [--words 1] [--threads 2]

`adaptive` should leave the least: it is the attack that defences are judged by.
"""

import argparse
import time

import torch

import crossguard as cg
from crossguard.attacks import ATTACKS

FINDING = [name for name in ATTACKS if name != "saved"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="emoji-clip", help="a name of the table or a folder")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--eps", type=float, default=2.0, help="grey levels")
    parser.add_argument("--words", type=int, default=1)
    parser.add_argument("--attacks", nargs="+", default=FINDING, choices=FINDING)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = cg.load_model(options.model)
    pairs = cg.load_pairs("emoji", split="test").head(options.images)
    threat = cg.ThreatModel(image=cg.LInf(eps=options.eps / 255), text=cg.WordEdits(words=options.words))
    print(f"{model.name}, {len(pairs.images)} images, {len(pairs.texts)} texts, {threat}")
    print(f"{'attack':<12}{'TR@1':>8}{'IR@1':>8}{'seconds':>10}")
    for name in options.attacks:
        start = time.perf_counter()
        result = cg.evaluate(model, pairs, attack=name, threat=threat.only(*ATTACKS[name].uses), seed=0)
        if name == options.attacks[0]:
            print(f"{'clean':<12}{result.clean['tr@1']:>8.1f}{result.clean['ir@1']:>8.1f}")
        took = time.perf_counter() - start
        print(f"{name:<12}{result.robust['tr@1']:>8.1f}{result.robust['ir@1']:>8.1f}{took:>10.1f}", flush=True)


if __name__ == "__main__":
    main()
