"""What a training step of each defence costs, beside a clean step and beside the passes it cannot do without.

    python benchmarks/training_cost.py [--model emoji-clip] [--batch-size 64] [--steps 8] [--threads 2]

Seconds are processor time of this process (all threads), so that a busy machine disturbs them little. The last row is
the time of a mat step's forward and backward passes alone: what no trainer can save.
"""

import argparse
import time
from collections.abc import Callable

import torch
from torch.nn.functional import normalize

import crossguard as cg
from crossguard.attacks import frozen, maximise
from crossguard.models.losses import contrastive, contrastive_by_image
from crossguard.training import DEFENCES, Composition, Pictures, StepBatches, train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="emoji-clip", help="a name of the table or a folder")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model, pairs = cg.load_model(options.model), cg.load_pairs("emoji", split="train")
    pictures = Pictures(model, pairs)
    threat = cg.ThreatModel(image=cg.LInf(eps=2 / 255), text=cg.WordEdits(words=1))

    def per_step(defence: str) -> float:
        def run(steps: int) -> float:
            start = time.process_time()
            train(
                model,
                pairs,
                defence=defence,
                threat=threat,
                steps=steps,
                batch_size=options.batch_size,
                pictures=pictures,
                log_every=10**9,
            )
            return time.process_time() - start

        run(1)
        return (run(options.steps + 2) - run(2)) / options.steps

    clean = per_step("clean")
    print(f"{model.name}, batch {options.batch_size}, {options.threads} threads, {threat}")
    print(f"{'defence':<10}{'s/step':>9}{'x clean':>9}")
    for name in DEFENCES:
        seconds = clean if name == "clean" else per_step(name)
        print(f"{name:<10}{seconds:>9.3f}{seconds / clean:>9.2f}", flush=True)
    seconds = floor(model, pairs, pictures, batch_size=options.batch_size, repeats=options.steps)
    print(f"{'mat floor':<10}{seconds:>9.3f}{seconds / clean:>9.2f}   the passes of a mat step alone")


def floor(
    model: torch.nn.Module, pairs: cg.OneToManyPairs, pictures: Pictures, *, batch_size: int, repeats: int
) -> float:
    """Processor seconds of the model passes of a mat step: text candidates, two PGD steps, outer loss and gradients."""
    batch = StepBatches(pairs, pictures, Composition(batch_size), seed=0)[0]
    tokens = model.tokenize(batch.batch.texts)
    many = model.tokenize(batch.batch.texts * 9)
    pixels, eye = batch.batch.pixels, batch.targets

    def passes() -> None:
        with frozen(model):
            with torch.no_grad():
                model.encode_image(pixels)
                model.encode_text(many)
                texts = normalize(model.encode_text(tokens), dim=-1)
            maximise(
                lambda p: contrastive_by_image(100 * normalize(model.encode_image(p), dim=-1) @ texts.T, eye),
                pixels,
                eps=2 / 255,
                steps=2,
                step_size=1 / 255,
                keep_best=False,
            )
        images, texts = (normalize(e, dim=-1) for e in (model.encode_image(pixels), model.encode_text(tokens)))
        contrastive(100 * images @ texts.T, eye).backward()
        model.zero_grad()

    return timed(passes, repeats)


def timed(work: Callable[[], None], repeats: int) -> float:
    work()
    start = time.process_time()
    for _ in range(repeats):
        work()
    return (time.process_time() - start) / repeats


if __name__ == "__main__":
    main()
