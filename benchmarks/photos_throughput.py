"""Throughput of clean encoding and of every attack on photos with captions of your own.

    python benchmarks/photos_throughput.py --annotations DIR/test.json --root DIR [--photos 32] [--model emoji-clip]

The annotations are a list of {"image", "caption": [several]}. Times are wall clock, evaluation included; recalls show
that the attacks did something, not how good the model is.
"""

import argparse
import time

import torch

import crossguard as cg
from crossguard.attacks import ATTACKS
from crossguard.threat import Elements, ThreatModel


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--annotations", required=True)
    parser.add_argument("--root", required=True)
    parser.add_argument("--photos", type=int, default=32)
    parser.add_argument("--model", default="emoji-clip", help="a name of the table or a folder")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = cg.load_model(options.model)
    pairs = cg.load_pairs("json", annotations=options.annotations, root=options.root)
    pairs = pairs.spread(options.photos)
    images, texts = len(pairs.images), len(pairs.texts)
    print(f"{model.name}: {images} photos, {texts} captions, {options.threads} threads")
    print(f"{'':<12}{'seconds':>9}{'photos/s':>10}{'captions/s':>12}{'TR@5 / IR@5':>16}")
    for name in (None, *(name for name in ATTACKS if name != "saved")):
        began = time.perf_counter()
        if name is None:
            recalls = cg.evaluate(model, pairs, examples=0).clean
        else:
            image = Elements(2) if name == "sparse" else cg.LInf(eps=2 / 255)
            threat = ThreatModel(image=image, text=cg.WordEdits(words=1))
            uses = ATTACKS[name].uses
            threat = threat if len(uses) > 1 else threat.only(*uses)
            recalls = cg.evaluate(model, pairs, attack=name, threat=threat, seed=0, examples=0).robust or {}
        seconds = time.perf_counter() - began
        found = f"{recalls['tr@5']:.1f} / {recalls['ir@5']:.1f}"
        print(
            f"{name or 'clean':<12}{seconds:>9.1f}{images / seconds:>10.1f}{texts / seconds:>12.1f}{found:>16}",
            flush=True,
        )


if __name__ == "__main__":
    main()
