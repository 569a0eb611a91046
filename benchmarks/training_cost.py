"""What a training step of each defence costs, beside a clean step and beside the passes it cannot do without.

    python benchmarks/training_cost.py [--model emoji-clip] [--batch-size 64] [--steps 8] [--rounds 5] [--threads 1]
    python benchmarks/training_cost.py --defences mat "mat pgd_steps=4" "mat order=alternating clean_weight=0.5"
    python benchmarks/training_cost.py --device cuda --vit-b16 --batch-size 128 --defences clean mat

On a CPU, seconds are processor time of this process (all threads), so that a busy machine disturbs them less. Each
defence is measured in turn with clean steps, and a ratio is that of one round: its median, lowest and highest are
printed. Operations are counted (`FlopCounterMode`) and come out the same every time. On a GPU seconds are wall time, in
bfloat16. The passes of a mat step are its forward and backward passes alone: scoring the text candidates, two gradient
steps on the pixels, and the loss with its gradient. Memory is the peak of this process on a CPU (it only grows: name
one defence to see its own), of the device's allocator on a GPU.
"""

import argparse
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
import yaml
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import normalize
from torch.utils.flop_counter import FlopCounterMode

import crossguard as cg
from crossguard.attacks import LInfBall, frozen, make_source, maximise
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
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
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

    def run(asked: str, steps: int) -> None:
        defence, *changes = asked.split()
        changed = {key: yaml.safe_load(value) for key, value in (change.split("=") for change in changes)}
        train(model, pairs, defence=defence, steps=steps, **common | changed)

    def seconds(asked: str, steps: int) -> float:
        start = now(device)
        run(asked, steps)
        return now(device) - start

    def operations(asked: str) -> int:
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            run(asked, 2)
        return counter.get_total_flops()

    def per_step(asked: str) -> float:
        return (seconds(asked, options.steps + 2) - seconds(asked, 2)) / options.steps

    print(f"{model.name}, batch {options.batch_size}, {device}, {options.threads} threads, {THREAT}")
    width = max(9, *map(len, options.defences)) + 1
    head = ("x clean (lowest to highest)", "operations x clean", "peak GiB")
    print(f"{'defence':<{width}}{'s/step':>8}{head[0]:>30}{head[1]:>20}{head[2]:>10}")
    least = operations("clean")
    for name in dict.fromkeys(["clean", *options.defences]):
        seconds(name, 1)
        reset_peak(device)
        # In turn, so that both see the same machine.
        rounds = [(per_step("clean"), per_step(name)) for _ in range(options.rounds)]
        print(
            f"{name:<{width}}{statistics.median(each for _, each in rounds):>8.3f}{ratio(rounds):>30}"
            f"{operations(name) / least:>20.2f}{peak(device):>10.2f}",
            flush=True,
        )
    if "mat" in options.defences:
        batch = StepBatches(pairs, pictures, Composition(options.batch_size), seed=0)[0].to(device)
        passes = floor(model, batch.batch, batch.targets, device=device)
        rounds = [(timed(passes, options.steps, device), per_step("mat")) for _ in range(options.rounds)]
        print(f"a mat step takes {ratio(rounds)} times its passes alone")
        rate = text_rate(model, pairs, batch.batch, device=device, repeats=options.steps)
        print(f"inner text attack: {rate:.0f} texts/s")


def ratio(rounds: Sequence[tuple[float, float]]) -> str:
    """The median of the second over the first, and in brackets the lowest and the highest."""
    found = sorted(each / other for other, each in rounds)
    return f"{statistics.median(found):.2f} ({found[0]:.2f} to {found[-1]:.2f})"


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
                    LInfBall(batch.pixels, 2 / 255),
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
