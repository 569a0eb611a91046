"""What a training step of each defence costs, beside a clean step and beside the passes it cannot do without.

    python benchmarks/training_cost.py [--model emoji-clip] [--batch-size 64] [--steps 8] [--threads 2]
    python benchmarks/training_cost.py --defences mat "mat pgd_steps=4" "mat order=alternating clean_weight=0.5"
    python benchmarks/training_cost.py --device cuda --vit-b16 --batch-size 128 --defences clean mat

On a CPU, seconds are processor time of this process (all threads), so that a busy machine disturbs them little, and
each defence is measured in turn with clean steps. On a GPU they are wall time, in bfloat16. The *floor* of a mat step
is its forward and backward passes alone: scoring the text candidates, two gradient steps on the pixels, and the loss
with its gradient. Memory is the peak of this process on a CPU (it only grows: name one defence to see its own), of the
device's allocator on a GPU.
"""

import argparse
import resource
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
import yaml
from torch.nn.functional import normalize

import crossguard as cg
from crossguard.attacks import frozen, make_source, maximise
from crossguard.data import PairBatch
from crossguard.models import CLIP
from crossguard.models.losses import contrastive, contrastive_by_image
from crossguard.training import (
    DEFENCES,
    Composition,
    Pictures,
    StepBatches,
    Swaps,
    swap_some,
    train,
)

THREAT = cg.ThreatModel(image=cg.LInf(eps=2 / 255), text=cg.WordEdits(words=1))
PGD_STEPS, TEXT_TRIES = 2, 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="emoji-clip", help="a name of the table or a folder")
    parser.add_argument("--vit-b16", action="store_true", help="a CLIP of ViT-B/16's sizes with random weights instead")
    parser.add_argument(
        "--defences", nargs="+", default=list(DEFENCES), help='defences, options of `train` behind: "mat pgd_steps=4"'
    )
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--chunk-size", type=int, default=None)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    model = cg.load_model(options.model)
    if options.vit_b16:
        model = vit_b16(model)
    pairs = cg.load_pairs("emoji", split="train").head(max(256, 2 * options.batch_size))
    pictures = Pictures(model, pairs, memory_limit=2**33)
    model = model.to(device)

    common: dict[str, Any] = {
        "threat": THREAT,
        "batch_size": options.batch_size,
        "chunk_size": options.chunk_size,
        "pgd_steps": PGD_STEPS,
        "text_tries": TEXT_TRIES,
        "pictures": pictures,
        "log_every": 0,
        "compile": options.compile,
    }

    def seconds(asked: str, steps: int) -> float:
        defence, *changes = asked.split()
        changed = {key: yaml.safe_load(value) for key, value in (change.split("=") for change in changes)}
        start = now(device)
        train(model, pairs, defence=defence, steps=steps, **common | changed)
        return now(device) - start

    def per_step(asked: str) -> float:
        return (seconds(asked, options.steps + 2) - seconds(asked, 2)) / options.steps

    print(f"{model.name}, batch {options.batch_size}, {device}, {options.threads} threads, {THREAT}")
    width = max(9, *map(len, options.defences)) + 1
    print(f"{'defence':<{width}}{'s/step':>9}{'x clean':>9}{'images/s':>10}{'peak GiB':>10}")
    for name in dict.fromkeys(["clean", *options.defences]):
        seconds(name, 1)
        reset_peak(device)
        # In turn, so that both see the same machine.
        rounds = [(per_step("clean"), per_step(name)) for _ in range(3)]
        clean, each = (statistics.median(column) for column in zip(*rounds, strict=True))
        print(
            f"{name:<{width}}{each:>9.3f}{each / clean:>9.2f}{options.batch_size / each:>10.1f}{peak(device):>10.2f}",
            flush=True,
        )
    if "mat" in options.defences:
        batch = StepBatches(pairs, pictures, Composition(options.batch_size), seed=0)[0].to(device)
        passes = floor(model, batch.batch, batch.targets, device=device)
        rounds = [(timed(passes, options.steps, device), per_step("mat")) for _ in range(3)]
        least, each = (statistics.median(column) for column in zip(*rounds, strict=True))
        print(f"{'mat floor':<10}{least:>9.3f}   the passes of a mat step alone; the step takes {each / least:.2f} x")
        rate = text_rate(model, pairs, batch.batch, device=device, repeats=options.steps)
        print(f"inner text attack: {rate:.0f} texts/s")


def vit_b16(small: CLIP) -> CLIP:
    """A CLIP of ViT-B/16's sizes with random weights, and the tokenizer of a small one."""
    return CLIP.from_sizes(
        small.tokenizer,
        image_size=224,
        patch_size=16,
        vision_width=768,
        vision_layers=12,
        text_width=512,
        text_layers=12,
        context_length=77,
        embed_dim=512,
        seed=0,
        name="random ViT-B/16",
    )


def floor(model: CLIP, batch: PairBatch, targets: torch.Tensor, *, device: torch.device) -> Callable[[], None]:
    """Return the model passes of a mat step, and nothing else of it."""
    tokens = model.tokenize(batch.texts)
    many = model.tokenize(batch.texts * TEXT_TRIES)
    fast = torch.autocast("cuda", dtype=torch.bfloat16) if device.type == "cuda" else nullcontext()

    def passes() -> None:
        with fast:
            with frozen(model):
                with torch.no_grad():
                    model.encode_image(batch.pixels)
                    model.encode_text(many)
                    texts = normalize(model.encode_text(tokens).float(), dim=-1)
                maximise(
                    lambda p: contrastive_by_image(
                        100 * normalize(model.encode_image(p).float(), dim=-1) @ texts.T, targets
                    ),
                    batch.pixels,
                    eps=2 / 255,
                    steps=PGD_STEPS,
                    step_size=1 / 255,
                    keep_best=False,
                )
            images, texts = (
                normalize(e.float(), dim=-1) for e in (model.encode_image(batch.pixels), model.encode_text(tokens))
            )
            contrastive(100 * images @ texts.T, targets).backward()
        model.zero_grad()

    return passes


def text_rate(model: CLIP, pairs: cg.OneToManyPairs, batch: PairBatch, *, device: torch.device, repeats: int) -> float:
    """Texts per second of the inner text attack, candidates known already, as from a training's second epoch on."""
    swaps = Swaps(make_source("thesaurus"), model)
    with torch.no_grad():
        images = normalize(model.encode_image(batch.pixels).float(), dim=-1)
    rng = np.random.default_rng(0)

    @torch.no_grad()
    def score(texts: list[str], owners: list[int]) -> np.ndarray:
        units = normalize(model.encode_text(texts).float(), dim=-1)
        return (units * images[owners]).sum(dim=1).cpu().numpy()

    def attack() -> None:
        swap_some(batch.texts, score, words=1, tries=TEXT_TRIES, swaps=swaps, rng=rng)

    return len(batch.texts) / timed(attack, repeats, device)


def now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return time.perf_counter()
    return time.process_time()


def reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def timed(work: Callable[[], None], repeats: int, device: torch.device) -> float:
    work()
    start = now(device)
    for _ in range(repeats):
        work()
    return (now(device) - start) / repeats


if __name__ == "__main__":
    main()
